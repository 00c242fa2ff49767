"""How closely another way of computing a model ranks the frozen lists as the model does."""

from __future__ import annotations

import numpy as np

from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray
from reranker.eval.lists import CandidateLists
from reranker.eval.scoring import Scorer, mean_ndcg_10, score_lists
from reranker.model.openvino_export import Agreement


def compare_rankings(
    exact: Scorer,
    other: Scorer,
    tables: Tables,
    contexts: Contexts,
    lists: CandidateLists,
    kind: str,
) -> Agreement:
    """NDCG@10 of both scorers on the lists of one kind, and the rank correlation between their orders."""
    frame = lists.frame[lists.frame["kind"] == kind]
    headline = CandidateLists(frame, lists.digest, lists.split, lists.hit, lists.counts)
    first, second = (score_lists(scorer, tables, contexts, headline) for scorer in (exact, other))
    tau = kendall(frame["user"].to_numpy(), first, second)
    return Agreement(
        ndcg_10_fp32=mean_ndcg_10(headline, first, kind),
        ndcg_10=mean_ndcg_10(headline, second, kind),
        kendall=float(tau.mean()),
        kendall_low=float(np.quantile(tau, 0.05)),
        n_lists=len(tau),
    )


def kendall(user: np.ndarray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Kendall's tau-b between two scorers' orders of every list, (n_users,); 0 where one of them ties all of a list."""
    from scipy.stats import kendalltau

    lists = (np.flatnonzero(user == one) for one in np.unique(user))
    return np.nan_to_num(
        np.array([kendalltau(first[rows], second[rows]).statistic for rows in lists])
    )
