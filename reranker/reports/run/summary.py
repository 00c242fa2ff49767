"""Print a run's results: a table of scorers per list kind, the lift, and the next commands."""

from __future__ import annotations

import math
import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from reranker.redaction import redact
from reranker.reports.scorers import find_scorer, scorer_name
from reranker.terminal import make_table
from reranker.tracking.store import default_uri

if TYPE_CHECKING:
    import pandas as pd

    from reranker.config import Config
    from reranker.eval import Evaluation
    from reranker.serving.registry import Registered

# Columns after NDCG@10. The table fits in 80 characters because values have no leading zero.
METRICS = {"ndcg_5": "@5", "ndcg_3": "@3", "map": "MAP", "ap": "AP", "auc": "AUC"}
NOTE = "@5 and @3 are NDCG; AP and AUC are over all pairs, not means over users."


def print_summary(
    evaluation: Evaluation,
    registered: Registered | None,
    cfg: Config,
    *,
    console: Console | None = None,
) -> None:
    """Print a table and verdicts for each list kind, the model's URI, and two commands to run next.

    An evaluation without training registers no model; it has no URI and no commands.

    Example:
        >>> print_summary(evaluation, registered, cfg)
        uniform lists of 30, 50 test users, means with 95 % intervals
          scorer            NDCG@10     @5     @3    MAP     AP    AUC
          ...
    """
    out = console or Console(highlight=False)
    for kind in cfg.eval.list_kinds:
        out.print(_table(evaluation.summary[evaluation.summary["kind"] == kind], kind, cfg))
        lift = evaluation.lift[evaluation.lift["kind"] == kind]
        out.print(verdict(lift), soft_wrap=True, markup=False)
    out.print(NOTE, style="dim")
    if registered is None:
        return
    out.print(f"\nmodel {registered.uri}: {_alias(registered, cfg)}", soft_wrap=True)
    out.print("next:", style="bold")
    for line in next_commands(registered, cfg):
        out.print(f"  {line}", soft_wrap=True, markup=False)


def _table(summary: pd.DataFrame, kind: str, cfg: Config) -> Table:
    rows = summary.sort_values("ndcg_10").to_dict("records")
    return make_table(
        ("scorer", "NDCG@10", *METRICS.values()),
        [_cells(row) for row in rows],
        title=f"{_lists(kind, cfg)}, {rows[0]['n_users']} test users, means with 95 % intervals",
        bold=[i for i, row in enumerate(rows) if row["scorer"] == "fine_tuned"],
    )


def _lists(kind: str, cfg: Config) -> str:
    """Return the name of a list kind with its length; lists of a pairs file have any length."""
    if kind == "given":
        return "held-out pairs of sampling.path"
    return f"{kind} lists of {cfg.eval.n_candidates}"


def _cells(row: dict[Any, Any]) -> list[str]:
    low, high = row["ndcg_10_low"], row["ndcg_10_high"]
    interval = "(no interval)" if math.isnan(low) else f"[{_short(low)}, {_short(high)}]"
    others = (_short(row[key]) if key in row else "" for key in METRICS)
    return [scorer_name(row["scorer"]), f"{_short(row['ndcg_10'])} {interval}", *others]


def _short(value: float) -> str:
    """Return three decimals without the zero before the point: .369, 1.000, -.012."""
    return f"{value:.3f}".replace("0.", ".", 1) if abs(value) < 1 else f"{value:.3f}"


def verdict(lift: pd.DataFrame) -> str:
    """Return a line per model that compares it with the best baseline."""
    return "\n".join(_verdict(best) for best in lift[lift["is_best"]].to_dict("records"))


def _verdict(best: dict[Any, Any]) -> str:
    name = find_scorer(best["model"]).full_name
    model = name[0].upper() + name[1:]
    baseline, low, high = scorer_name(best["over"]), best["low"], best["high"]
    if math.isnan(low):
        return (
            f"{model} against the best baseline, {baseline}: NDCG@10 {best['lift']:+.3f}; "
            "an interval needs at least two test users with a positive."
        )
    verb = "beats" if low > 0 else "loses to" if high < 0 else "does not differ significantly from"
    return (
        f"{model} {verb} the best baseline, {baseline}: "
        f"NDCG@10 {best['lift']:+.3f} [{low:+.3f}, {high:+.3f}] (95 %, paired over users)."
    )


def _alias(registered: Registered, cfg: Config) -> str:
    if registered.version is None:
        return registered.reason
    alias = cfg.tracking.alias
    status = f"now {alias}" if registered.alias_moved else f"not {alias}"
    return f"{status} ({registered.reason})"


def next_commands(registered: Registered, cfg: Config) -> list[str]:
    """Return commands for the checkout that open the UI and rerank with this run's model."""
    tracking = cfg.tracking
    alias = f"models:/{tracking.registered_model}@{tracking.alias}"
    uri = alias if registered.alias_moved else registered.uri
    other_store = tracking.uri != default_uri()
    store = f" --tracking-uri {shlex.quote(redact(tracking.uri))}" if other_store else ""
    return [
        f".venv/bin/reranker ui{store}",
        f".venv/bin/reranker rerank{store} --model {shlex.quote(uri)} "
        "--user-ctx 'Likes: Dune by Frank Herbert. Genres: science fiction' "
        "--candidate 'Title: Hyperion | Genres: science fiction' "
        "--candidate 'Title: Emma | Genres: romance'",
    ]
