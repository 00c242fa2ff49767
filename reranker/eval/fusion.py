"""Two scorers' scores in one: standardised within each list, weighted as serves the dev lists best."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reranker.data.draws import FloatArray
from reranker.eval.lists import CandidateLists
from reranker.eval.scoring import MODEL, mean_ndcg_10

WEIGHTS = np.arange(21) / 20


def choose_fusions(dev: CandidateLists, scores: Mapping[str, FloatArray]) -> pd.DataFrame:
    """For each list kind the best of the other scorers on the dev lists, and the model's weight beside it.

    Args:
        scores: Scorer name -> (n_rows,) scores aligned to `dev.frame`; one of them is the fine-tuned model.

    Returns:
        A row for each kind: kind; other, the scorer beside the model; weight, of the model, the other has the rest;
        dev_ndcg_10, what the two come to on the dev lists.
    """
    return pd.DataFrame([_choose(dev, scores, str(kind)) for kind in dev.frame["kind"].unique()])


def _choose(dev: CandidateLists, scores: Mapping[str, FloatArray], kind: str) -> dict[str, object]:
    value = {name: mean_ndcg_10(dev, s, kind) for name, s in scores.items() if name != MODEL}
    other = max(value, key=lambda name: value[name])
    weight = choose_weight(dev, scores[MODEL], scores[other], kind)
    both = fuse(dev, scores[MODEL], scores[other], weight)
    return {
        "kind": kind,
        "other": other,
        "weight": weight,
        "dev_ndcg_10": mean_ndcg_10(dev, both, kind),
    }


def fuse_lists(
    lists: CandidateLists, scores: Mapping[str, FloatArray], fusions: pd.DataFrame
) -> FloatArray:
    """(n_rows,) fused scores, each list kind by its own row of `choose_fusions`."""
    out = np.empty(len(lists.frame))
    for kind, other, weight in zip(
        fusions["kind"], fusions["other"], fusions["weight"], strict=True
    ):
        rows = (lists.frame["kind"] == kind).to_numpy()
        out[rows] = fuse(lists, scores[MODEL], scores[other], weight)[rows]
    return out


def choose_weight(
    lists: CandidateLists, model_scores: FloatArray, other_scores: FloatArray, kind: str
) -> float:
    """The weight of the model, of 0, .05, …, 1, that gives the highest mean NDCG@10 on one list kind.

    Of equals the largest: the model alone where another scorer adds nothing.
    """
    model, other = standardise(lists, model_scores), standardise(lists, other_scores)
    value = [mean_ndcg_10(lists, w * model + (1 - w) * other, kind) for w in WEIGHTS]
    return float(max(zip(value, WEIGHTS, strict=True))[1])


def fuse(lists: CandidateLists, a: FloatArray, b: FloatArray, weight: float) -> FloatArray:
    """(n_rows,) `weight` times a plus the rest times b, both standardised within each list."""
    return weight * standardise(lists, a) + (1 - weight) * standardise(lists, b)


def standardise(lists: CandidateLists, scores: FloatArray) -> FloatArray:
    """(n_rows,) scores with mean 0 and standard deviation 1 within each list; 0 where a list has one score only."""
    group = lists.frame.groupby(["kind", "user"]).ngroup().to_numpy()
    score = np.asarray(scores, dtype=np.float64)
    n = np.bincount(group)
    away = score - (np.bincount(group, score) / n)[group]
    spread = np.sqrt(np.bincount(group, away * away) / n)[group]
    return np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)
