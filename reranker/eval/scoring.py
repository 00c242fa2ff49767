"""What a scorer is, and the mean NDCG@10 of its scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from reranker.data.draws import FloatArray
from reranker.eval import metrics
from reranker.eval.lists import CandidateLists

# Gives (n_pairs,) scores for n_pairs contexts and n_pairs book texts.
Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]
MODEL = "fine_tuned"
# Scorers that come from fine-tuning. They are never counted as baselines.
MODELS = (MODEL, "fused")


def mean_ndcg_10(lists: CandidateLists, scores: FloatArray, kind: str) -> float:
    """Return the mean NDCG@10 over the users of one list kind.

    Args:
        scores: (n_rows,) aligned to `lists.frame`.
    """
    rows = (lists.frame["kind"] == kind).to_numpy()
    ranking = metrics.rank(
        lists.frame["user"].to_numpy()[rows],
        lists.frame["label"].to_numpy()[rows],
        np.asarray(scores)[rows],
    )
    return float(np.nanmean(metrics.ndcg(ranking, k=10)))
