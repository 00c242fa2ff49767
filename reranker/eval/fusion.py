"""Fuse the scores of two scorers: standardise within each list, then weight by the dev lists."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reranker.data.draws import FloatArray
from reranker.eval.eval_set import EvalSet
from reranker.eval.lists import CandidateLists
from reranker.eval.scoring import MODEL, mean_ndcg_10

WEIGHTS = np.arange(21) / 20


def add_fused_scores(dev: EvalSet, test: EvalSet) -> pd.DataFrame:
    """Add the scores `fused` to the test set, with weights chosen on the dev lists.

    Returns:
        The chosen weights, from `choose_fusions`.
    """
    fusions = choose_fusions(dev.lists, dev.scores)
    test.scores["fused"] = fuse_lists(test.lists, test.scores, fusions)
    return fusions


def choose_fusions(dev: CandidateLists, scores: Mapping[str, FloatArray]) -> pd.DataFrame:
    """Choose for each list kind the scorer to fuse the model with, and the model's weight.

    Args:
        scores: Scorer name -> (n_rows,) scores aligned to `dev.frame`. One of them is the
            fine-tuned model.

    Returns:
        A row per kind: kind; other, the best other scorer on the dev lists; weight of the model
        (the other scorer has 1 - weight); dev_ndcg_10 of the fused scores.
    """
    return pd.DataFrame([_choose(dev, scores, str(kind)) for kind in dev.frame["kind"].unique()])


def _choose(dev: CandidateLists, scores: Mapping[str, FloatArray], kind: str) -> dict[str, object]:
    """Return the row of one list kind."""
    value = {name: mean_ndcg_10(dev, s, kind) for name, s in scores.items() if name != MODEL}
    other = max(value, key=lambda name: value[name])
    weight = choose_weight(dev, scores[MODEL], scores[other], kind=kind)
    both = fuse(dev, scores[MODEL], scores[other], weight=weight)
    return {
        "kind": kind,
        "other": other,
        "weight": weight,
        "dev_ndcg_10": mean_ndcg_10(dev, both, kind),
    }


def fuse_lists(
    lists: CandidateLists, scores: Mapping[str, FloatArray], fusions: pd.DataFrame
) -> FloatArray:
    """Return (n_rows,) fused scores, each list kind by its row of `choose_fusions`."""
    out = np.empty(len(lists.frame))
    for kind, other, weight in zip(
        fusions["kind"], fusions["other"], fusions["weight"], strict=True
    ):
        rows = (lists.frame["kind"] == kind).to_numpy()
        out[rows] = fuse(lists, scores[MODEL], scores[other], weight=weight)[rows]
    return out


def choose_weight(
    lists: CandidateLists, model_scores: FloatArray, other_scores: FloatArray, *, kind: str
) -> float:
    """Return the weight among 0, .05, …, 1 with the highest mean NDCG@10 on one list kind.

    The largest of tied weights is chosen: the model only, where the other scorer adds nothing.
    """
    model, other = standardise(lists, model_scores), standardise(lists, other_scores)
    value = [mean_ndcg_10(lists, w * model + (1 - w) * other, kind) for w in WEIGHTS]
    return float(max(zip(value, WEIGHTS, strict=True))[1])


def fuse(lists: CandidateLists, a: FloatArray, b: FloatArray, *, weight: float) -> FloatArray:
    """Return (n_rows,) weight * a + (1 - weight) * b, both standardised within each list."""
    return weight * standardise(lists, a) + (1 - weight) * standardise(lists, b)


def standardise(lists: CandidateLists, scores: FloatArray) -> FloatArray:
    """Return (n_rows,) scores with mean 0 and standard deviation 1 within each list.

    They are 0 in a list whose scores are all equal.
    """
    group = lists.frame.groupby(["kind", "user"]).ngroup().to_numpy()
    score = np.asarray(scores, dtype=np.float64)
    n = np.bincount(group)
    away = score - (np.bincount(group, score) / n)[group]
    spread = np.sqrt(np.bincount(group, away * away) / n)[group]
    return np.divide(away, spread, out=np.zeros_like(away), where=spread > 0)
