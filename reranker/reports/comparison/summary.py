"""Print a comparison: the configurations, their differences from the first, and the power."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from reranker.reports.comparison.compare import Comparison
from reranker.terminal import make_table, visible

ALPHA = 0.05  # of significance
Row = dict[str, Any]


def print_comparison(comparison: Comparison, *, console: Console | None = None) -> None:
    """Print the configurations with their numbers and, for each list kind, tables and sentences."""
    out = console or Console(highlight=False, markup=False)
    out.print("configurations:", style="bold")
    for number, configuration in enumerate(comparison.configurations, start=1):
        runs = ", ".join(run_id[:8] for run_id in configuration.run_ids)
        role = " (reference for all others)" if number == 1 else ""
        name = f"{visible(configuration.name)}{role}"
        n_runs = plural(len(configuration.run_ids), "run")
        out.print(f"  {number}  {name}: {n_runs} {runs}", soft_wrap=True)
    for kind in comparison.table["kind"].unique():
        _print_kind(out, comparison, kind)
    for kind, reason in comparison.refused.items():
        out.print(f"no comparison on {kind} lists: {reason}", soft_wrap=True, style="yellow")
    out.print(f"\n{selection(comparison)}", soft_wrap=True)


def _print_kind(out: Console, comparison: Comparison, kind: str) -> None:
    rows = number_rows(comparison.table, kind)
    lists = f"{kind} lists, {rows[0]['n_users']} users"
    title = f"{comparison.metric} of {comparison.scorer}, {lists}"
    note = "95 % intervals, p by paired permutation test"
    out.print(f"\n{title}: {note}", style="bold", soft_wrap=True)
    out.print(_table(DIFFERENCE, rows))
    out.print(_table(POWER, rows[1:]))
    for line in sentences(comparison, kind):
        out.print(line, soft_wrap=True)


def number_rows(table: pd.DataFrame, kind: str) -> list[Row]:
    """Return the rows of a list kind, each with its configuration's number, from 1."""
    rows: list[Row] = table[table["kind"] == kind].to_dict("records")
    return [{"number": number, **row} for number, row in enumerate(rows, start=1)]


def sentences(comparison: Comparison, kind: str) -> list[str]:
    """Return the results of a list kind in words, one sentence per configuration and seed set."""
    _, *others = number_rows(comparison.table, kind)
    lines = [
        f"{row['number']} {_relation(row)} 1: {difference(row)}{_seeds(row)}." for row in others
    ]
    for row in comparison.together.to_dict("records"):
        if row["kind"] == kind:
            mean = f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}] (users and seeds)"
            std = f"standard deviation of the seeds {row['seed_std']:.4f}"
            lines.append(f"Over {row['n_seeds']} seeds: {mean}, {std}.")
    return lines


def selection(comparison: Comparison) -> str:
    """Return which configuration the dev lists select, in a sentence."""
    if comparison.best is None:
        return (
            "No configuration is selected: the runs have different dev lists, or no values on them."
        )
    number = [c.name for c in comparison.configurations].index(comparison.best) + 1
    best = f"{number}, {visible(comparison.best)}"
    return f"The dev lists select {best}; the test lists only confirm the selection."


def difference(row: Row) -> str:
    """Return a row's difference from the reference, with its interval if it has one."""
    low, high = row["difference_low"], row["difference_high"]
    interval = "" if math.isnan(low) else f" [{low:+.4f}, {high:+.4f}]"
    return f"{row['difference']:+.4f}{interval}"


def plural(n: int, noun: str) -> str:
    """Return a number with its noun: `1 run`, `2 runs`."""
    return f"{n} {noun}{'s' if n > 1 else ''}"


def is_significant(row: Row) -> bool:
    """Return whether a row differs significantly from the reference.

    This needs p after Holm's correction below 5 % and an interval without 0. The p-value is over
    users only; the interval may include the variation of seeds but is not corrected for the number
    of comparisons.
    """
    return bool(row["p_holm"] < ALPHA and (row["difference_low"] > 0 or row["difference_high"] < 0))


def _relation(row: Row) -> str:
    if not is_significant(row):
        return "does not differ significantly from"
    return "is better than" if row["difference"] > 0 else "is worse than"


def _seeds(row: Row) -> str:
    if row["n_seeds"] == 1:
        return ""
    std = f"standard deviation {row['seed_std']:.4f}"
    return f" (over {row['n_seeds']} seeds, {std}; interval over {row['interval_over']})"


Columns = dict[str, Callable[[Row], str]]
DIFFERENCE: Columns = {
    "": lambda row: f"{row['number']}",
    "mean": lambda row: f"{row['mean']:.4f}",
    "difference": difference,
    "p": lambda row: f"{row['p']:.4f}",
    "Holm": lambda row: f"{row['p_holm']:.4f}",
    "effect": lambda row: f"{row['effect_size']:+.2f}",
}
POWER: Columns = {
    "": lambda row: f"{row['number']}",
    "won/tied/lost": lambda row: f"{row['n_wins']:.0f}/{row['n_ties']:.0f}/{row['n_losses']:.0f}",
    "detectable (80 % power)": lambda row: f"{row['minimal_detectable']:.4f}",
    "users needed": lambda row: f"{row['n_users_needed']:,.0f}",
}
_OF_REFERENCE = ("", "mean")  # the columns that the reference has


def _table(columns: Columns, rows: Sequence[Row]) -> Table:
    def cell(name: str, row: Row) -> str:
        text = columns[name](row) if row["number"] > 1 or name in _OF_REFERENCE else ""
        return "" if "nan" in text else text

    return make_table(list(columns), [[cell(name, row) for name in columns] for row in rows])
