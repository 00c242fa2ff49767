"""Ranking metrics of many groups at once: one sort, then segment sums, and one rule for ties.

Tied scores have no order, so a metric is its expected value over all orders of the tied rows. A metric can then
neither gain nor lose by the order in which candidates are stored, and a constant scorer gets exactly chance level.
A group without positives has no value: NaN, in every metric.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score

from reranker.eval.ranking import FloatArray, IntArray, Ranking, checked, rank

Gain = Literal["linear", "exponential"]
MAX_EXPONENT = 1000  # labels under exponential gain: 2^1024 is no float64


def ndcg(ranking: Ranking, k: int, gain: Gain = "linear") -> FloatArray:
    """Normalised discounted cumulative gain at k of every group, discount 1 / log2(1 + rank).

    Args:
        ranking: What `rank` returned.
        k: Cut-off rank, >= 1; shorter groups are not padded.
        gain: A row gains its label ("linear") or 2^label - 1 ("exponential"); for labels 0 and 1 they agree.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1, or a label above 1000 under exponential gain.

    Source: Järvelin & Kekäläinen 2002; exponential gain: Burges et al. 2005; a tied row gains its block's mean, after
    McSherry & Najork 2008.
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
            f"label {label.max():g} is too large for exponential gain; at most {MAX_EXPONENT} is allowed."
        )
    return np.exp2(label) - 1


def average_precision(ranking: Ranking) -> FloatArray:
    """Average precision of every group over its whole list, label > 0 being relevant.

    A block of c rows, r of them relevant, that follows s rows with R relevant ones, adds for its row j = 1..c the
    chance r/c that a relevant row stands there, times the precision expected then: (R + 1 + (j-1)(r-1)/(c-1)) / (s+j).

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Source: Buckley & Voorhees 2000 (the mean of the precision at each relevant row); expectation over ties: the
    sum above, by exchangeability of the rows of a block.
    """
    c, r, b = ranking.block_size, ranking.block_positives, ranking.block
    n_positives = ranking.n_positives[ranking.n_positives > 0]
    before = np.cumsum(r) - r  # relevant rows before the block, in all groups together
    before_group = np.repeat(
        np.cumsum(n_positives) - n_positives, np.diff(ranking.start, append=len(b))
    )
    earlier = np.arange(len(b)) - ranking.block_start[b]  # j - 1
    hits = before[b] - before_group + 1 + earlier * ((r - 1) / np.maximum(c - 1, 1))[b]
    terms = (r / c)[b] * hits / (ranking.position + 1)
    return _spread(ranking, np.add.reduceat(terms, ranking.start) / n_positives)


def mrr(ranking: Ranking, k: int) -> FloatArray:
    """Reciprocal rank of every group's first relevant row (label > 0), 0 where it stands below rank k.

    Args:
        ranking: What `rank` returned.
        k: Cut-off rank, >= 1.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1.

    Source: Voorhees 1999.
    """
    return _of_first(ranking, k, lambda place: 1 / place)


def hit(ranking: Ranking, k: int) -> FloatArray:
    """Whether a relevant row (label > 0) stands among every group's first k: 1 or 0; under ties, the chance of it.

    Arguments, returns and errors as `mrr`.
    """
    return np.minimum(
        _of_first(ranking, k, np.ones_like), 1
    )  # the chances of all places may sum to 1 + 2e-16


def _of_first(ranking: Ranking, k: int, value: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """The expected value of the rank of every group's first relevant row, 0 below rank k.

    In the first block with a relevant row, c rows and r relevant, the first relevant one stands at place j with the
    probability C(c-j, r-1) / C(c, r): r/c at j = 1, and (c-j-r+1) / (c-j) times as much at each next place.

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
    """The share of every group's relevant rows (label > 0) that stands among its first k.

    A group with more than k relevant rows cannot reach 1. Arguments, returns and errors as `mrr`.
    """
    return _hits(ranking, k) / np.maximum(ranking.n_positives, 1)


def precision(ranking: Ranking, k: int) -> FloatArray:
    """The share of relevant rows (label > 0) among every group's first k.

    The denominator is k in shorter groups too, as in trec_eval, so the largest value is min(n_positives, k) / k.
    Arguments, returns and errors as `mrr`.
    """
    return _hits(ranking, k) / k


def _hits(ranking: Ranking, k: int) -> FloatArray:
    """Relevant rows expected among the first k."""
    _check_cutoff(k)
    chance_of_row = (ranking.block_positives / ranking.block_size)[ranking.block]
    return _spread(ranking, np.add.reduceat(chance_of_row * (ranking.position < k), ranking.start))


def tie_fraction(ranking: Ranking) -> FloatArray:
    """The share of every group's rows whose score another row of the group has too, (n_groups,) in [0, 1]."""
    return ranking.n_tied / ranking.size


def _spread(ranking: Ranking, values: FloatArray) -> FloatArray:
    """(n_groups,) from the values of the groups with a positive: NaN for the others."""
    spread = np.full(len(ranking.group), np.nan)
    spread[ranking.n_positives > 0] = values
    return spread


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k} is no cut-off rank; it must be at least 1.")


def evaluate(
    group: IntArray, label: FloatArray | IntArray, score: FloatArray, *, cutoffs: Sequence[int]
) -> pd.DataFrame:
    """Every metric of every group.

    A group without positives has NaN for every metric; callers leave it out of means and count it.

    Args:
        group: (n_pairs,) ids; rows of one group need not be adjacent.
        label: (n_pairs,) graded relevance, >= 0; all but NDCG take label > 0 as relevant.
        score: (n_pairs,) higher is better; compared as float32.
        cutoffs: Ranks k of `ndcg_<k>`.

    Returns:
        A row per group in ascending order of id: `group`, `n_candidates`, `n_positives`, `tie_fraction`, `ap`,
        `ndcg_<k>` for each cut-off, `mrr_10`, `recall_10`, `hit_10`, `precision_10`, `ndcg_exp_10` (exponential gain).

    Raises:
        ValueError: As `rank`; a cut-off < 1; or a label above 1000.
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
    """Every metric's expected value of every group under a random order: `evaluate` of a constant scorer.

    For one list of n rows, r of them relevant: `chance(np.zeros(n, int), np.arange(n) < r, cutoffs=[10])`.

    Raises:
        ValueError: As `evaluate`.
    """
    return evaluate(group, label, np.zeros(len(label), dtype=np.float32), cutoffs=cutoffs)


def ndcg_curve(
    group: IntArray, label: FloatArray | IntArray, score: FloatArray, *, max_k: int = 20
) -> FloatArray:
    """`ndcg` at every cut-off from 1 to max_k, (n_groups, max_k), groups in ascending order of id.

    Raises:
        ValueError: As `rank`; or max_k < 1.
    """
    _check_cutoff(max_k)
    return _ndcg(rank(group, label, score), range(1, max_k + 1), "linear")


def auc(label: FloatArray | IntArray, score: FloatArray) -> float:
    """Area under the ROC curve of all rows together, label > 0 being positive; a tie counts half.

    NaN without a positive or without a negative. It compares scores across groups, which a ranking never does.

    Raises:
        ValueError: As `rank`.
    """
    labels, scores = checked(label, score)
    positive = labels > 0
    return (
        float(roc_auc_score(positive, scores))
        if positive.any() and not positive.all()
        else float("nan")
    )


def global_average_precision(label: FloatArray | IntArray, score: FloatArray) -> float:
    """Average precision of all rows together as one list, label > 0 being relevant; NaN without a positive.

    Ties differ from `average_precision`: scikit-learn takes tied rows as one threshold, so that each counts with
    the precision at the end of its block. Kept so, for comparison with figures that were computed like this.

    Raises:
        ValueError: As `rank`.
    """
    labels, scores = checked(label, score)
    positive = labels > 0
    return float(average_precision_score(positive, scores)) if positive.any() else float("nan")
