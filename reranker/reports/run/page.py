"""Render a run's report as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import yaml

from reranker.config import Config
from reranker.redaction import redact
from reranker.reports import svg
from reranker.reports.page import count, number, render, signed
from reranker.reports.run import plots
from reranker.reports.run.examples import ExampleUsers, choose_examples
from reranker.reports.run.list_kinds import (
    MODEL,
    Drawn,
    KindSummary,
    best_baseline,
    summarise_kind,
)
from reranker.reports.scorers import scorer_name
from reranker.tracking.metric_names import run_name

if TYPE_CHECKING:
    from reranker.eval import EvalSet, Evaluation
    from reranker.trainer import History

METADATA = ("git_commit", "overrides", "weights", "machine", "versions", "cache_hits", "model")


@dataclass(frozen=True)
class RunSummary:
    """What a run's page is made of.

    Attributes:
        cfg: The run's configuration.
        evaluation: Its results on the test lists.
        examples: List kind -> users with the largest gains and losses.
        history: Its training.
        result: The content of `result.json` so far.
    """

    cfg: Config
    evaluation: Evaluation
    examples: Mapping[str, ExampleUsers]
    history: History
    result: Mapping[str, Any]


def find_examples(evaluation: Evaluation, test: EvalSet) -> dict[str, ExampleUsers]:
    """Return, per list kind, the users with the largest gains and losses over the best baseline.

    Args:
        evaluation: Its lift names the best baseline of each kind.
        test: The test lists with the scores of every scorer.
    """
    out = {}
    for kind, lift in evaluation.lift.groupby("kind", sort=False):
        best = best_baseline(lift)
        if best is not None:
            pair = {"ours": MODEL, "theirs": best}
            out[str(kind)] = choose_examples(test, evaluation.per_user, kind=str(kind), **pair)
    return out


def page(summary: RunSummary) -> str:
    """Return the page as HTML; texts of the data are escaped, and secrets in URIs are masked."""
    present = set(summary.evaluation.summary["kind"])
    keys = [key for key in summary.cfg.eval.list_kinds if key in present]
    kinds = [summarise_kind(summary.evaluation, key) for key in keys]
    result = redacted(dict(summary.result))
    return render(
        "run/page.html",
        title="Run report",
        name=redact(run_name(summary.cfg, summary.result["overrides"])),
        kinds=kinds,
        tiles=_tiles(kinds[0]),
        scorer_name=scorer_name,
        examples=summary.examples,
        warnings=summary.evaluation.warnings,
        history=summary.history,
        training=_training(summary.history),
        result=result,
        first_stage=_first_stage(result["metrics"]),
        total_s=sum(result["seconds"].values()),
        metadata=[(k.replace("_", " "), _lines(result[k])) for k in METADATA if result.get(k)],
        config=yaml.safe_dump(redacted(asdict(summary.cfg)), sort_keys=False, allow_unicode=True),
    )


def redacted(value: Any) -> Any:
    """Return the value with secrets masked in every text inside it."""
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def _first_stage(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the metrics under `first_stage/`, without the prefix."""
    prefix = "first_stage/"
    return [(k.removeprefix(prefix), value) for k, value in metrics.items() if k.startswith(prefix)]


def _tiles(kind: KindSummary) -> list[tuple[str, str]]:
    """Return the headline numbers with their labels."""
    rows = {row["scorer"]: row for row in kind.scorers}
    wanted = dict.fromkeys([MODEL, "fused", kind.best or MODEL, "untrained"])
    shown = [s for s in wanted if s in rows]
    tiles = [(number(rows[s]["ndcg_10"], 3), f"NDCG@10, {scorer_name(s)}") for s in shown]
    if kind.chance is not None:
        tiles.append((number(kind.chance["ndcg_10"], 3), "NDCG@10 by chance"))
    if kind.best is not None:
        lift = signed(rows[kind.best]["lift"], 3)
        tiles.append((lift, f"fine-tuned minus {scorer_name(kind.best)}"))
    return [*tiles, (count(kind.n_users), "test users")]


def _training(history: History) -> Drawn | None:
    if not history.logs:
        return None
    losses = [row["loss"] for row in history.logs if "loss" in row]
    loss = f"The loss goes from {losses[0]:.3f} to {losses[-1]:.3f}. " if losses else ""
    best = f"Best dev NDCG@10 {history.best_dev:.3f} at step {history.best_step}."
    figure = svg.draw("training", partial(plots.training, history.logs))
    return Drawn(figure, "Training", f"Training curve. {loss}{best}")


def _lines(value: Any) -> list[str]:
    """Return a value of `result.json` as lines of text."""
    if isinstance(value, dict):
        return [f"{key} {inner}" for key, inner in value.items()]
    return [str(inner) for inner in value] if isinstance(value, list) else [str(value)]
