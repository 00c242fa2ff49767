"""Exported variants: their scores, when they are not written, and errors when they are loaded."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from reranker.config import CHOICES, ModelConfig
from reranker.errors import ModelError
from reranker.eval.agreement import kendall
from reranker.model import Encoder, ExportedModel, activations, load, load_exported
from reranker.model.openvino_export import (
    Agreement,
    Scorer,
    _atomic_folder,
    _check,
    _save_tokenizer,
    export,
)
from reranker.model.openvino_scorer import STEP, TOKENS_AT_ONCE, batches, folder_name
from reranker.serving.bundle import read_bundle, write_bundle
from reranker.serving.reranker import Reranker
from tests.helpers import hub
from tests.helpers.bundles import BOOKS, corpus_of

QUERIES = [
    "Liked: Dune. Genres: science fiction.",
    "Liked: Emma.",
    "Liked: Ubik, Solaris.",
    "?",
] * 20
CANDIDATES = [f"Book {i}: " + "a story of the sea. " * (i % 9) for i in range(80)]
PAIRS = list(zip(QUERIES, CANDIDATES, strict=True))
GOOD = Agreement(ndcg_10_fp32=0.5, ndcg_10=0.504, kendall=0.9, kendall_low=0.8, n_lists=7)
TEXT = st.text(alphabet="ab 1.,é", max_size=90)


def settings_of(folder: Path, **changes: Any) -> ModelConfig:
    return ModelConfig(name="tiny", source="path", path=str(folder), max_length=64, **changes)


def agrees(exact: Scorer, other: Scorer) -> Agreement:
    """Return an agreement within the tolerance, without scoring."""
    return GOOD


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    if not all(importlib.util.find_spec(name) for name in ("openvino", "nncf")):
        pytest.skip("the extra is not installed: pip install -e '.[export]'")
    return load(ModelConfig(name="tiny", source="random", max_length=64))


@pytest.fixture(scope="module")
def bundle(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle with both variants."""
    folder = tmp_path_factory.mktemp("export") / "bundle"
    model_cfg = ModelConfig(name="tiny", max_length=64)
    write_bundle(folder, encoder, corpus_of(), model_cfg=model_cfg)
    for variant in ("int8", "bf16"):  # a CPU without bf16 exports bf16 only with force
        export(settings_of(folder / "weights"), variant, PAIRS[:16], agrees, force=True)
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copied")


@pytest.fixture(scope="module")
def int8(bundle: Path) -> ExportedModel:
    return load_exported(bundle / "weights", "int8")


# Scores


@pytest.mark.slow
def test_bf16_scores_equal_those_of_the_weights_within_rounding(
    bundle: Path, encoder: Encoder
) -> None:
    variant = load_exported(bundle / "weights", "bf16")
    exact = encoder.score(QUERIES, CANDIDATES)
    difference = np.abs(variant.score(QUERIES, CANDIDATES) - exact).max()
    assert difference < rounding(variant, exact)


def rounding(variant: ExportedModel, exact: np.ndarray) -> float:
    """Return the largest difference that the variant's precision explains."""
    return {"f32": 1e-5, "bf16": 2**-8 * 4 * float(np.abs(exact).max())}[variant.computes_in]


@pytest.mark.slow
def test_an_exported_xlm_roberta_scores_as_its_weights_in_batches_of_mixed_lengths(
    encoder: Encoder, tmp_path: Path
) -> None:
    """Its positions begin after the padding id, it has no token types and a head of two layers."""
    hub.write_bge(tmp_path)
    export(settings_of(tmp_path), "bf16", [], agrees, force=True)
    variant = load_exported(tmp_path, "bf16")
    exact = load(settings_of(tmp_path)).score(QUERIES[:12], CANDIDATES[:12])
    assert exact.std() > 0.01  # much more than the tolerance of 1e-5
    difference = np.abs(variant.score(QUERIES[:12], CANDIDATES[:12]) - exact).max()
    assert difference < rounding(variant, exact)


@pytest.mark.slow
def test_int8_ranks_almost_as_the_weights(int8: ExportedModel, encoder: Encoder) -> None:
    one_list = np.zeros(len(QUERIES))
    exact, other = (scorer(QUERIES, CANDIDATES) for scorer in (encoder.score, int8.score))
    assert kendall(one_list, exact, other)[0] > 0.8
    assert np.abs(exact - other).max() > 1e-4  # it is rounded


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int8", "bf16"])
def test_scores_do_not_depend_on_order_or_batch(bundle: Path, variant: str) -> None:
    score = load_exported(bundle / "weights", variant).score
    together = score(QUERIES, CANDIDATES)
    shuffled = np.random.default_rng(0).permutation(len(QUERIES))
    again = score([QUERIES[i] for i in shuffled], [CANDIDATES[i] for i in shuffled])
    one_by_one = np.array([score([q], [c])[0] for q, c in PAIRS[:12]])
    assert np.abs(again - together[shuffled]).max() < 1e-6
    assert np.abs(one_by_one - together[:12]).max() < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("activation", CHOICES["model.activation"])
def test_a_variant_applies_the_activation_to_its_logits(
    int8: ExportedModel, activation: str
) -> None:
    manifest = dataclasses.replace(int8.manifest, activation=activation)
    activated = ExportedModel(int8._model, int8._tokenizer, manifest)
    logits = int8.score(QUERIES[:4], CANDIDATES[:4])
    found = activated.score(QUERIES[:4], CANDIDATES[:4])
    np.testing.assert_array_equal(found, activations.apply(activation, logits))


@pytest.mark.slow
def test_an_exported_variant_and_a_served_bundle_keep_the_activation(tmp_path: Path) -> None:
    cfg = ModelConfig(name="tiny", source="random", max_length=64, activation="silu")
    silu = load(cfg)
    write_bundle(tmp_path / "bundle", silu, corpus_of(), model_cfg=cfg)
    weights = tmp_path / "bundle" / "weights"
    own = settings_of(weights, activation="silu")
    export(own, "bf16", PAIRS[:16], agrees, force=True)
    variant = load_exported(weights, "bf16")
    assert variant.manifest.activation == "silu"
    exact = silu.score(QUERIES, CANDIDATES)
    assert np.abs(variant.score(QUERIES, CANDIDATES) - exact).max() < rounding(variant, exact)
    served = read_bundle(tmp_path / "bundle", device="cpu", variant=None)
    np.testing.assert_array_equal(served.score(QUERIES, CANDIDATES), exact)


@pytest.mark.slow
def test_a_variant_of_format_1_is_loaded_and_one_of_a_later_format_is_not(copied: Path) -> None:
    path = copied / "weights" / "openvino_int8" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"format": 1}))
    assert load_exported(copied / "weights", "int8").manifest.format == 1
    path.write_text(json.dumps(manifest | {"format": 3}))
    with pytest.raises(ModelError, match=r"format 3, expected 1 to 2\. Export the variant again"):
        load_exported(copied / "weights", "int8")


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(query=TEXT, candidate=TEXT)
def test_tokens_equal_those_of_the_encoder_also_for_truncated_pairs(
    encoder: Encoder, int8: ExportedModel, query: str, candidate: str
) -> None:
    expected = encoder.model.tokenizer([query], [candidate], truncation="longest_first")
    found = int8._tokenizer.encode(query, candidate)
    assert ([found.ids], [found.type_ids]) == (expected["input_ids"], expected["token_type_ids"])


@pytest.mark.slow
def test_texts_are_truncated_on_the_side_of_the_original_tokenizer(tmp_path: Path) -> None:
    left = load(ModelConfig(name="tiny", source="random", max_length=64))
    left.model.tokenizer.truncation_side = "left"
    _save_tokenizer(left, tmp_path / "tokenizer.json")
    found = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("ab" * 40, "12" * 40)
    expected = left.model.tokenizer(["ab" * 40], ["12" * 40], truncation="longest_first")
    assert [found.ids] == expected["input_ids"]


@pytest.mark.slow
def test_threads_can_score_at_the_same_time(int8: ExportedModel) -> None:
    expected = int8.score(QUERIES, CANDIDATES)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: int8.score(QUERIES, CANDIDATES), range(8)):
            assert np.abs(found - expected).max() < 1e-6


@given(lengths=st.lists(st.integers(3, 512), max_size=200))
def test_every_pair_is_in_one_batch_and_no_batch_exceeds_the_token_limit(
    lengths: list[int],
) -> None:
    found = list(batches(np.array(lengths, dtype=np.int64)))
    assert sorted(row for rows in found for row in rows.tolist()) == list(range(len(lengths)))
    for rows in found:
        width = -(-max(lengths[row] for row in rows) // STEP) * STEP
        assert len(rows) * width <= TOKENS_AT_ONCE


def test_kendall_counts_pairs_list_by_list() -> None:
    user = np.array([1, 1, 1, 0, 0, 2, 2])
    first, second = np.array([1.0, 2, 3, 5, 6, 1, 2]), np.array([1.0, 3, 2, 9, 8, 4, 4])
    assert kendall(user, first, second).tolist() == pytest.approx([-1, 1 / 3, 0])


@pytest.mark.slow
def test_different_numbers_of_queries_and_candidates_are_an_error(int8: ExportedModel) -> None:
    with pytest.raises(ValueError, match="2 queries and 1 candidates"):
        int8.score(["a", "b"], ["c"])


# Export


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ndcg_10", "passes"), [(0.504, True), (0.496, True), (0.506, False), (0.494, False)]
)
def test_a_variant_passes_within_005_of_ndcg_and_the_error_names_both_values(
    int8: ExportedModel, ndcg_10: float, passes: bool
) -> None:
    agreement = dataclasses.replace(GOOD, ndcg_10=ndcg_10)
    if passes:
        _check(int8, agreement)
    else:
        message = rf"NDCG@10 {ndcg_10:.4f} on 7 dev lists, fp32 has 0.5000"
        with pytest.raises(ModelError, match=message):
            _check(int8, agreement)


@pytest.mark.slow
def test_an_ndcg_that_is_nan_does_not_pass(int8: ExportedModel) -> None:
    with pytest.raises(ModelError, match="NDCG@10 nan"):
        _check(int8, dataclasses.replace(GOOD, ndcg_10=float("nan")))


@pytest.mark.slow
def test_a_failed_export_does_not_change_the_folder(copied: Path) -> None:
    def ranks_badly(exact: Scorer, other: Scorer) -> Agreement:
        return dataclasses.replace(GOOD, ndcg_10=0.1)

    weights = copied / "weights"
    before = {f: f.read_bytes() for f in weights.rglob("*") if f.is_file()}
    with pytest.raises(ModelError, match=r"does not compute in bf16|NDCG@10 0\.1000"):
        export(settings_of(weights), "bf16", [], ranks_badly)
    assert {f: f.read_bytes() for f in weights.rglob("*") if f.is_file()} == before


@pytest.mark.slow
def test_an_export_killed_during_the_replacement_keeps_the_earlier_variant(
    copied: Path, int8: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, replace = copied / "weights", os.replace
    folder = weights / folder_name("int8")

    def killed(source: Path, target: Path) -> None:
        if target == folder:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), _atomic_folder(folder):
        pass
    assert not folder.exists()
    assert load_exported(weights, "int8").manifest == int8.manifest
    monkeypatch.undo()
    with _atomic_folder(folder) as new:
        (new / "later").touch()
    assert [f.name for f in folder.iterdir()] == ["later"]
    assert [f.name for f in weights.glob(".*")] == []


@pytest.mark.slow
def test_the_manifest_names_weights_calibration_and_agreement(
    bundle: Path, int8: ExportedModel, encoder: Encoder
) -> None:
    found = json.loads((bundle / "weights/openvino_int8/manifest.json").read_text())
    pinned = json.loads((bundle / "bundle.json").read_text())["files"]["weights/model.safetensors"]
    assert (found["weights"], found["computed_in"]) == (pinned, "int8")
    assert found["agreement"] == dataclasses.asdict(GOOD)
    assert len(found["calibration"]) == 64
    assert found == dataclasses.asdict(int8.manifest)


@pytest.mark.slow
def test_int8_without_calibration_pairs_is_an_error(bundle: Path) -> None:
    with pytest.raises(ModelError, match="calibration pairs, got none"):
        export(settings_of(bundle / "weights"), "int8", [], agrees)


@pytest.mark.slow
def test_weights_with_another_attention_are_an_error(copied: Path) -> None:
    path = copied / "weights" / "config.json"
    config = json.loads(path.read_text()) | {"reranker_attention": "shared_context"}
    path.write_text(json.dumps(config))
    with pytest.raises(ModelError, match="attention=shared_context; only stock attention"):
        export(settings_of(copied / "weights"), "int8", PAIRS, agrees)


def test_an_unknown_variant_is_an_error_that_names_the_choices() -> None:
    with pytest.raises(ModelError, match="'int4' is unknown; choose one of int8, bf16"):
        folder_name("int4")


# Loading


def _append_byte(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "other weights": (
        lambda w: _append_byte(w / "model.safetensors"),
        "was made from weights of SHA-256",
    ),
    "a changed graph": (
        lambda w: _append_byte(w / "openvino_int8/model.xml"),
        r"model\.xml: missing, or its SHA-256",
    ),
    "a missing file": (lambda w: (w / "openvino_int8/model.bin").unlink(), r"model\.bin: missing"),
    "no manifest": (
        lambda w: (w / "openvino_int8/manifest.json").unlink(),
        "not there, or is incomplete. Export it",
    ),
    "an incomplete manifest": (
        lambda w: (w / "openvino_int8/manifest.json").write_text("{"),
        "not the manifest",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_an_incomplete_variant_or_one_of_other_weights_is_an_error(
    copied: Path, damage: str
) -> None:
    change, message = DAMAGE[damage]
    change(copied / "weights")
    with pytest.raises(ModelError, match=message):
        load_exported(copied / "weights", "int8")


def test_without_the_extra_the_error_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match=r"openvino is not installed.*pip install 'reranker\[export\]'"
    ):
        load_exported(tmp_path, "int8")


@pytest.mark.slow
def test_the_runtime_sends_no_usage_statistics(int8: ExportedModel) -> None:
    from openvino.tools.ovc import convert_impl

    # nncf and the converter would send them by this module.
    assert sys.modules["openvino_telemetry"] is None
    assert convert_impl.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


# Bundles with variants


@pytest.mark.slow
@pytest.mark.parametrize("variant", [None, "int8", "bf16"])
def test_a_bundle_ranks_with_the_named_variant(
    bundle: Path, encoder: Encoder, variant: str | None
) -> None:
    score = encoder.score if variant is None else load_exported(bundle / "weights", variant).score
    reranker = Reranker.from_folder(bundle, variant=variant)
    ranked = reranker.rerank("Likes: Dune.", BOOKS["book_id"].tolist())
    scores = score(["Likes: Dune."] * len(BOOKS), BOOKS["book_text"].tolist())
    expected = sorted(scores.tolist(), reverse=True)
    assert [r.score for r in ranked] == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_a_variant_scores_on_the_cpu_only(bundle: Path) -> None:
    with pytest.raises(ModelError, match=r"variant=int8 scores on the CPU, but device='cuda'"):
        Reranker.from_folder(bundle, device="cuda", variant="int8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["weights/openvino_int8/extension.so", "weights/openvino_int8/more.json", "model.bin"]
)
def test_an_unexpected_file_in_the_folder_of_a_variant_is_an_error(copied: Path, name: str) -> None:
    (copied / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=r"does not belong here|holds only"):
        Reranker.from_folder(copied)
