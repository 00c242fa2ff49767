"""A comparison in the terminal: what each configuration is, how it differs from the first, and what that took."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from reranker.reports.comparison.runs import Comparison

ALPHA = 0.05  # of the words "better" and "worse"
Row = dict[str, Any]


def report(comparison: Comparison, console: Console | None = None) -> None:
    """Print the configurations by number and, for each list kind, two tables and what they come to."""
    out = console or Console(highlight=False, markup=False)
    out.print("configurations:", style="bold")
    for number, configuration in enumerate(comparison.configurations, start=1):
        runs = ", ".join(run_id[:8] for run_id in configuration.run_ids)
        role = " (reference: all others against it)" if number == 1 else ""
        line = f"  {number}  {printable(configuration.name)}{role}: {n_of(configuration.run_ids, 'run')} {runs}"
        out.print(line, soft_wrap=True)
    for kind in comparison.table["kind"].unique():
        rows = numbered(comparison.table, kind)
        title = (
            f"{comparison.metric} of {comparison.scorer}, {kind} lists, {rows[0]['n_users']} users"
        )
        out.print(
            f"\n{title}: 95 % intervals, p by paired permutation", style="bold", soft_wrap=True
        )
        out.print(_table(DIFFERENCE, rows))
        out.print(_table(POWER, rows[1:]))
        for line in sentences(comparison, kind):
            out.print(line, soft_wrap=True)
    for kind, reason in comparison.refused.items():
        out.print(f"no comparison on {kind} lists: {reason}", soft_wrap=True, style="yellow")
    out.print(f"\n{chosen(comparison)}", soft_wrap=True)


def numbered(table: pd.DataFrame, kind: str) -> list[Row]:
    """The rows of a list kind, each with its configuration's number, from 1."""
    rows: list[Row] = table[table["kind"] == kind].to_dict("records")
    return [{"number": number, **row} for number, row in enumerate(rows, start=1)]


def sentences(comparison: Comparison, kind: str) -> list[str]:
    """What the numbers of a list kind come to, in words: a line for each configuration but the reference."""
    _, *others = numbered(comparison.table, kind)
    lines = [
        f"{row['number']} is {_word(row)} 1: {ends(row, 'difference')}{_seeds(row)}."
        for row in others
    ]
    for row in comparison.together.to_dict("records"):
        if row["kind"] == kind:
            own = f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
            lines.append(
                f"Over {row['n_seeds']} seeds: {own} (users and seeds), seeds' std {row['seed_std']:.4f}."
            )
    return lines


def chosen(comparison: Comparison) -> str:
    """Which configuration the dev lists choose, in a sentence."""
    if comparison.best is None:
        return (
            "No configuration is chosen: the runs have not the same dev lists, or no value on them."
        )
    number = [c.name for c in comparison.configurations].index(comparison.best) + 1
    return f"The dev lists choose {number}, {printable(comparison.best)}; the test lists above only confirm."


def ends(row: Row, name: str) -> str:
    """A difference with its interval, where there is one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return f"{row[name]:+.4f}" + ("" if math.isnan(low) else f" [{low:+.4f}, {high:+.4f}]")


def printable(text: str) -> str:
    """The text without control characters: a param's value must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def n_of(things: tuple[str, ...], what: str) -> str:
    """How many, with an s for several."""
    return f"{len(things)} {what}{'s' if len(things) > 1 else ''}"


def told_apart(row: Row) -> bool:
    """Whether a row differs from the reference beyond doubt: p after Holm is below 5 %, and the interval leaves out 0.

    Both are asked for: p knows users alone, the interval may know seeds too and nothing of the family.
    """
    return bool(row["p_holm"] < ALPHA and (row["difference_low"] > 0 or row["difference_high"] < 0))


def _word(row: Row) -> str:
    if not told_apart(row):
        return "not told apart from"
    return "better than" if row["difference"] > 0 else "worse than"


def _seeds(row: Row) -> str:
    if row["n_seeds"] == 1:
        return ""
    return f" (over {row['n_seeds']} seeds, std {row['seed_std']:.4f}; interval over {row['interval_over']})"


DIFFERENCE = {
    "": lambda row: f"{row['number']}",
    "mean": lambda row: f"{row['mean']:.4f}",
    "difference": lambda row: ends(row, "difference"),
    "p": lambda row: f"{row['p']:.4f}",
    "Holm": lambda row: f"{row['p_holm']:.4f}",
    "effect": lambda row: f"{row['effect_size']:+.2f}",
}
POWER = {
    "": lambda row: f"{row['number']}",
    "won/tied/lost": lambda row: f"{row['n_wins']:.0f}/{row['n_ties']:.0f}/{row['n_losses']:.0f}",
    "detectable (80 % power)": lambda row: f"{row['minimal_detectable']:.4f}",
    "users this difference needs": lambda row: f"{row['n_users_needed']:,.0f}",
}
_OWN = ("", "mean")  # what the reference has


def _table(columns: dict[str, Any], rows: list[Row]) -> Table:
    table = Table(box=SIMPLE_HEAD)  # 80 columns hold it
    for name in columns:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        cells = [
            show(row) if row["number"] > 1 or name in _OWN else "" for name, show in columns.items()
        ]
        table.add_row(*("" if "nan" in cell else cell for cell in cells))
    return table
