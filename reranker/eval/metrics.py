"""Ranking metrics of many groups at once: one sort, then segment sums, and one rule for ties.

Tied scores have no order, so a metric is its expected value over all orders of the tied rows. A metric can then
neither gain nor lose by the order in which candidates are stored, and a constant scorer gets exactly chance level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

IntArray = NDArray[np.integer[Any]]
FloatArray = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Ranking:
    """All rows, sorted by group and within a group by score, best first; what every metric is computed from.

    A *block* is all rows of one group that have one score: a tie, or a single row.
    """

    group: IntArray  # (n_groups,) ids, ascending
    start: IntArray  # (n_groups,) first row of each group
    size: IntArray  # (n_groups,) rows of each group
    n_positives: IntArray  # (n_groups,) rows with label > 0
    position: IntArray  # (n_pairs,) 0-based within the group
    ideal: FloatArray  # (n_pairs,) labels in the best order: descending within the group
    block: IntArray  # (n_pairs,) index of each row's block
    block_start: IntArray  # (n_blocks,) first row of each block
    block_size: IntArray  # (n_blocks,) rows of each block
    block_label: FloatArray  # (n_blocks,) sum of labels
    block_positives: IntArray  # (n_blocks,) rows with label > 0


def rank(group: IntArray, label: FloatArray | IntArray, score: FloatArray) -> Ranking:
    """The rows of every group in descending order of score.

    Scores are compared as float32, the precision in which models score: what differs less is a tie, and so are
    -0.0 and 0.0.

    Args:
        group: (n_pairs,) ids; rows of one group need not be adjacent.
        label: (n_pairs,) graded relevance, >= 0.
        score: (n_pairs,) higher is better.

    Raises:
        ValueError: Shapes differ, a label is negative or not finite, or a score is NaN or infinite in float32 (how
            many, and the first row, are named).
    """
    group = np.asarray(group)
    label, score = _checked(label, score)
    if group.shape != label.shape:
        raise ValueError(f"group has shape {group.shape}, label and score have {label.shape}; give one id per row.")
    order = np.lexsort((-score, group))
    group, label, score = group[order], label[order], score[order]
    row = np.arange(len(group))
    is_first = np.concatenate((row[:1] == 0, group[1:] != group[:-1]))
    is_block = is_first | np.concatenate((row[:1] == 0, score[1:] != score[:-1]))
    start, block_start = np.flatnonzero(is_first), np.flatnonzero(is_block)
    size = np.diff(start, append=len(group))
    segment = np.repeat(np.arange(len(start)), size)
    return Ranking(
        group=group[start],
        start=start,
        size=size,
        n_positives=np.add.reduceat(label > 0, start, dtype=np.int64),
        position=row - start[segment],
        ideal=label[np.lexsort((-label, segment))],
        block=np.cumsum(is_block) - 1,
        block_start=block_start,
        block_size=np.diff(block_start, append=len(group)),
        block_label=np.add.reduceat(label, block_start),
        block_positives=np.add.reduceat(label > 0, block_start, dtype=np.int64),
    )


def _checked(label: FloatArray | IntArray, score: FloatArray) -> tuple[FloatArray, FloatArray]:
    labels = np.asarray(label, dtype=np.float64)
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite and is refused by name below
        scores = np.asarray(score).astype(np.float32)
    if labels.ndim != 1 or labels.shape != scores.shape:
        raise ValueError(f"label has shape {labels.shape}, score has {scores.shape}; both must be (n_pairs,).")
    _refuse("labels are negative, NaN or infinite", ~((labels >= 0) & np.isfinite(labels)), label)
    _refuse("scores are NaN or infinite in float32", ~np.isfinite(scores), score)
    return labels, scores


def _refuse(what: str, bad: NDArray[np.bool_], values: FloatArray | IntArray) -> None:
    if bad.any():
        first = int(bad.argmax())
        raise ValueError(
            f"{int(bad.sum())} of {len(bad)} {what} (first: row {first}, value {np.asarray(values)[first]})."
        )


def ndcg(ranking: Ranking, k: int) -> FloatArray:
    """Normalised discounted cumulative gain at k of every group: linear gain, discount 1 / log2(1 + rank).

    Args:
        ranking: What `rank` returned.
        k: Cut-off rank, >= 1; shorter groups are not padded.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1.

    Source: Järvelin & Kekäläinen 2002; a tied row gains its block's mean label, after McSherry & Najork 2008.
    """
    return _ndcg(ranking, [k])[:, 0]


def _ndcg(ranking: Ranking, cutoffs: Iterable[int]) -> FloatArray:
    discount = 1 / np.log2(ranking.position + 2)
    gain = (ranking.block_label / ranking.block_size)[ranking.block] * discount
    ideal = ranking.ideal * discount
    columns = []
    for k in cutoffs:
        _check_cutoff(k)
        top = ranking.position < k
        best = _without_positives_nan(ranking, np.add.reduceat(ideal * top, ranking.start))
        columns.append(np.add.reduceat(gain * top, ranking.start) / best)
    return np.stack(columns, axis=1)


def average_precision(ranking: Ranking) -> FloatArray:
    """Average precision of every group over its whole list, label > 0 being relevant.

    A block of c rows, r of them relevant, that follows s rows with R relevant ones, adds for its row j = 1..c the
    chance r/c that a relevant row stands there, times the precision expected then: (R + 1 + (j-1)(r-1)/(c-1)) / (s+j).

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Source: Buckley & Voorhees 2000 (the mean of the precision at each relevant row); expectation over ties: the
    sum above, by exchangeability of the rows of a block.
    """
    c, r = ranking.block_size, ranking.block_positives
    before = np.cumsum(r) - r  # relevant rows before the block, in all groups together
    before_group = np.repeat(before[ranking.block[ranking.start]], ranking.size)
    b = ranking.block
    earlier = np.arange(len(b)) - ranking.block_start[b]  # j - 1
    hits = before[b] - before_group + 1 + earlier * ((r - 1) / np.maximum(c - 1, 1))[b]
    terms = (r / c)[b] * hits / (ranking.position + 1)
    return np.add.reduceat(terms, ranking.start) / _without_positives_nan(ranking, ranking.n_positives)


def mrr(ranking: Ranking, k: int) -> FloatArray:
    """Reciprocal rank of every group's first relevant row (label > 0), 0 where it stands below rank k.

    In the first block with a relevant row, c rows and r relevant, the first relevant one stands at place j with the
    probability C(c-j, r-1) / C(c, r): r/c at j = 1, and (c-j-r+1) / (c-j) times as much at each next place.

    Args:
        ranking: What `rank` returned.
        k: Cut-off rank, >= 1.

    Returns:
        (n_groups,) values in [0, 1], in ascending order of group id; NaN without a positive.

    Raises:
        ValueError: k < 1.

    Source: Voorhees 1999; the probability is the negative hypergeometric distribution's.
    """
    _check_cutoff(k)
    hit = np.flatnonzero(ranking.block_positives)
    segment = np.searchsorted(ranking.start, ranking.block_start[hit], side="right") - 1
    has_hit, first = np.unique(segment, return_index=True)
    block = hit[first]
    c, r = ranking.block_size[block], ranking.block_positives[block]
    position = ranking.position[ranking.block_start[block]]
    expected, p = np.zeros(len(block)), r / c
    for j in range(1, min(k, int(c.max(initial=0))) + 1):
        expected += p / (position + j) * (position + j <= k)
        p = p * (np.maximum(c - j - r + 1, 0) / np.maximum(c - j, 1))
    values = np.full(len(ranking.group), np.nan)
    values[has_hit] = expected
    return values


def tie_fraction(ranking: Ranking) -> FloatArray:
    """The share of every group's rows whose score another row of the group has too, (n_groups,) in [0, 1]."""
    return np.add.reduceat((ranking.block_size > 1)[ranking.block], ranking.start, dtype=np.int64) / ranking.size


def _without_positives_nan(ranking: Ranking, values: FloatArray | IntArray) -> FloatArray:
    return np.where(ranking.n_positives > 0, values, np.nan)


def _check_cutoff(k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k} is no cut-off rank; it must be at least 1.")


def evaluate(
    group: IntArray, label: FloatArray | IntArray, score: FloatArray, *, cutoffs: Sequence[int]
) -> pd.DataFrame:
    """Every metric of every group.

    A group without positives has NaN for `ap`, `ndcg_<k>` and `mrr_10`; callers leave it out of means and count it.

    Args:
        group: (n_pairs,) ids; rows of one group need not be adjacent.
        label: (n_pairs,) graded relevance, >= 0; `ap` and `mrr_10` take label > 0 as relevant.
        score: (n_pairs,) higher is better; compared as float32.
        cutoffs: Ranks k of `ndcg_<k>`.

    Returns:
        A row per group in ascending order of id: `group`, `n_candidates`, `n_positives`, `tie_fraction`, `ap`,
        `ndcg_<k>` for each cut-off, `mrr_10`.

    Raises:
        ValueError: As `rank`; or a cut-off < 1.
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
        }
    )


def ndcg_curve(group: IntArray, label: FloatArray | IntArray, score: FloatArray, *, max_k: int = 20) -> FloatArray:
    """`ndcg` at every cut-off from 1 to max_k, (n_groups, max_k), groups in ascending order of id.

    Raises:
        ValueError: As `rank`; or max_k < 1.
    """
    _check_cutoff(max_k)
    return _ndcg(rank(group, label, score), range(1, max_k + 1))


def auc(label: FloatArray | IntArray, score: FloatArray) -> float:
    """Area under the ROC curve of all rows together, label > 0 being positive; a tie counts half.

    NaN without a positive or without a negative. It compares scores across groups, which a ranking never does.

    Raises:
        ValueError: As `rank`.
    """
    labels, scores = _checked(label, score)
    positive = labels > 0
    return float(roc_auc_score(positive, scores)) if positive.any() and not positive.all() else float("nan")


def global_average_precision(label: FloatArray | IntArray, score: FloatArray) -> float:
    """Average precision of all rows together as one list, label > 0 being relevant; NaN without a positive.

    Ties differ from `average_precision`: scikit-learn takes tied rows as one threshold, so that each counts with
    the precision at the end of its block. Kept so, for comparison with figures that were computed like this.

    Raises:
        ValueError: As `rank`.
    """
    labels, scores = _checked(label, score)
    positive = labels > 0
    return float(average_precision_score(positive, scores)) if positive.any() else float("nan")
