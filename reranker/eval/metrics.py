"""Ranking metrics of many groups at once: one sort, then segment sums, and one rule for ties.

Tied scores have no order, so a metric is its expected value over all orders of the tied rows. The
order in which candidates are stored then has no influence, and a constant scorer gets exactly the
chance level. A group without positives has the value NaN in every metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from reranker.eval.ranking import FloatArray, IntArray, Ranking, checked, rank

Gain = Literal["linear", "exponential"]
MAX_EXPONENT = 1000  # largest label under exponential gain; 2^1024 overflows float64


def ndcg(ranking: Ranking, k: int, gain: Gain = "linear") -> FloatArray:
    """Return the normalised discounted cumulative gain at k of every group.

    The discount is 1 / log2(1 + rank).

    Args:
        ranking: From `rank`.
        k: Cut-off rank, >= 1; shorter groups are not padded.
        gain: A row gains its label ("linear") or 2^label - 1 ("exponential"). The two agree for
            labels 0 and 1.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1, or a label above 1000 under exponential gain.

    Source: Järvelin & Kekäläinen 2002; exponential gain: Burges et al. 2005; a tied row gains the
    mean of its block, after McSherry & Najork 2008.

    Example:
        >>> ndcg(rank(group=[0, 0, 1], label=[1, 0, 1], score=[0.2, 0.1, 0.3]), k=10)
        array([1., 1.])
    """
    return _ndcg(ranking, [k], gain)[:, 0]


def _ndcg(ranking: Ranking, cutoffs: Iterable[int], gain: Gain) -> FloatArray:
    block_gain = (
        np.add.reduceat(_gains(ranking.label, gain), ranking.block_start) / ranking.block_size
    )
    discounted = block_gain[ranking.block] / np.log2(ranking.position + 2)
    n_ideal = ranking.n_positives[ranking.n_positives > 0]
    ideal_start = np.cumsum(n_ideal) - n_ideal
    ideal_position = np.arange(len(ranking.ideal)) - np.repeat(ideal_start, n_ideal)
    ideal = _gains(ranking.ideal, gain) / np.log2(ideal_position + 2)
    columns = []
    for k in cutoffs:
        _check_cutoff(k)
        best = np.add.reduceat(ideal * (ideal_position < k), ideal_start)
        columns.append(
            _spread(
                ranking, np.add.reduceat(discounted * (ranking.position < k), ranking.start) / best
            )
        )
    return np.stack(columns, axis=1)


def _gains(label: FloatArray, gain: Gain) -> FloatArray:
    if gain == "linear":
        return label
    if label.max(initial=0) > MAX_EXPONENT:
        raise ValueError(
            f"label {label.max():g} is too large for exponential gain; at most {MAX_EXPONENT} is "
            "allowed."
        )
    return np.exp2(label) - 1


def average_precision(ranking: Ranking) -> FloatArray:
    """Return the average precision of every group over its complete list.

    A row is relevant if its label is > 0. Take a block of c rows, r of them relevant, that follows
    s rows with R relevant ones. Its row j = 1..c adds the probability r/c that a relevant row is
    there, times the expected precision in that case: (R + 1 + (j-1)(r-1)/(c-1)) / (s+j).

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Source: Buckley & Voorhees 2000 (the mean of the precision at each relevant row). The
    expectation over ties is the sum above, because the rows of a block are exchangeable.
    """
    n_positives = ranking.n_positives[ranking.n_positives > 0]
    return _spread(ranking, np.add.reduceat(_precisions(ranking), ranking.start) / n_positives)


def average_precision_at(ranking: Ranking, k: int) -> FloatArray:
    """Return the average precision of every group, cut at rank k.

    It is the sum of the precisions at the relevant rows among the first k, divided by the smaller
    of k and the number of relevant rows, so that a perfect order has the value 1 at every k. A row
    is relevant if its label is > 0. At k >= the length of the list it is `average_precision`.

    Args:
        ranking: From `rank`.
        k: Cut-off rank, >= 1.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1.

    Source: the definition of the MAP@k of recommender benchmarks (Kaggle); trec_eval's `map_cut`
    divides by the number of relevant rows instead, and cannot reach 1 for k below it.
    """
    return _map_at(ranking, [k])[:, 0]


def _map_at(ranking: Ranking, cutoffs: Iterable[int]) -> FloatArray:
    """Return (n_groups, n_cutoffs) `average_precision_at`."""
    terms = _precisions(ranking)
    n_positives = ranking.n_positives[ranking.n_positives > 0]
    columns = []
    for k in cutoffs:
        _check_cutoff(k)
        found = np.add.reduceat(terms * (ranking.position < k), ranking.start)
        columns.append(_spread(ranking, found / np.minimum(n_positives, k)))
    return np.stack(columns, axis=1)


def _precisions(ranking: Ranking) -> FloatArray:
    """Return each row's term of the average precision: its expected precision if relevant, or 0."""
    c, r, b = ranking.block_size, ranking.block_positives, ranking.block
    n_positives = ranking.n_positives[ranking.n_positives > 0]
    before = np.cumsum(r) - r  # relevant rows before the block, over all groups
    before_group = np.repeat(
        np.cumsum(n_positives) - n_positives, np.diff(ranking.start, append=len(b))
    )
    earlier = np.arange(len(b)) - ranking.block_start[b]  # j - 1
    hits = before[b] - before_group + 1 + earlier * ((r - 1) / np.maximum(c - 1, 1))[b]
    return np.asarray((r / c)[b] * hits / (ranking.position + 1))


def mrr(ranking: Ranking, k: int) -> FloatArray:
    """Return the reciprocal rank of every group's first relevant row (label > 0).

    It is 0 if that row is below rank k.

    Args:
        ranking: From `rank`.
        k: Cut-off rank, >= 1.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1.

    Source: Voorhees 1999.
    """
    return _of_first(ranking, k, lambda place: 1 / place)


def hit(ranking: Ranking, k: int) -> FloatArray:
    """Return whether a relevant row (label > 0) is among every group's first k: 1 or 0.

    Under ties it is the probability of that. Arguments, returns and errors as `mrr`.
    """
    # Rounding may bring the sum of the probabilities to 1 + 2e-16.
    return np.minimum(_of_first(ranking, k, np.ones_like), 1)


def _of_first(ranking: Ranking, k: int, value: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the expectation of `value(rank)` over the rank of every group's first relevant row.

    Ranks below k count 0. In the first block with a relevant row, which has c rows and r relevant
    ones, the first relevant row is at place j with the probability C(c-j, r-1) / C(c, r): r/c at
    j = 1, and (c-j-r+1) / (c-j) times as much at each next place.

    Source: the negative hypergeometric distribution.
    """
    _check_cutoff(k)
    block, position = ranking.block[ranking.start], ranking.position[ranking.start]
    c, r = ranking.block_size[block], ranking.block_positives[block]
    expected, p = np.zeros(len(block)), r / c
    for j in range(1, min(k, int(c.max(initial=0))) + 1):
        expected += p * value(position + float(j)) * (position + j <= k)
        p = p * (np.maximum(c - j - r + 1, 0) / np.maximum(c - j, 1))
    return _spread(ranking, expected)


def recall(ranking: Ranking, k: int) -> FloatArray:
    """Return the fraction of every group's relevant rows (label > 0) among its first k.

    A group with more than k relevant rows cannot reach 1. Arguments, returns and errors as `mrr`.
    """
    return _hits(ranking, k) / np.maximum(ranking.n_positives, 1)


def precision(ranking: Ranking, k: int) -> FloatArray:
    """Return the fraction of relevant rows (label > 0) among every group's first k.

    The denominator is k in shorter groups too, as in trec_eval. The largest value is therefore
    min(n_positives, k) / k.
    Arguments, returns and errors as `mrr`.
    """
    return _hits(ranking, k) / k


def _hits(ranking: Ranking, k: int) -> FloatArray:
    """Return the expected number of relevant rows among the first k."""
    _check_cutoff(k)
    chance_of_row = (ranking.block_positives / ranking.block_size)[ranking.block]
    return _spread(ranking, np.add.reduceat(chance_of_row * (ranking.position < k), ranking.start))


def tie_fraction(ranking: Ranking) -> FloatArray:
    """Return the (n_groups,) fraction of rows whose score another row of the group has too."""
    return ranking.n_tied / ranking.size


def _spread(ranking: Ranking, values: FloatArray) -> FloatArray:
    """Return (n_groups,) values: the given ones in groups with a positive, NaN in the others."""
    spread = np.full(len(ranking.group), np.nan)
    spread[ranking.n_positives > 0] = values
    return spread


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k} is not a cut-off rank; it must be at least 1.")


def evaluate(
    group: IntArray, label: FloatArray | IntArray, score: FloatArray, *, cutoffs: Sequence[int]
) -> pd.DataFrame:
    """Return every metric of every group.

    A group without positives has NaN in every metric. Callers leave it out of means and count it.

    Args:
        group: (n_pairs,) ids; rows of one group need not be adjacent.
        label: (n_pairs,) graded relevance, >= 0. All metrics but NDCG use label > 0.
        score: (n_pairs,) higher is better; compared as float32.
        cutoffs: Ranks k of `ndcg_<k>`.

    Returns:
        A row per group in ascending order of id: `group`, `n_candidates`, `n_positives`,
        `tie_fraction`, `ap`, `ndcg_<k>` for each cut-off, `mrr_10`, `recall_10`, `hit_10`,
        `precision_10`, `ndcg_exp_10` (exponential gain).

    Raises:
        ValueError: As `rank`; a cut-off < 1; or a label above 1000.

    Example:
        >>> evaluate(scores["user"], scores["label"], scores["fine_tuned"], cutoffs=[5, 10])
    """
    ranking = rank(group, label, score)
    return pd.DataFrame(
        {
            "group": ranking.group,
            "n_candidates": ranking.size,
            "n_positives": ranking.n_positives,
            "tie_fraction": tie_fraction(ranking),
            "ap": average_precision(ranking),
            **{f"ndcg_{k}": ndcg(ranking, k) for k in cutoffs},
            "mrr_10": mrr(ranking, 10),
            "recall_10": recall(ranking, 10),
            "hit_10": hit(ranking, 10),
            "precision_10": precision(ranking, 10),
            "ndcg_exp_10": ndcg(ranking, 10, gain="exponential"),
        }
    )


def chance(
    group: IntArray, label: FloatArray | IntArray, *, cutoffs: Sequence[int]
) -> pd.DataFrame:
    """Return every metric's expected value under a random order: `evaluate` of a constant scorer.

    For one list of n rows, r of them relevant, it is
    `chance(np.zeros(n, int), np.arange(n) < r, cutoffs=[10])`.

    Raises:
        ValueError: As `evaluate`.
    """
    return evaluate(group, label, np.zeros(len(label), dtype=np.float32), cutoffs=cutoffs)


def curves(
    group: IntArray, label: FloatArray | IntArray, score: FloatArray, *, max_k: int = 20
) -> tuple[FloatArray, FloatArray]:
    """Return `ndcg` and `average_precision_at` at every cut-off from 1 to max_k.

    Returns:
        Two arrays, (n_groups, max_k), with groups in ascending order of id.

    Raises:
        ValueError: As `rank`; or max_k < 1.
    """
    _check_cutoff(max_k)
    ranking, cutoffs = rank(group, label, score), range(1, max_k + 1)
    return _ndcg(ranking, cutoffs, "linear"), _map_at(ranking, cutoffs)


def auc(label: FloatArray | IntArray, score: FloatArray) -> float:
    """Return the area under the ROC curve over all rows; a row is positive if its label is > 0.

    A tie counts half. The value is NaN without a positive or without a negative. It compares scores
    across groups, which a ranking metric does not.

    Raises:
        ValueError: As `rank`.
    """
    labels, scores = checked(label, score)
    positive = labels > 0
    if not positive.any() or positive.all():
        return float("nan")
    return float(roc_auc_score(positive, scores))


def global_average_precision(label: FloatArray | IntArray, score: FloatArray) -> float:
    """Return the average precision of all rows as one list; NaN without a positive.

    A row is relevant if its label is > 0. Ties differ from `average_precision`: scikit-learn uses
    tied rows as one threshold, so that each counts with the precision at the end of its block. This
    definition is the one of published numbers.

    Raises:
        ValueError: As `rank`.
    """
    labels, scores = checked(label, score)
    positive = labels > 0
    return float(average_precision_score(positive, scores)) if positive.any() else float("nan")
