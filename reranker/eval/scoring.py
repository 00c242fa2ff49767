"""What a scorer is, and the metrics by which a training is followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

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


def dev_metrics(rows: pd.DataFrame, scores: FloatArray, *, threshold: float) -> dict[str, float]:
    """Return the metrics of one scoring pass over candidate lists.

    `ndcg_10` and `map` are means over users. `auc` and `accuracy` are over all pairs: accuracy is
    the share of pairs whose score is above the threshold exactly if the label is positive. It
    depends on the share of positives: `majority_share` is the accuracy of a constant answer, the
    label that most pairs have. A loss that compares pairs does not train a threshold.

    Args:
        rows: The candidates: user, label.
        scores: (n_rows,) aligned to `rows`.
        threshold: The score of the logit 0, `activations.threshold`.
    """
    label = rows["label"].to_numpy()
    ranking = metrics.rank(rows["user"].to_numpy(), label, scores)
    positive = label > 0
    share = float(positive.mean())
    return {
        "ndcg_10": float(np.nanmean(metrics.ndcg(ranking, k=10))),
        "map": float(np.nanmean(metrics.average_precision(ranking))),
        "auc": metrics.auc(label, scores),
        "accuracy": float(((np.asarray(scores) > threshold) == positive).mean()),
        "majority_share": max(share, 1 - share),
    }
