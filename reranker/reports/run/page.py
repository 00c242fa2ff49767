"""A run's report as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import yaml

from reranker.config import Config
from reranker.redaction import redact
from reranker.reports import svg
from reranker.reports.page import count, number, render, signed
from reranker.reports.run import plots
from reranker.reports.run.examples import ExampleUsers, choose
from reranker.reports.run.list_kinds import MODEL, Drawn, Kind, best_baseline, describe
from reranker.reports.run.plots import name
from reranker.tracking.metric_names import run_name

if TYPE_CHECKING:
    from reranker.data import Contexts, Tables
    from reranker.data.draws import FloatArray
    from reranker.eval import Evaluation
    from reranker.trainer import History

FACTS = ("git_commit", "overrides", "weights", "machine", "versions", "cache_hits", "model")


@dataclass(frozen=True)
class RunSummary:
    """What a run's report is made of.

    Attributes:
        examples: List kind -> users of largest gain and loss.
        account: `result.json` as far as it is known.
    """

    cfg: Config
    evaluation: Evaluation
    examples: Mapping[str, ExampleUsers]
    history: History
    account: Mapping[str, Any]


def examples(
    evaluation: Evaluation,
    rows: pd.DataFrame,
    scores: Mapping[str, FloatArray],
    tables: Tables,
    contexts: Contexts,
) -> dict[str, ExampleUsers]:
    """For every list kind, the users for whom the fine-tuned model gains and loses most against the best baseline.

    Args:
        rows: The frozen lists' frame, to which each of `scores` is aligned.
    """
    out = {}
    for kind, lift in evaluation.lift.groupby("kind", sort=False):
        best = best_baseline(lift)
        if best is not None:
            out[str(kind)] = choose(rows, evaluation.per_user, scores, tables, contexts,
                                    kind=str(kind), ours=MODEL, theirs=best)  # fmt: skip
    return out


def page(summary: RunSummary) -> str:
    """The report as HTML; every text of the data is escaped, and secrets in URIs are masked."""
    made = set(summary.evaluation.summary["kind"])
    kinds = [
        describe(summary.evaluation, key) for key in summary.cfg.eval.list_kinds if key in made
    ]
    account = redacted(dict(summary.account))
    return render(
        "run/page.html",
        title="Run report",
        name=redact(run_name(summary.cfg, summary.account["overrides"])),
        kinds=kinds,
        tiles=_tiles(kinds[0]),
        scorer_name=name,
        examples=summary.examples,
        warnings=summary.evaluation.warnings,
        history=summary.history,
        training=_training(summary.history),
        account=account,
        first_stage=_first_stage(account["metrics"]),
        total_s=sum(account["seconds"].values()),
        facts=[(key.replace("_", " "), _plain(account[key])) for key in FACTS if account.get(key)],
        config=yaml.safe_dump(redacted(asdict(summary.cfg)), sort_keys=False, allow_unicode=True),
    )


def redacted(value: Any) -> Any:
    """The value with every text in it redacted."""
    if isinstance(value, dict):
        return {key: redacted(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return redact(value) if isinstance(value, str) else value


def _first_stage(metrics: Mapping[str, float]) -> list[tuple[str, float]]:
    """What the run logged of its first stage, as `first_stage/<name>`."""
    prefix = "first_stage/"
    return [
        (key.removeprefix(prefix), value)
        for key, value in metrics.items()
        if key.startswith(prefix)
    ]


def _tiles(kind: Kind) -> list[tuple[str, str]]:
    """The headline in numbers."""
    rows = {row["scorer"]: row for row in kind.scorers}
    shown = [
        s for s in dict.fromkeys([MODEL, "fused", kind.best or MODEL, "untrained"]) if s in rows
    ]
    tiles = [(number(rows[s]["ndcg_10"], 3), f"NDCG@10, {name(s)}") for s in shown]
    if kind.chance is not None:
        tiles.append((number(kind.chance["ndcg_10"], 3), "NDCG@10 by chance"))
    if kind.best is not None:
        tiles.append((signed(rows[kind.best]["lift"], 3), f"fine-tuned over {name(kind.best)}"))
    return [*tiles, (count(kind.n_users), "test users")]


def _training(history: History) -> Drawn | None:
    if not history.logs:
        return None
    losses = [row["loss"] for row in history.logs if "loss" in row]
    fall = f"The loss goes from {losses[0]:.3f} to {losses[-1]:.3f}. " if losses else ""
    alt = f"Training curve. {fall}Best dev NDCG@10 {history.best_dev:.3f} at step {history.best_step}."
    return Drawn(svg.draw("training", partial(plots.training, history.logs)), "Training", alt)


def _plain(value: Any) -> list[str]:
    """A fact as lines of text."""
    if isinstance(value, dict):
        return [f"{key} {inner}" for key, inner in value.items()]
    return [str(inner) for inner in value] if isinstance(value, list) else [str(value)]
