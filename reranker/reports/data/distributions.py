"""Compute distributions of integers, the effect of truncation, and the AUC of counts."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reranker.data.draws import FloatArray, IntArray

MAX_BINS = 40
QUANTILES = {"min": 0, "p5": 5, "p50": 50, "p95": 95, "max": 100}


@dataclass(frozen=True)
class Distribution:
    """The distribution of values.

    Attributes:
        mean: Their mean.
        percentiles: (101,) the 0th to the 100th, interpolated linearly.
        edges: (n_bins + 1,) edges of a histogram that ends at the 99th percentile; a bin includes
            its left edge.
        counts: (n_bins,) number of values in each bin.
    """

    mean: float
    percentiles: FloatArray
    edges: IntArray
    counts: IntArray

    def stats(self) -> dict[str, float]:
        """Return `mean`, `min`, `p5`, `p50`, `p95`, `max`."""
        quantiles = {name: float(self.percentiles[q]) for name, q in QUANTILES.items()}
        return {"mean": self.mean} | quantiles


def distribution(values: IntArray) -> Distribution:
    """Return mean, percentiles, and a histogram of at most 40 bins of equal width."""
    ordered = np.sort(values)
    percentiles = np.percentile(ordered, np.arange(101))
    low, high = int(ordered[0]), math.ceil(percentiles[99])
    width = math.ceil((high - low + 1) / MAX_BINS)
    n_bins = math.ceil((high - low + 1) / width)
    edges = low + width * np.arange(n_bins + 1)
    counts = np.diff(np.searchsorted(ordered, edges))
    return Distribution(float(ordered.mean()), percentiles, edges, counts)


@dataclass(frozen=True)
class Truncation:
    """How many of the measured pairs lose tokens.

    Attributes:
        max_tokens: Tokens that the model takes of context and book together.
        n_pairs: Measured pairs: all pairs of some users, who are chosen by a hash.
        n_users: Number of these users.
        pair_fraction: Fraction of the pairs that are truncated.
        book_fraction, context_fraction: Fractions of the pairs whose book text and whose context
            is truncated.
    """

    max_tokens: int
    n_pairs: int
    n_users: int
    pair_fraction: float
    book_fraction: float
    context_fraction: float


def truncation(
    lengths: tuple[IntArray, IntArray],
    kept: tuple[IntArray, IntArray],
    *,
    max_tokens: int,
    n_users: int,
) -> Truncation:
    """Return how many pairs lose tokens.

    Args:
        lengths: (n_pairs,) tokens of contexts and of book texts.
        kept: (n_pairs,) those that truncation keeps.
        max_tokens: Tokens that the model takes of context and book together.
        n_users: Users of the pairs.
    """
    context, book = (after < before for before, after in zip(lengths, kept, strict=True))
    fractions = [float(cut.mean()) for cut in (context | book, book, context)]
    return Truncation(max_tokens, len(context), n_users, *fractions)


def auc(positive: IntArray, negative: IntArray) -> float:
    """Return the probability that a positive has a higher value than a negative; ties count half.

    Values are small non-negative integers, so counting them replaces the sort of all pairs.
    """
    n_values = int(max(positive.max(), negative.max())) + 1
    above, below = (np.bincount(values, minlength=n_values) for values in (positive, negative))
    won = above @ (np.cumsum(below) - below / 2)
    return float(won / len(positive) / len(negative))
