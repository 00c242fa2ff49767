"""Tests of loading weights as an encoder, and of the errors for weights that do not fit."""

from __future__ import annotations

import dataclasses
import json
import logging
import random
import shutil
from pathlib import Path

import numpy as np
import pytest

from reranker.errors import ModelError
from reranker.model import Encoder, device, load, resolve
from tests.helpers import hub
from tests.helpers.weights import CANDIDATES, QUERIES, TINY, WHEEL, at


@pytest.mark.slow
def test_a_max_length_above_the_positions_raises(repositories) -> None:
    with pytest.raises(ModelError, match=r"model.max_length=513 is above the 512 positions"):
        load(dataclasses.replace(TINY, max_length=513))
    bge = repositories[hub.pinned("bge")]  # 514 position rows; tokens never use the first two
    load(at(bge, max_length=512)).score(["a " * 600], ["b " * 600])
    with pytest.raises(ModelError, match=r"model.max_length=513 is above the 512 positions"):
        load(at(bge, max_length=513))


@pytest.mark.slow
def test_a_head_with_several_labels_raises(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path, n_labels=3)
    with pytest.raises(
        ModelError, match=r"head of 3 labels \(classifier.weight\); a scorer needs 1"
    ):
        load(at(tmp_path))


@pytest.mark.slow
def test_a_shortened_weights_file_raises(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a complete safetensors file"):
        load(at(tmp_path))


@pytest.mark.slow
def test_weights_that_lack_more_than_a_head_raise(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    hub.write_minilm(tmp_path)
    weights = tmp_path / "model.safetensors"
    kept = {k: v for k, v in load_file(weights).items() if "encoder.layer.1.attention" not in k}
    save_file(kept, weights, metadata={"format": "pt"})
    # Weight and bias of query, key, value, dense and norm.
    with pytest.raises(ModelError, match="lacks 10 weights of the bert"):
        load(at(tmp_path))


@pytest.mark.slow
def test_half_precision_and_old_parameter_names_are_loaded_as_fp32(
    tmp_path: Path,
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    hub.write_minilm(tmp_path)
    weights = tmp_path / "model.safetensors"
    half = {k: v.half() for k, v in load_file(weights).items()}
    save_file({k: v.float() for k, v in half.items()}, weights, metadata={"format": "pt"})
    expected = load(at(tmp_path)).score(QUERIES, CANDIDATES)
    old = {
        k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v
        for k, v in half.items()
    }
    save_file(old, weights, metadata={"format": "pt"})
    encoder = load(at(tmp_path))
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    # The last bit of a product depends on the memory alignment of its weights, which differs
    # because the names have other lengths in the file.
    np.testing.assert_allclose(encoder.score(QUERIES, CANDIDATES), expected, rtol=1e-6)


@pytest.mark.slow
def test_a_tokenizer_of_another_model_raises(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    shutil.copy(resolve(WHEEL).folder / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(
        ModelError, match="the tokenizer has 30522 tokens, and the model embeds 141"
    ):
        load(at(tmp_path))


@pytest.mark.slow
def test_a_configuration_of_another_model_raises(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(ModelError, match="does not load as a cross-encoder"):
        load(at(tmp_path))


@pytest.mark.slow
def test_modules_json_is_not_used(tmp_path: Path) -> None:
    """modules.json can name any class; only the transformer is loaded."""
    hub.write_minilm(tmp_path)
    expected = load(at(tmp_path)).score(QUERIES, CANDIDATES)
    (tmp_path / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}])
    )
    np.testing.assert_array_equal(load(at(tmp_path)).score(QUERIES, CANDIDATES), expected)


@pytest.mark.slow
def test_random_weights_depend_only_on_the_seed(tiny: Encoder) -> None:
    assert not tiny.new_head
    scores = tiny.score(QUERIES, CANDIDATES)
    np.testing.assert_array_equal(load(TINY).score(QUERIES, CANDIDATES), scores)
    other = load(dataclasses.replace(TINY, seed=1)).score(QUERIES, CANDIDATES)
    assert np.abs(other - scores).max() > 0.1


@pytest.mark.slow
def test_the_vocabulary_of_random_weights_is_characters(tiny: Encoder) -> None:
    tokenizer = tiny.model.tokenizer
    n_special, n_characters, n_inside_words = 5, 26 + 10 + 32, 26 + 10
    assert len(tokenizer) == n_special + n_characters + n_inside_words
    assert tokenizer.tokenize("Emma 2!") == ["e", "##m", "##m", "##a", "2", "!"]


@pytest.mark.slow
def test_loading_does_not_change_global_random_states() -> None:
    import torch

    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    load(TINY)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


@pytest.mark.slow
def test_model_dropout_overrides_the_checkpoints(repositories) -> None:
    import torch

    def rates(dropout: float | None) -> set[float]:
        modules = load(at(repositories[hub.pinned("bge")], dropout=dropout)).model.modules()
        return {m.p for m in modules if isinstance(m, torch.nn.Dropout)}

    assert rates(None) == {0.1}
    assert rates(0.0) == {0.0}
    assert rates(0.3) == {0.3}


@pytest.mark.slow
def test_cuda_without_a_gpu_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device("auto") == "cpu"
    with pytest.raises(ModelError, match=r"trainer\.device=cuda"):
        device("cuda")


@pytest.mark.slow
def test_a_bi_encoder_gets_a_new_head_without_a_load_report(
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without propagation caplog would not record messages of transformers.
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    assert load(WHEEL).new_head
    assert caplog.text == ""
    assert capsys.readouterr().err == ""  # no progress bar either


@pytest.mark.slow
def test_a_new_head_depends_on_the_seed_and_the_body_does_not() -> None:
    first, second = (load(dataclasses.replace(WHEEL, seed=seed)) for seed in (0, 1))
    head = [e.model.model.classifier.weight.detach().numpy() for e in (first, load(WHEEL), second)]
    np.testing.assert_array_equal(head[0], head[1])
    assert np.abs(head[0] - head[2]).max() > 0.01
    body = [
        e.model.model.bert.encoder.layer[0].output.dense.weight.detach().numpy()
        for e in (first, second)
    ]
    np.testing.assert_array_equal(*body)
