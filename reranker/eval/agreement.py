"""Compare how two implementations of one model rank the candidate lists."""

from __future__ import annotations

import numpy as np
from scipy.stats import kendalltau

from reranker.data.draws import FloatArray, IntArray
from reranker.eval.eval_set import EvalSet
from reranker.eval.scoring import Scorer, mean_ndcg_10
from reranker.model.openvino_export import Agreement


def compare_rankings(exact: Scorer, other: Scorer, eval_set: EvalSet) -> Agreement:
    """Return NDCG@10 of both scorers on the headline lists, and the correlation of their ranks."""
    headline, kind = eval_set.headline(), eval_set.cfg.list_kinds[0]
    first, second = (headline.score(scorer) for scorer in (exact, other))
    tau = kendall(headline.rows["user"].to_numpy(), first, second)
    return Agreement(
        ndcg_10_fp32=mean_ndcg_10(headline.lists, first, kind),
        ndcg_10=mean_ndcg_10(headline.lists, second, kind),
        kendall=float(tau.mean()),
        kendall_low=float(np.quantile(tau, 0.05)),
        n_lists=len(tau),
    )


def kendall(user: IntArray, first: FloatArray, second: FloatArray) -> FloatArray:
    """Return (n_users,) Kendall's tau-b between two scorers' orders of every list.

    It is 0 where one of the scorers ties all candidates of a list.
    """
    lists = (np.flatnonzero(user == one) for one in np.unique(user))
    tau = [kendalltau(first[rows], second[rows]).statistic for rows in lists]
    return np.nan_to_num(np.array(tau))
