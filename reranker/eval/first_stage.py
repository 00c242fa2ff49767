"""Recall of the first stage, and the effect of reranking its best books."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from reranker.data import Tables
from reranker.data.draws import FloatArray, IntArray
from reranker.eval import metrics
from reranker.eval.lists import CandidateLists

K = 10  # cut-off of all metrics here


def summarise_first_stage(tables: Tables, lists: CandidateLists) -> dict[str, float]:
    """Return metrics of the `retriever` lists over all users with positive targets.

    Returns:
        n_users; hit_fraction: the fraction of users with a positive in their list; recall_<n>: the
        mean fraction of a user's positive targets in the list of n; ceiling_ndcg_10: the mean
        NDCG@10 of a perfect order of the list, where positives outside it count as not found.
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
    """Return the metrics of each scorer when it reranks only the first `depth` retrieved books.

    The scorer ranks the first `depth` books of the first stage's order (ties: ascending book
    code). The other books follow in the first stage's order.

    Args:
        scores: Scorer name -> (n_rows,) scores aligned to `lists.frame`.
        depths: Depths above the lists' size are skipped.

    Returns:
        A row per scorer and depth: scorer, depth; ndcg_10 and recall_10 over all users with
        positive targets, where positives outside the list count as not found; ndcg_10_retrieved
        over users with a positive in their list, as in the other list kinds.
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
            over_all = np.nan_to_num(ndcg) * _ideal(found) / _ideal(wanted)
            recall = np.nan_to_num(metrics.recall(ranking, k=K)) * found / wanted
            means = {
                "ndcg_10": over_all.mean(),
                "recall_10": recall.mean(),
                "ndcg_10_retrieved": np.nanmean(ndcg),
            }
            out.append({"scorer": scorer, "depth": depth, **means})
    return pd.DataFrame(
        out, columns=["scorer", "depth", "ndcg_10", "recall_10", "ndcg_10_retrieved"]
    )


def _rows(lists: CandidateLists) -> pd.DataFrame:
    """Return the rows of retriever lists, indexed by their position in the frame."""
    return lists.frame.reset_index(drop=True)[(lists.frame["kind"] == "retriever").to_numpy()]


def _n_targets(tables: Tables, lists: CandidateLists, users: IntArray) -> IntArray:
    """Return the (n_users,) number of positive targets, which is at least 1."""
    counts = tables.positives(lists.split)["user"].value_counts()
    return counts.reindex(users).to_numpy()


def _ideal(n_positives: IntArray) -> FloatArray:
    """Return the (n_users,) DCG@K of a list that has its n_positives first."""
    gain = np.concatenate([[0.0], np.cumsum(1 / np.log2(np.arange(2, K + 2)))])
    return gain[np.minimum(n_positives, K).astype(np.int64)]


def _reranked(own: pd.Series, user: IntArray, place: FloatArray, depth: int) -> FloatArray:
    """Return (n_rows,) scores that put the first `depth` rows, by their rank, above all others."""
    inside = place <= depth
    score = -place
    score[inside] = own[inside].groupby(user[inside]).rank(method="min").to_numpy()
    return score
