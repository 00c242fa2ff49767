"""ExportedModel variants: what they score, when they are not written, and what is refused when they are loaded."""

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

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.eval.agreement import kendall
from reranker.model import Encoder, ExportedModel, load, load_exported
from reranker.model.openvino_export import (
    Agreement,
    Scorer,
    _atomic_folder,
    _check,
    _save_tokenizer,
    export,
)
from reranker.model.openvino_scorer import STEP, TOKENS_AT_ONCE, batches, folder_name
from reranker.serving.bundle import write_bundle
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


def passing(exact: Scorer, other: Scorer) -> Agreement:
    return GOOD


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    if not all(importlib.util.find_spec(name) for name in ("openvino", "nncf")):
        pytest.skip("the extra is not installed: pip install -e '.[export]'")
    return load(ModelConfig(name="tiny", source="random", max_length=64))


@pytest.fixture(scope="module")
def bundle(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with both variants beside its weights."""
    folder = tmp_path_factory.mktemp("export") / "bundle"
    model_cfg = ModelConfig(name="tiny", max_length=64)
    write_bundle(folder, encoder, corpus_of(), model_cfg=model_cfg)
    for variant in ("int8", "bf16"):  # forced: a CPU without bf16 could not measure it
        export(settings_of(folder / "weights"), variant, PAIRS[:16], passing, force=True)
    return folder


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copied")


@pytest.fixture(scope="module")
def int8(bundle: Path) -> ExportedModel:
    return load_exported(bundle / "weights", "int8")


# --- what they score -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_bf16_scores_as_the_weights_but_for_its_rounding(bundle: Path, encoder: Encoder) -> None:
    variant = load_exported(bundle / "weights", "bf16")
    exact = encoder.score(QUERIES, CANDIDATES)
    rounding = {"f32": 1e-5, "bf16": 2**-8 * 4 * float(np.abs(exact).max())}[variant.computes_in]
    assert np.abs(variant.score(QUERIES, CANDIDATES) - exact).max() < rounding


@pytest.mark.slow
def test_an_xlm_roberta_scores_as_its_weights_beside_longer_and_shorter_pairs(
    encoder: Encoder, tmp_path: Path
) -> None:
    """It counts positions from after the padding's id, takes no token types, and has a head of two layers."""
    hub.write_bge(tmp_path)
    export(settings_of(tmp_path), "bf16", [], passing, force=True)
    variant = load_exported(tmp_path, "bf16")
    exact = load(settings_of(tmp_path)).score(QUERIES[:12], CANDIDATES[:12])
    assert exact.std() > 0.01  # so that 1e-5 says something
    rounding = {"f32": 1e-5, "bf16": 2**-8 * 4 * float(np.abs(exact).max())}[variant.computes_in]
    assert np.abs(variant.score(QUERIES[:12], CANDIDATES[:12]) - exact).max() < rounding


@pytest.mark.slow
def test_int8_ranks_nearly_as_the_weights(int8: ExportedModel, encoder: Encoder) -> None:
    one_list = np.zeros(len(QUERIES))
    exact, other = (scorer(QUERIES, CANDIDATES) for scorer in (encoder.score, int8.score))
    assert kendall(one_list, exact, other)[0] > 0.8
    assert np.abs(exact - other).max() > 1e-4  # it is rounded


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["int8", "bf16"])
def test_neither_order_nor_batch_changes_a_score(bundle: Path, variant: str) -> None:
    score = load_exported(bundle / "weights", variant).score
    together = score(QUERIES, CANDIDATES)
    shuffled = np.random.default_rng(0).permutation(len(QUERIES))
    again = score([QUERIES[i] for i in shuffled], [CANDIDATES[i] for i in shuffled])
    alone = np.array([score([q], [c])[0] for q, c in PAIRS[:12]])
    assert np.abs(again - together[shuffled]).max() < 1e-6
    assert np.abs(alone - together[:12]).max() < 1e-6


@pytest.mark.slow
def test_a_sigmoid_is_the_logistic_function_of_the_logit(int8: ExportedModel) -> None:
    manifest = dataclasses.replace(int8.manifest, activation="sigmoid")
    bounded = ExportedModel(int8._model, int8._tokenizer, manifest).score(
        QUERIES[:4], CANDIDATES[:4]
    )
    assert bounded == pytest.approx(
        1 / (1 + np.exp(-int8.score(QUERIES[:4], CANDIDATES[:4]))), abs=1e-6
    )


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(query=TEXT, candidate=TEXT)
def test_a_pair_has_the_encoders_own_tokens_also_when_cut(
    encoder: Encoder, int8: ExportedModel, query: str, candidate: str
) -> None:
    expected = encoder.model.tokenizer([query], [candidate], truncation="longest_first")
    found = int8._tokenizer.encode(query, candidate)
    assert ([found.ids], [found.type_ids]) == (expected["input_ids"], expected["token_type_ids"])


@pytest.mark.slow
def test_texts_are_cut_at_the_side_that_the_weights_tokenizer_cuts(tmp_path: Path) -> None:
    left = load(ModelConfig(name="tiny", source="random", max_length=64))
    left.model.tokenizer.truncation_side = "left"
    _save_tokenizer(left, tmp_path / "tokenizer.json")
    found = Tokenizer.from_file(str(tmp_path / "tokenizer.json")).encode("ab" * 40, "12" * 40)
    [expected] = left.model.tokenizer(["ab" * 40], ["12" * 40], truncation="longest_first")[
        "input_ids"
    ]
    assert found.ids == expected


@pytest.mark.slow
def test_threads_score_at_once(int8: ExportedModel) -> None:
    wanted = int8.score(QUERIES, CANDIDATES)
    with ThreadPoolExecutor(4) as threads:
        for found in threads.map(lambda _: int8.score(QUERIES, CANDIDATES), range(8)):
            assert np.abs(found - wanted).max() < 1e-6


@given(lengths=st.lists(st.integers(3, 512), max_size=200))
def test_every_pair_is_in_one_batch_and_no_batch_is_above_its_tokens(lengths: list[int]) -> None:
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
def test_lengths_that_differ_are_refused(int8: ExportedModel) -> None:
    with pytest.raises(ValueError, match="2 queries and 1 candidates"):
        int8.score(["a", "b"], ["c"])


# --- when they are written -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ndcg_10", "passes"), [(0.504, True), (0.496, True), (0.506, False), (0.494, False)]
)
def test_the_gate_is_005_of_ndcg_and_names_both_figures(
    int8: ExportedModel, ndcg_10: float, passes: bool
) -> None:
    agreement = dataclasses.replace(GOOD, ndcg_10=ndcg_10)
    if passes:
        _check(int8, agreement)
    else:
        with pytest.raises(
            ModelError, match=rf"NDCG@10 {ndcg_10:.4f} on 7 dev lists, fp32 has 0.5000"
        ):
            _check(int8, agreement)


@pytest.mark.slow
def test_lists_without_a_figure_do_not_pass(int8: ExportedModel) -> None:
    with pytest.raises(ModelError, match="NDCG@10 nan"):
        _check(int8, dataclasses.replace(GOOD, ndcg_10=float("nan")))


@pytest.mark.slow
def test_a_variant_that_fails_leaves_the_folder_as_it_was(copied: Path) -> None:
    weights = copied / "weights"
    before = {f: f.read_bytes() for f in weights.rglob("*") if f.is_file()}
    with pytest.raises(ModelError, match=r"does not compute in bf16|NDCG@10 0\.1000"):
        export(
            settings_of(weights), "bf16", [], lambda a, b: dataclasses.replace(GOOD, ndcg_10=0.1)
        )
    assert {f: f.read_bytes() for f in weights.rglob("*") if f.is_file()} == before


@pytest.mark.slow
def test_killed_between_the_two_variants_the_earlier_one_is_found(
    copied: Path, int8: ExportedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, move = copied / "weights", os.replace
    place = weights / folder_name("int8")

    def killed(source: Path, target: Path) -> None:
        if target == place:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt), _atomic_folder(place):
        pass
    assert not place.exists()
    assert load_exported(weights, "int8").manifest == int8.manifest
    monkeypatch.undo()
    with _atomic_folder(place) as new:
        (new / "later").touch()
    assert [f.name for f in place.iterdir()] == ["later"]
    assert [f.name for f in weights.glob(".*")] == []


@pytest.mark.slow
def test_the_manifest_says_what_the_variant_was_made_of(
    bundle: Path, int8: ExportedModel, encoder: Encoder
) -> None:
    found = json.loads((bundle / "weights/openvino_int8/manifest.json").read_text())
    pinned = json.loads((bundle / "bundle.json").read_text())["files"]["weights/model.safetensors"]
    assert (found["weights"], found["computed_in"]) == (pinned, "int8")
    assert found["agreement"] == dataclasses.asdict(GOOD)
    assert len(found["calibration"]) == 64
    assert found == dataclasses.asdict(int8.manifest)


@pytest.mark.slow
def test_int8_without_calibration_pairs_is_refused(bundle: Path) -> None:
    with pytest.raises(ModelError, match="calibration pairs, got none"):
        export(settings_of(bundle / "weights"), "int8", [], passing)


@pytest.mark.slow
def test_weights_of_another_attention_are_refused(copied: Path) -> None:
    path = copied / "weights" / "config.json"
    path.write_text(
        json.dumps(json.loads(path.read_text()) | {"reranker_attention": "shared_context"})
    )
    with pytest.raises(ModelError, match="attention=shared_context; only stock attention"):
        export(settings_of(copied / "weights"), "int8", PAIRS, passing)


def test_an_unknown_variant_is_refused_with_those_there_are() -> None:
    with pytest.raises(ModelError, match="'int4' is unknown; choose one of int8, bf16"):
        folder_name("int4")


# --- when they are loaded ------------------------------------------------------------------------------------------


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b" ")


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "other weights": (
        lambda w: _append(w / "model.safetensors"),
        "was made from weights of SHA-256",
    ),
    "a changed graph": (
        lambda w: _append(w / "openvino_int8/model.xml"),
        r"model\.xml: missing, or its SHA-256",
    ),
    "a missing file": (lambda w: (w / "openvino_int8/model.bin").unlink(), r"model\.bin: missing"),
    "no manifest": (
        lambda w: (w / "openvino_int8/manifest.json").unlink(),
        "not there, or is incomplete. Export it",
    ),
    "half a manifest": (
        lambda w: (w / "openvino_int8/manifest.json").write_text("{"),
        "not the manifest",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_variant_that_is_not_whole_or_not_of_these_weights_is_refused(
    copied: Path, damage: str
) -> None:
    change, message = DAMAGE[damage]
    change(copied / "weights")
    with pytest.raises(ModelError, match=message):
        load_exported(copied / "weights", "int8")


def test_without_the_extra_the_message_says_how_to_install_it(
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

    assert (
        sys.modules["openvino_telemetry"] is None
    )  # what nncf and the converter would send them by
    assert convert_impl.tm.__name__ == "openvino.tools.ovc.telemetry_stub"


# --- served by name ------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("variant", [None, "int8", "bf16"])
def test_a_bundle_ranks_by_the_variant_that_is_named(
    bundle: Path, encoder: Encoder, variant: str | None
) -> None:
    score = encoder.score if variant is None else load_exported(bundle / "weights", variant).score
    ranked = Reranker.from_folder(bundle, variant=variant).rerank(
        "Likes: Dune.", BOOKS["book_id"].tolist()
    )
    expected = score(["Likes: Dune."] * len(BOOKS), BOOKS["book_text"].tolist())
    assert [r.score for r in ranked] == pytest.approx(
        sorted(expected.tolist(), reverse=True), abs=1e-5
    )


@pytest.mark.slow
def test_a_variant_scores_on_the_cpu_alone(bundle: Path) -> None:
    with pytest.raises(ModelError, match=r"variant=int8 scores on the CPU, but device='cuda'"):
        Reranker.from_folder(bundle, device="cuda", variant="int8")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["weights/openvino_int8/extension.so", "weights/openvino_int8/more.json", "model.bin"]
)
def test_a_variants_folder_holds_its_own_files_and_no_others(copied: Path, name: str) -> None:
    (copied / name).write_bytes(b"{}")
    with pytest.raises(ModelError, match=r"does not belong here|holds only"):
        Reranker.from_folder(copied)
