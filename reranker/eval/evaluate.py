"""From scores on candidate lists to per-user metrics, means with intervals, and lifts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import numpy as np
import pandas as pd

from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.data.draws import BoolArray, FloatArray, IntArray
from reranker.eval import checks as score_checks
from reranker.eval import metrics, slices, statistics
from reranker.eval.eval_set import EvalSet
from reranker.eval.first_stage import depth_curve, summarise_first_stage
from reranker.eval.scoring import MODEL, MODELS

LIFT_COLUMNS = ["kind", "model", "over", "is_best", "lift", "low", "high"]
# Means that are reported without an interval.
MEANS = ("mrr_10", "recall_10", "hit_10", "precision_10", "ndcg_exp_10", "tie_fraction")
MAX_K = 20  # of the curves of NDCG and MAP by k
K = range(1, MAX_K + 1)


class ScoringModel(slices.Truncates, Protocol):
    """The part of `model.Encoder` that an evaluation uses."""

    def score(
        self, queries: Sequence[str], candidates: Sequence[str], *, progress: str | None = None
    ) -> FloatArray: ...


def _empty(*columns: str) -> Callable[[], pd.DataFrame]:
    return partial(pd.DataFrame, columns=list(columns))


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation. `low` and `high` are ends of 95 % intervals over users.

    Attributes:
        per_user: A row per scorer, list kind and user: scorer, kind, user_id, n_candidates,
            n_positives, tie_fraction, ap, ndcg_k of every cut-off, mrr_10, recall_10, hit_10,
            precision_10, ndcg_exp_10, n_context_books; over the list's positives
            mean_target_popularity, has_same_author, n_cold.
        summary: A row per scorer and list kind: scorer, kind, n_users, n_without_positives; means
            over users of map, ndcg_k, mrr_10, recall_10, hit_10, precision_10, ndcg_exp_10,
            tie_fraction, with `_low` and `_high` of map and ndcg_10; auc, ap over all rows.
        curve: scorer, kind, k (1..20), ndcg, map (cut at k).
        lift: The mean ndcg_10 of a model minus that of a baseline, over the same users: kind, model
            (fine_tuned or fused), over, is_best (whether it is the best baseline), lift, low, high.
            Empty without a model.
        bands: scorer, kind, k, low, high of the NDCG of the models and of the best baseline.
        checks: From `check_contexts`: kind, check (shuffled_contexts or blank_context), metric,
            value, own_value, gap (own_value - value), low, high.
        slices: For the fine-tuned model and the best baseline: scorer, kind, slice (history_length,
            target_popularity, same_author, without_same_author, cold_books or truncated), bin, step
            (the bin as a number), n_users, ndcg_10, low, high, chance (ndcg_10 of a constant scorer
            in the bin).
        calibration: The fine-tuned model's, in 10 bins of equal counts: kind, bin,
            mean_probability, positive_fraction, n_rows.
        score_distribution: scorer, kind, mean, std, min, max, unique_fraction.
        depth: From `depth_curve` on retriever lists: scorer, depth, ndcg_10, recall_10,
            ndcg_10_retrieved.
        chance: kind, ndcg_10, map of a constant scorer.
        first_stage: From `summarise_first_stage` on retriever lists.
        warnings: A sentence for each problem of the fine-tuned model's scores.
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
    eval_set: EvalSet, model: ScoringModel | None = None, activation: str = "identity"
) -> Evaluation:
    """Return per-user metrics of every scorer in every list kind, their means and lifts.

    A baseline whose scores in a list kind are all NaN does not score that kind and is left out.

    Args:
        eval_set: The test lists with the scores of every scorer.
        model: The fine-tuned encoder. Without it there are no context checks and no slice of
            truncated pairs.
        activation: `model.activation` of the fine-tuned scores.

    Example:
        >>> test.scores["fine_tuned"] = test.score(encoder.score)
        >>> evaluate(test, encoder).summary[["scorer", "kind", "ndcg_10"]]
    """
    checks, truncated = None, None
    if model is not None:
        scorer = partial(model.score, progress="scoring")
        checks = score_checks.check_contexts(scorer, eval_set, eval_set.scores[MODEL])
        truncated = slices.truncated_rows(eval_set, model)
    parts: dict[str, list[pd.DataFrame]] = {}
    warnings: list[str] = []
    for kind, index in eval_set.rows.groupby("kind").indices.items():
        own = _scores_of_kind(eval_set.scores, index)
        of_kind = None if truncated is None else truncated[index]
        rows = eval_set.rows.iloc[index].reset_index(drop=True)
        frames = _evaluate_kind(eval_set.tables, rows, own, cfg=eval_set.cfg, truncated=of_kind)
        if MODEL in own:
            label = rows["label"].to_numpy()
            frames["calibration"] = score_checks.calibrate(label, own[MODEL], activation)
            problems = score_checks.find_score_problems(own[MODEL], own.get("untrained"))
            warnings += [f"{kind} lists: {problem}" for problem in problems]
        for name, frame in frames.items():
            if len(frame):
                frame.insert(int(frame.columns[0] == "scorer"), "kind", str(kind))
                parts.setdefault(name, []).append(frame)
    joined = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    if checks is not None:
        joined["checks"] = checks
    first_stage: dict[str, float] = {}
    if (eval_set.rows["kind"] == "retriever").any():
        joined["depth"] = depth_curve(eval_set.tables, eval_set.lists, eval_set.scores)
        first_stage = summarise_first_stage(eval_set.tables, eval_set.lists)
    return Evaluation(**joined, first_stage=first_stage, warnings=tuple(warnings))


def _scores_of_kind(scores: Mapping[str, FloatArray], index: IntArray) -> dict[str, FloatArray]:
    """Return the scores of one list kind, without baselines that do not score it."""
    own = {name: np.asarray(values)[index] for name, values in scores.items()}
    return {n: values for n, values in own.items() if n == MODEL or not np.isnan(values).all()}


def _evaluate_kind(
    tables: Tables,
    rows: pd.DataFrame,
    scores: dict[str, FloatArray],
    *,
    cfg: EvalConfig,
    truncated: BoolArray | None,
) -> dict[str, pd.DataFrame]:
    """Return the frames of `Evaluation` by name, for one list kind, without the column kind."""
    user, label = rows["user"].to_numpy(), rows["label"].to_numpy()
    positives = slices.describe_positives(tables, rows, truncated)
    users = {n: metrics.evaluate(user, label, s, cutoffs=cfg.cutoffs) for n, s in scores.items()}
    curves = {n: metrics.curves(user, label, s, max_k=MAX_K) for n, s in scores.items()}
    ndcg = {name: frame["ndcg_10"].to_numpy() for name, frame in users.items()}
    best = _best({n: float(users[n]["ndcg_10"].mean()) for n in users if n not in MODELS})
    shown = [name for name in scores if name in (*MODELS, best)]
    sliced = {name: scores[name] for name in shown if name in (MODEL, best)}
    summary = ({"scorer": n, **_summarise(users[n], label, scores[n], cfg=cfg)} for n in users)
    curve = (
        pd.DataFrame(
            {"scorer": n, "k": K, "ndcg": pd.DataFrame(v).mean(), "map": pd.DataFrame(p).mean()}
        )
        for n, (v, p) in curves.items()
    )
    return {
        "per_user": _per_user(tables, users, positives),
        "summary": pd.DataFrame(summary),
        "curve": pd.concat(curve),
        "bands": pd.DataFrame(
            [row for name in shown for row in _bands(name, curves[name][0], cfg)]
        ),
        "lift": pd.DataFrame(_lift(ndcg, best, cfg)),
        "slices": slices.evaluate_slices(rows, positives, sliced, cfg),
        "score_distribution": score_checks.describe_scores(scores),
        "chance": _chance(user, label),
    }


def _best(means: dict[str, float]) -> str | None:
    return max(means, key=lambda name: means[name]) if means else None


def _per_user(
    tables: Tables, users: dict[str, pd.DataFrame], positives: pd.DataFrame
) -> pd.DataFrame:
    """Return the per-user metrics of all scorers, with user ids and the columns of slices."""
    frame = pd.concat({name: frame for name, frame in users.items()}, names=["scorer"]).reset_index(
        level=0
    )
    group = frame.pop("group").to_numpy()
    frame.insert(1, "user_id", tables.user_ids(group))
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
    users: pd.DataFrame, label: IntArray, score: FloatArray, *, cfg: EvalConfig
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
    """Yield the lift of every model over every baseline; users are in the same order."""
    for model in (name for name in MODELS if name in ndcg):
        for other in (name for name in ndcg if name not in MODELS):
            lift, low, high = statistics.paired_lift(
                ndcg[model], ndcg[other], n_resamples=cfg.n_bootstrap, seed=cfg.seed
            )
            row = {"model": model, "over": other, "is_best": other == best}
            yield {**row, "lift": lift, "low": low, "high": high}
