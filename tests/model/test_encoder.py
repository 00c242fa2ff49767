"""Tests of the encoder's scores, their invariances, and the saved files."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import rich
from rich.console import Console

from reranker.config import CHOICES
from reranker.errors import ModelError
from reranker.model import Encoder, load
from reranker.model.bi_encoder import embed
from tests.helpers import hub
from tests.helpers.weights import CANDIDATES, QUERIES, TINY, at


@pytest.mark.slow
def test_scores_equal_those_of_the_model_run_pair_by_pair(tiny: Encoder) -> None:
    """Reference: transformers, one pair at a time, unpadded."""
    import torch

    def logit(query: str, candidate: str) -> float:
        tokens = tiny.model.tokenizer(
            query, candidate, truncation=True, max_length=64, return_tensors="pt"
        )
        with torch.no_grad():
            return float(tiny.model.model(**tokens).logits[0, 0])

    scores = tiny.score(QUERIES, CANDIDATES)
    assert scores.dtype == np.float32
    assert scores.std() > 0.1  # so that the tolerance of 1e-5 is small
    np.testing.assert_allclose(
        scores, [logit(*pair) for pair in zip(QUERIES, CANDIDATES, strict=True)], atol=1e-5
    )


@pytest.mark.slow
def test_a_score_is_independent_of_order_and_batch(
    tiny: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = tiny.score(QUERIES, CANDIDATES)
    order = np.random.default_rng(0).permutation(len(QUERIES))
    shuffled = tiny.score([QUERIES[i] for i in order], [CANDIDATES[i] for i in order])
    np.testing.assert_allclose(shuffled, scores[order], atol=1e-5)
    for budget in (1, 300, 10**6):  # one forward pass per pair; several; one
        monkeypatch.setattr("reranker.model.encoder.TOKENS_AT_ONCE", budget)
        np.testing.assert_allclose(tiny.score(QUERIES, CANDIDATES), scores, atol=1e-5)


@pytest.mark.slow
def test_scoring_in_training_mode_uses_no_dropout(tiny: Encoder) -> None:
    scores = tiny.score(QUERIES, CANDIDATES)
    tiny.model.train()
    np.testing.assert_array_equal(tiny.score(QUERIES, CANDIDATES), scores)


@pytest.mark.slow
@pytest.mark.parametrize("repository", ["minilm", "bge"])
def test_token_counts_of_a_pair_equal_the_tokenizers(
    repositories: dict[hub.Repository, Path], repository: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reference: the tokenizer on untruncated pairs. BERT adds 3 special tokens, XLM-RoBERTa 4."""
    encoder = load(at(repositories[hub.pinned(repository)], max_length=32), device="cpu")
    n_special = {"minilm": 3, "bge": 4}[repository]
    assert encoder.max_tokens == 32 - n_special
    encoder.score(QUERIES[:2], CANDIDATES[:2])  # scoring must not change later counts
    monkeypatch.setattr("reranker.model.tokens.TEXTS_AT_ONCE", 7)
    pairs = encoder.model.tokenizer(QUERIES, CANDIDATES, truncation=False, verbose=False)[
        "input_ids"
    ]
    counts = encoder.count_tokens(QUERIES) + encoder.count_tokens(CANDIDATES)
    assert counts.tolist() == [len(ids) - n_special for ids in pairs]
    assert max(counts) > encoder.max_tokens
    assert encoder.count_tokens([]).tolist() == []


@pytest.mark.slow
@pytest.mark.parametrize(("attention", "fraction"), [("full", 0.80), ("shared_context", 0.85)])
def test_truncates_is_true_exactly_for_pairs_that_lose_tokens(
    attention: str, fraction: float
) -> None:
    """Reference: the assembled pairs, and with full attention also the tokenizer's pairs."""
    encoder = load(dataclasses.replace(TINY, max_length=256, attention=attention))
    assert encoder.max_tokens == 253
    query, candidate = np.random.default_rng(0).integers(1, 400, size=(2, 2000))
    queries, candidates = ["a " * n for n in query], ["b " * n for n in candidate]

    pair = np.arange(len(query))
    sides = encoder.tokenise(queries), encoder.tokenise(candidates)
    batch = encoder.assemble(*sides, pair, pair)
    lengths, context = np.diff(batch.start), batch.context[batch.pair]
    n_kept = lengths[batch.pair] + np.where(context >= 0, lengths[context], 0)
    loses_tokens = n_kept < query + candidate + 3
    if attention == "full":
        pairs = encoder.model.tokenizer(queries, candidates, truncation="longest_first")
        assert n_kept.tolist() == [len(ids) for ids in pairs["input_ids"]]

    np.testing.assert_array_equal(encoder.truncates(query, candidate), loses_tokens)
    np.testing.assert_array_equal(np.sum(encoder.kept_tokens(query, candidate), axis=0), n_kept - 3)
    assert loses_tokens.mean() == pytest.approx(fraction, abs=0.02)


@pytest.mark.slow
def test_scores_are_fp32_under_autocast(tiny: Encoder) -> None:
    import torch

    scores = tiny.score(QUERIES, CANDIDATES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        np.testing.assert_array_equal(tiny.score(QUERIES, CANDIDATES), scores)


@pytest.mark.slow
@pytest.mark.parametrize("terminal", [True, False])
def test_a_progress_bar_changes_no_score_and_is_shown_only_in_a_terminal(
    tiny: Encoder,
    terminal: bool,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, force_interactive=terminal)
    monkeypatch.setattr(rich, "_console", console)
    scores, vectors = tiny.score(QUERIES, CANDIDATES), embed(CANDIDATES[:3])
    assert console.file.getvalue() == ""
    np.testing.assert_array_equal(tiny.score(QUERIES, CANDIDATES, progress="scoring"), scores)
    np.testing.assert_array_equal(embed(CANDIDATES[:3], progress="embedding"), vectors)
    written = console.file.getvalue()
    assert ("scoring" in written, "embedding" in written, written == "") == (
        terminal,
        terminal,
        not terminal,
    )
    assert capfd.readouterr().out == ""


@pytest.mark.slow
def test_no_pairs_give_no_scores_and_unequal_lengths_raise(tiny: Encoder) -> None:
    assert tiny.score([], []).shape == (0,)
    with pytest.raises(ValueError, match="2 queries and 1 candidates"):
        tiny.score(["a", "b"], ["c"])


@pytest.mark.slow
@pytest.mark.parametrize("activation", CHOICES["model.activation"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_scores_that_are_not_finite_raise(activation: str, value: float) -> None:
    """Also infinity, which a sigmoid would map to 1."""
    import torch

    broken = load(dataclasses.replace(TINY, activation=activation))
    with torch.no_grad():
        broken.model.model.classifier.bias.fill_(value)
    with pytest.raises(ModelError, match=r"3 of 3 scores are NaN or infinite \(first: pair 0\)"):
        broken.score(QUERIES[:3], CANDIDATES[:3])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bge"])
def test_a_saved_encoder_has_bitwise_equal_scores(name: str, repositories, tmp_path: Path) -> None:
    cfg = at(repositories[hub.pinned(name)], max_length=256)
    encoder = load(cfg)
    encoder.save(tmp_path / "saved")
    again = load(at(tmp_path / "saved", max_length=256))
    assert not again.new_head
    np.testing.assert_array_equal(
        again.score(QUERIES, CANDIDATES), encoder.score(QUERIES, CANDIDATES)
    )


@pytest.mark.slow
def test_saved_files_contain_no_pickle_card_text_or_path(tiny: Encoder, tmp_path: Path) -> None:
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
