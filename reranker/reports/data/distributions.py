"""Arithmetic of the data report: how whole numbers are spread, what truncation takes, how well a number ranks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from reranker.data.draws import FloatArray, IntArray

N_BINS = 40
QUANTILES = {"min": 0, "p5": 5, "p50": 50, "p95": 95, "max": 100}


@dataclass(frozen=True)
class Spread:
    """How values are spread.

    Attributes:
        mean: Their mean.
        percentiles: (101,) the 0th to the 100th, linear between values.
        edges: (n_bins + 1,) of the bins of a histogram; a bin holds its left edge. It ends at the 99th percentile.
        counts: (n_bins,) values in a bin.
    """

    mean: float
    percentiles: FloatArray
    edges: IntArray
    counts: IntArray

    def stats(self) -> dict[str, float]:
        """`mean`, `min`, `p5`, `p50`, `p95`, `max`."""
        return {"mean": self.mean} | {
            name: float(self.percentiles[q]) for name, q in QUANTILES.items()
        }


def spread(values: IntArray) -> Spread:
    """How whole numbers are spread: mean, percentiles, and a histogram of at most 40 bins of equal width."""
    ordered = np.sort(values)
    percentiles = np.percentile(ordered, np.arange(101))
    low, high = int(ordered[0]), math.ceil(percentiles[99])
    width = math.ceil((high - low + 1) / N_BINS)
    n_bins = math.ceil((high - low + 1) / width)
    edges = low + width * np.arange(n_bins + 1)
    counts = np.diff(np.searchsorted(ordered, edges))
    return Spread(float(ordered.mean()), percentiles, edges, counts)


@dataclass(frozen=True)
class Truncation:
    """What truncation takes from the measured pairs.

    Attributes:
        max_tokens: Tokens that context and book may have together.
        n_pairs: Pairs measured: all pairs of some users, chosen by hash.
        n_users: Those users.
        pair_fraction: Share of the pairs that are cut.
        book_fraction, context_fraction: Share of the pairs whose book text, whose context is cut.
    """

    max_tokens: int
    n_pairs: int
    n_users: int
    pair_fraction: float
    book_fraction: float
    context_fraction: float


def truncation(context: IntArray, book: IntArray, max_tokens: int, user: IntArray) -> Truncation:
    """What truncating the longest first takes from pairs of (n_pairs,) tokens."""
    kept_context, kept_book = kept_tokens(context, book, max_tokens)
    cut_context, cut_book = kept_context < context, kept_book < book
    shares = [float(cut.mean()) for cut in (cut_context | cut_book, cut_book, cut_context)]
    return Truncation(max_tokens, len(context), len(np.unique(user)), *shares)


def kept_tokens(context: IntArray, book: IntArray, max_tokens: int) -> tuple[IntArray, IntArray]:
    """Tokens of contexts and books that are left after truncation, (n_pairs,) each.

    The longer text gives first. Where even the shorter has over half of max_tokens, each keeps a half, and the longer
    (the book where they are equal) the odd token. This is the fast tokenizers' `longest_first`.
    """
    short = np.minimum(context, book)
    for_short = np.where(2 * short > max_tokens, max_tokens // 2, short)
    is_short = context <= book
    for_context = np.where(is_short, for_short, max_tokens - for_short)
    return np.minimum(context, for_context), np.minimum(book, max_tokens - for_context)


def auc(positive: IntArray, negative: IntArray) -> float:
    """The probability that a positive has a higher value than a negative, a tie counting half.

    By counting, for values are small whole numbers: 5 million pairs take no sort.
    """
    n_values = int(max(positive.max(), negative.max())) + 1
    above, below = (np.bincount(values, minlength=n_values) for values in (positive, negative))
    won = above @ (np.cumsum(below) - below / 2)
    return float(won / len(positive) / len(negative))
