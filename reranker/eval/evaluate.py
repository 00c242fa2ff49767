"""From scores on frozen lists to per-user values, their means with intervals, and the lift over the best baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.config import EvalConfig
from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray
from reranker.eval import metrics, statistics
from reranker.eval.lists import Lists

Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]
MODEL = "fine_tuned"
LIFT_COLUMNS = ["kind", "over", "is_best", "lift", "low", "high"]
MAX_K = 20  # of the curve NDCG by k


@dataclass(frozen=True)
class Evaluation:
    """What a run says of its scorers.

    Attributes:
        per_user: A user in a list kind: scorer, kind, user_id, n_candidates, n_positives, tie_fraction, ap, ndcg_k of
            every cut-off, mrr_10.
        summary: A scorer in a list kind: scorer, kind, n_users, n_without_positives, map, ndcg_k, mrr_10 (means over
            users), `_low` and `_high` of map and ndcg_10 (95 %), auc, ap (over all rows), tie_fraction.
        curve: scorer, kind, k (1..20), ndcg.
        lift: The fine-tuned model's mean ndcg_10 minus another scorer's, over the same users: kind, over, is_best (the
            best of the others), lift, low, high. Empty without a fine-tuned model.
    """

    per_user: pd.DataFrame
    summary: pd.DataFrame
    curve: pd.DataFrame
    lift: pd.DataFrame


def score_lists(scorer: Scorer, tables: Tables, contexts: Contexts, lists: Lists) -> FloatArray:
    """(n_rows,) scores of every candidate for its user's context, aligned to `lists.frame`."""
    user, book = lists.frame["user"].to_numpy(), lists.frame["book"].to_numpy()
    return scorer([contexts.text[u] for u in user], contexts.candidates(tables.books, user, book).to_pylist())


def dev_scorer(
    scorer: Scorer, tables: Tables, contexts: Contexts, lists: Lists, cfg: EvalConfig
) -> Callable[[], float]:
    """A function that scores the dev lists of the headline kind afresh and returns their mean NDCG@10."""
    kind = cfg.kinds[0]
    headline = dataclasses.replace(lists, frame=lists.frame[lists.frame["kind"] == kind])
    return lambda: mean_ndcg_10(headline, score_lists(scorer, tables, contexts, headline), kind)


def mean_ndcg_10(lists: Lists, scores: FloatArray, kind: str) -> float:
    """Mean NDCG@10 over the users of one list kind: what dev lists decide by."""
    rows = (lists.frame["kind"] == kind).to_numpy()
    ranking = metrics.rank(
        lists.frame["user"].to_numpy()[rows], lists.frame["label"].to_numpy()[rows], np.asarray(scores)[rows]
    )
    return float(np.nanmean(metrics.ndcg(ranking, k=10)))


def evaluate(tables: Tables, lists: Lists, scores: dict[str, FloatArray], cfg: EvalConfig) -> Evaluation:
    """Per-user metrics of every scorer in every list kind, and what they come to.

    Args:
        scores: Scorer name -> (n_rows,) scores aligned to `lists.frame`.
    """
    per_user, summary, curve = [], [], []
    for kind, index in lists.frame.groupby("kind").indices.items():
        rows = lists.frame.iloc[index]
        for scorer, values in scores.items():
            score = np.asarray(values)[index]
            args = rows["user"].to_numpy(), rows["label"].to_numpy(), score
            users = metrics.evaluate(*args, cutoffs=cfg.cutoffs)
            users.insert(0, "scorer", scorer)
            users.insert(1, "kind", kind)
            users.insert(2, "user_id", tables.users["user_id"].to_numpy()[users.pop("group")])
            per_user.append(users)
            summary.append({"scorer": scorer, "kind": kind, **_summarise(users, rows["label"].to_numpy(), score, cfg)})
            ndcg = np.nanmean(metrics.ndcg_curve(*args, max_k=MAX_K), axis=0)
            curve.append(pd.DataFrame({"scorer": scorer, "kind": kind, "k": np.arange(1, MAX_K + 1), "ndcg": ndcg}))
    users = pd.concat(per_user, ignore_index=True)
    lift = _lift(users, cfg) if MODEL in scores else pd.DataFrame(columns=LIFT_COLUMNS)
    return Evaluation(users, pd.DataFrame(summary), pd.concat(curve, ignore_index=True), lift)


def _summarise(users: pd.DataFrame, label: np.ndarray, score: FloatArray, cfg: EvalConfig) -> dict[str, object]:
    out: dict[str, object] = {"n_users": len(users), "n_without_positives": int(users["ap"].isna().sum())}
    for name, column in (("map", "ap"), ("ndcg_10", "ndcg_10")):
        values = users[column].to_numpy()
        mean, low, high = statistics.bootstrap_mean(values, n_resamples=cfg.n_bootstrap, seed=cfg.seed)
        out |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    out |= {f"ndcg_{k}": users[f"ndcg_{k}"].mean() for k in cfg.cutoffs if k != 10}
    out |= {"mrr_10": users["mrr_10"].mean(), "tie_fraction": users["tie_fraction"].mean()}
    return out | {"auc": metrics.auc(label, score), "ap": metrics.global_average_precision(label, score)}


def _lift(per_user: pd.DataFrame, cfg: EvalConfig) -> pd.DataFrame:
    rows = []
    for kind, users in per_user.groupby("kind"):
        ndcg = users.pivot(index="user_id", columns="scorer", values="ndcg_10")
        others = [s for s in users["scorer"].unique() if s != MODEL]
        best = max(others, key=lambda s: float(ndcg[s].mean()))
        for other in others:
            lift, low, high = statistics.paired_lift(
                ndcg[MODEL].to_numpy(), ndcg[other].to_numpy(), n_resamples=cfg.n_bootstrap, seed=cfg.seed
            )
            rows.append({"kind": kind, "over": other, "is_best": other == best, "lift": lift, "low": low, "high": high})
    return pd.DataFrame(rows)
