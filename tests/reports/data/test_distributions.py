"""Distributions and truncation equal hand computations; the AUC equals that of evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.eval import metrics as eval_metrics
from reranker.reports.data.distributions import (
    MAX_BINS,
    Truncation,
    auc,
    distribution,
    truncation,
)


def test_a_distribution_has_mean_percentiles_and_a_histogram_up_to_the_99th() -> None:
    values = distribution(np.r_[np.arange(101), 1_000_000])
    assert values.mean == pytest.approx((5050 + 1_000_000) / 102)
    assert values.stats()["min"] == 0
    assert values.stats()["p50"] == 50.5
    assert values.stats()["max"] == 1_000_000
    assert values.edges[0] == 0 and len(values.counts) <= MAX_BINS
    assert values.counts.sum() == 101 and values.edges[-1] > 100


def test_the_histogram_of_one_value_has_one_bin() -> None:
    values = distribution(np.array([3, 3, 3]))
    assert (values.edges.tolist(), values.counts.tolist(), values.mean) == ([3, 4], [3], 3.0)


def test_truncation_counts_the_pairs_that_lose_tokens_of_either_text() -> None:
    lengths = np.array([3, 2, 9, 6, 1]), np.array([7, 9, 1, 6, 1])
    kept = np.array([3, 2, 8, 4, 1]), np.array([6, 7, 1, 5, 1])
    found = truncation(lengths, kept, max_tokens=9, n_users=2)
    assert found == Truncation(9, 5, 2, pair_fraction=0.8, book_fraction=0.6, context_fraction=0.4)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_the_auc_by_counting_equals_that_of_evaluation(
    positive: list[int], negative: list[int]
) -> None:
    label = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    expected = eval_metrics.auc(label, np.array(positive + negative))
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(expected, abs=1e-12)
