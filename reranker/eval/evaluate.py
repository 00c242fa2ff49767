"""From scores on frozen lists to per-user values, their means with intervals, and the lift over the best baseline."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pandas as pd

from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.data.draws import BoolArray, FloatArray, IntArray
from reranker.eval import checks as score_checks
from reranker.eval import metrics, slices, statistics
from reranker.eval.first_stage import depth_curve, summarise_first_stage
from reranker.eval.lists import CandidateLists
from reranker.eval.scoring import (
    MODEL,
    MODELS,
)

LIFT_COLUMNS = ["kind", "model", "over", "is_best", "lift", "low", "high"]
MEANS = (
    "mrr_10",
    "recall_10",
    "hit_10",
    "precision_10",
    "ndcg_exp_10",
    "tie_fraction",
)  # told without an interval
MAX_K = 20  # of the curve NDCG by k
K = range(1, MAX_K + 1)


def _empty(*columns: str) -> Callable[[], pd.DataFrame]:
    return partial(pd.DataFrame, columns=list(columns))


@dataclass(frozen=True)
class Evaluation:
    """What a run says of its scorers. Every `low` and `high` is the end of a 95 % interval over users.

    Attributes:
        per_user: A user in a list kind: scorer, kind, user_id, n_candidates, n_positives, tie_fraction, ap, ndcg_k of
            every cut-off, mrr_10, recall_10, hit_10, precision_10, ndcg_exp_10, n_context_books, and of the list's
            positives mean_target_popularity, has_same_author, n_cold.
        summary: A scorer in a list kind: scorer, kind, n_users, n_without_positives, map, ndcg_k, mrr_10, recall_10,
            hit_10, precision_10, ndcg_exp_10, tie_fraction (means over users), `_low` and `_high` of map and ndcg_10,
            auc, ap (over all rows).
        curve: scorer, kind, k (1..20), ndcg.
        lift: A model's mean ndcg_10 minus a baseline's, over the same users: kind, model (fine_tuned or fused), over,
            is_best (the best of the baselines), lift, low, high. Empty without a model.
        bands: scorer, kind, k, low, high of the curves of the models and of the best baseline.
        checks: What is left of the fine-tuned model without the reader's own context: kind, check (shuffled_contexts or
            blank_context), metric, value, own_value, gap (own_value - value), low, high.
        slices: scorer, kind, slice (history_length, target_popularity, same_author, without_same_author, cold_books or
            truncated), bin, step (the bin as a number), n_users, ndcg_10, low, high, chance (ndcg_10 of a constant
            scorer in the bin), for the fine-tuned model and the best baseline.
        calibration: The fine-tuned model's, in 10 bins of equal counts: kind, bin, mean_probability,
            positive_fraction, n_rows.
        score_distribution: scorer, kind, mean, std, min, max, unique_fraction.
        depth: Of retriever lists, from `depth_curve`: scorer, depth, ndcg_10, recall_10, ndcg_10_retrieved.
        chance: kind, ndcg_10, map of a constant scorer.
        first_stage: Of retriever lists, from `summarise_first_stage`.
        warnings: What is wrong with the fine-tuned model's scores, a sentence each.
    """

    per_user: pd.DataFrame
    summary: pd.DataFrame
    curve: pd.DataFrame
    lift: pd.DataFrame = field(default_factory=_empty(*LIFT_COLUMNS))
    bands: pd.DataFrame = field(default_factory=_empty("scorer", "kind", "k", "low", "high"))
    checks: pd.DataFrame = field(default_factory=_empty(*score_checks.COLUMNS))
    slices: pd.DataFrame = field(
        default_factory=_empty(
            "scorer", "kind", "slice", "bin", "step", "n_users", "ndcg_10", "low", "high", "chance"
        )
    )
    calibration: pd.DataFrame = field(
        default_factory=_empty("kind", "bin", "mean_probability", "positive_fraction", "n_rows")
    )
    score_distribution: pd.DataFrame = field(
        default_factory=_empty("scorer", "kind", "mean", "std", "min", "max", "unique_fraction")
    )
    depth: pd.DataFrame = field(default_factory=_empty("scorer", "depth", "ndcg_10"))
    chance: pd.DataFrame = field(default_factory=_empty("kind", "ndcg_10", "map"))
    first_stage: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


def evaluate(
    tables: Tables,
    lists: CandidateLists,
    scores: Mapping[str, FloatArray],
    cfg: EvalConfig,
    *,
    checks: pd.DataFrame | None = None,
    truncated: BoolArray | None = None,
    activation: str = "identity",
) -> Evaluation:
    """Per-user metrics of every scorer in every list kind, and what they come to.

    Args:
        scores: Scorer name -> (n_rows,) scores aligned to `lists.frame`. A baseline that is NaN throughout a list
            kind does not score that kind, and is left out there.
        checks: From `check_contexts`.
        truncated: (n_rows,) from `truncated_rows`; without it there is no such slice.
        activation: `model.activation`, by which the fine-tuned scores are logits or probabilities.
    """
    parts: dict[str, list[pd.DataFrame]] = {}
    warnings: list[str] = []
    for kind, index in lists.frame.groupby("kind").indices.items():
        rows = lists.frame.iloc[index].reset_index(drop=True)
        own = {name: np.asarray(values)[index] for name, values in scores.items()}
        own = {
            name: values
            for name, values in own.items()
            if name == MODEL or not np.isnan(values).all()
        }
        frames = _evaluate_kind(
            tables, rows, own, cfg, None if truncated is None else truncated[index]
        )
        if MODEL in own:
            frames["calibration"] = score_checks.calibrate(
                rows["label"].to_numpy(), own[MODEL], activation
            )
            warnings += [
                f"{kind} lists: {w}"
                for w in score_checks.find_score_problems(own[MODEL], own.get("untrained"))
            ]
        for name, frame in frames.items():
            if len(frame):
                frame.insert(int(frame.columns[0] == "scorer"), "kind", str(kind))
                parts.setdefault(name, []).append(frame)
    joined = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    if checks is not None:
        joined["checks"] = checks
    first_stage: dict[str, float] = {}
    if (lists.frame["kind"] == "retriever").any():
        joined["depth"] = depth_curve(tables, lists, scores)
        first_stage = summarise_first_stage(tables, lists)
    return Evaluation(**joined, first_stage=first_stage, warnings=tuple(warnings))


def _evaluate_kind(
    tables: Tables,
    rows: pd.DataFrame,
    scores: dict[str, FloatArray],
    cfg: EvalConfig,
    truncated: BoolArray | None,
) -> dict[str, pd.DataFrame]:
    """Frames of `Evaluation` by name, for one list kind, without the column kind."""
    user, label = rows["user"].to_numpy(), rows["label"].to_numpy()
    positives = slices.describe_positives(tables, rows, truncated)
    users = {
        name: metrics.evaluate(user, label, values, cutoffs=cfg.cutoffs)
        for name, values in scores.items()
    }
    curves = {
        name: metrics.ndcg_curve(user, label, values, max_k=MAX_K)
        for name, values in scores.items()
    }
    best = _best(
        {
            name: float(frame["ndcg_10"].mean())
            for name, frame in users.items()
            if name not in MODELS
        }
    )
    told = [name for name in scores if name in (*MODELS, best)]
    return {
        "per_user": _per_user(tables, users, positives),
        "summary": pd.DataFrame(
            {"scorer": name, **_summarise(frame, label, scores[name], cfg)}
            for name, frame in users.items()
        ),
        "curve": pd.concat(
            pd.DataFrame({"scorer": name, "k": K, "ndcg": pd.DataFrame(values).mean()})
            for name, values in curves.items()
        ),
        "bands": pd.DataFrame([row for name in told for row in _bands(name, curves[name], cfg)]),
        "lift": pd.DataFrame(
            _lift({name: frame["ndcg_10"].to_numpy() for name, frame in users.items()}, best, cfg)
        ),
        "slices": slices.evaluate_slices(
            rows, positives, {name: scores[name] for name in told if name in (MODEL, best)}, cfg
        ),
        "score_distribution": score_checks.describe_scores(scores),
        "chance": _chance(user, label),
    }


def _best(means: dict[str, float]) -> str | None:
    return max(means, key=lambda name: means[name]) if means else None


def _per_user(
    tables: Tables, users: dict[str, pd.DataFrame], positives: pd.DataFrame
) -> pd.DataFrame:
    """Every scorer's users, under their ids, with what slices go by."""
    frame = pd.concat({name: frame for name, frame in users.items()}, names=["scorer"]).reset_index(
        level=0
    )
    group = frame.pop("group").to_numpy()
    frame.insert(1, "user_id", tables.users["user_id"].to_numpy()[group])
    return frame.assign(**slices.user_columns(tables, group, positives))


def _chance(user: IntArray, label: IntArray) -> pd.DataFrame:
    constant = metrics.chance(user, label, cutoffs=[10])
    return pd.DataFrame({"ndcg_10": [constant["ndcg_10"].mean()], "map": [constant["ap"].mean()]})


def _bands(scorer: str, curve: FloatArray, cfg: EvalConfig) -> Iterator[dict[str, object]]:
    for k in K:
        _, low, high = statistics.bootstrap_mean(
            curve[:, k - 1], n_resamples=cfg.n_bootstrap, seed=cfg.seed
        )
        yield {"scorer": scorer, "k": k, "low": low, "high": high}


def _summarise(
    users: pd.DataFrame, label: np.ndarray, score: FloatArray, cfg: EvalConfig
) -> dict[str, object]:
    out: dict[str, object] = {
        "n_users": len(users),
        "n_without_positives": int(users["ap"].isna().sum()),
    }
    for name, column in (("map", "ap"), ("ndcg_10", "ndcg_10")):
        values = users[column].to_numpy()
        mean, low, high = statistics.bootstrap_mean(
            values, n_resamples=cfg.n_bootstrap, seed=cfg.seed
        )
        out |= {name: mean, f"{name}_low": low, f"{name}_high": high}
    out |= {f"ndcg_{k}": users[f"ndcg_{k}"].mean() for k in cfg.cutoffs if k != 10}
    out |= {name: users[name].mean() for name in MEANS}
    return out | {
        "auc": metrics.auc(label, score),
        "ap": metrics.global_average_precision(label, score),
    }


def _lift(
    ndcg: dict[str, FloatArray], best: str | None, cfg: EvalConfig
) -> Iterator[dict[str, object]]:
    """Every model over every baseline, of the same users in the same order."""
    for model in (name for name in MODELS if name in ndcg):
        for other in (name for name in ndcg if name not in MODELS):
            lift, low, high = statistics.paired_lift(
                ndcg[model], ndcg[other], n_resamples=cfg.n_bootstrap, seed=cfg.seed
            )
            row = {"model": model, "over": other, "is_best": other == best}
            yield {**row, "lift": lift, "low": low, "high": high}
