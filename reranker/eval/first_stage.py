"""What a first stage finds, and what reranking its best books can and does make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reranker.data import Tables
from reranker.data.draws import FloatArray, IntArray
from reranker.eval import metrics
from reranker.eval.lists import CandidateLists

K = 10  # of the figures here, the headline's


def summarise_first_stage(tables: Tables, lists: CandidateLists) -> dict[str, float]:
    """Figures of the `retriever` lists over all users with positive targets, found or not.

    Returns:
        n_users; hit_fraction: users with a positive in their list; recall_<n>: mean share of a user's positive targets
        that stand in the list of n; ceiling_ndcg_10: mean NDCG@10 of a perfect order of the list, where positives that
        it misses count as lost.
    """
    rows = _rows(lists)
    found = rows.groupby("user")["label"].sum()
    wanted = _n_targets(tables, lists, found.index.to_numpy())
    size = int(rows.groupby("user").size().max())
    return {
        "n_users": float(len(found)),
        "hit_fraction": float((found > 0).mean()),
        f"recall_{size}": float((found / wanted).mean()),
        f"ceiling_ndcg_{K}": float((_ideal(found.to_numpy()) / _ideal(wanted)).mean()),
    }


def depth_curve(
    tables: Tables,
    lists: CandidateLists,
    scores: Mapping[str, FloatArray],
    depths: Sequence[int] = (10, 20, 50, 100),
) -> pd.DataFrame:
    """What each scorer makes of the `retriever` lists when it reranks only their first books.

    The first `depth` books, in the first stage's order (ties: ascending book code), are ranked by the scorer; the
    others keep their order behind them.

    Args:
        scores: Scorer name -> (n_rows,) scores aligned to `lists.frame`.
        depths: Of them only those up to the lists' size count.

    Returns:
        A row for each scorer and depth: scorer, depth; ndcg_10 and recall_10 over all users with positive targets,
        those that the list misses counting as lost; ndcg_10_retrieved, over the users with a positive in their list
        and of the list's positives alone, as other list kinds have it.
    """
    rows = _rows(lists)
    user, label = rows["user"].to_numpy(), rows["label"].to_numpy()
    place = rows.groupby("user")["retrieval_score"].rank(method="first", ascending=False).to_numpy()
    wanted = _n_targets(tables, lists, np.unique(user))
    found = rows.groupby("user")["label"].sum().to_numpy()
    out = []
    for scorer, values in scores.items():
        own = pd.Series(np.asarray(values, dtype=np.float32)[rows.index])
        for depth in (d for d in depths if d <= place.max()):
            score = _reranked(own, user, place, depth)
            ranking = metrics.rank(user, label, score)
            ndcg = metrics.ndcg(ranking, k=K)
            whole = np.nan_to_num(ndcg) * _ideal(found) / _ideal(wanted)
            recall = np.nan_to_num(metrics.recall(ranking, k=K)) * found / wanted
            means = {
                "ndcg_10": whole.mean(),
                "recall_10": recall.mean(),
                "ndcg_10_retrieved": np.nanmean(ndcg),
            }
            out.append({"scorer": scorer, "depth": depth, **means})
    return pd.DataFrame(
        out, columns=["scorer", "depth", "ndcg_10", "recall_10", "ndcg_10_retrieved"]
    )


def _rows(lists: CandidateLists) -> pd.DataFrame:
    """The retriever lists' rows, indexed by their place in the frame, which scores are aligned to."""
    return lists.frame.reset_index(drop=True)[(lists.frame["kind"] == "retriever").to_numpy()]


def _n_targets(tables: Tables, lists: CandidateLists, users: IntArray) -> IntArray:
    """(n_users,) positive targets of each user, at least 1: others have no list."""
    counts = tables.positives(lists.split)["user"].value_counts()
    return counts.reindex(users).to_numpy()


def _ideal(n_positives: IntArray) -> FloatArray:
    """(n_users,) discounted cumulative gain at K of that many positives on top."""
    gain = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, K + 2)))])
    return gain[np.minimum(n_positives, K).astype(np.int64)]


def _reranked(own: pd.Series, user: IntArray, place: FloatArray, depth: int) -> FloatArray:
    """(n_rows,) scores: within the depth by rank among the user's rows (ties stay ties), above all others."""
    inside = place <= depth
    score = -place
    score[inside] = own[inside].groupby(user[inside]).rank(method="min").to_numpy()
    return score
