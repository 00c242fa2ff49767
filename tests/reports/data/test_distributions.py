"""Spreads, truncation and AUC by arithmetic, by the tokenizer, by evaluation's own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from reranker.eval import metrics as eval_metrics
from reranker.reports.data.distributions import (
    N_BINS,
    Truncation,
    auc,
    kept_tokens,
    spread,
    truncation,
)


def test_a_spread_has_the_mean_the_percentiles_and_every_value_up_to_the_99th() -> None:
    values = spread(np.r_[np.arange(101), 1_000_000])
    assert values.mean == pytest.approx((5050 + 1_000_000) / 102)
    assert values.stats()["min"] == 0
    assert values.stats()["p50"] == 50.5
    assert values.stats()["max"] == 1_000_000
    assert values.edges[0] == 0 and len(values.counts) <= N_BINS
    assert values.counts.sum() == 101 and values.edges[-1] > 100


def test_a_spread_of_one_value_is_one_bar() -> None:
    values = spread(np.array([3, 3, 3]))
    assert (values.edges.tolist(), values.counts.tolist(), values.mean) == ([3, 4], [3], 3.0)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_kept_tokens_are_those_that_a_fast_tokenizer_keeps(
    n_context: int, n_book: int, max_tokens: int
) -> None:
    """Oracle: the tokenizer itself, on texts of so many words."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    ids = tokenizer.encode(" ".join("a" * n_context), " ".join("b" * n_book)).ids
    context, book = kept_tokens(np.array([n_context]), np.array([n_book]), max_tokens)
    assert (int(context[0]), int(book[0])) == (ids.count(0), ids.count(1))


def test_truncation_counts_the_pairs_that_lose_something_and_what_they_lose() -> None:
    context, book = np.array([3, 2, 9, 6]), np.array([7, 9, 1, 6])
    found = truncation(context, book, 9, user=np.array([5, 5, 6, 6]))
    # 3 + 7: the book gives one. 2 + 9: the book gives two. 9 + 1: the context gives one. 6 + 6: 4 and 5 are left.
    assert found == Truncation(9, 4, 2, pair_fraction=1.0, book_fraction=0.75, context_fraction=0.5)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_the_auc_by_counting_is_the_auc_of_evaluation(
    positive: list[int], negative: list[int]
) -> None:
    label = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    expected = eval_metrics.auc(label, np.array(positive + negative))
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(expected, abs=1e-12)
