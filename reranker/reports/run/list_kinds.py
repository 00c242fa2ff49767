"""What a run's report says of one list kind: the verdict in words, the tables, and the figures with what they show."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from reranker.reports import svg
from reranker.reports.page import number, signed
from reranker.reports.run import plots
from reranker.reports.run.plots import name

if TYPE_CHECKING:
    from reranker.eval import Evaluation

MODEL = "fine_tuned"
MODELS = {MODEL: "the fine-tuned model", "fused": "the fused model"}
KINDS = {
    "uniform": "uniform lists",
    "popularity": "popularity-matched lists",
    "retriever": "the retriever's lists",
    "bookdb": "lists of the original system's protocol",
}
COLUMNS = {
    "ndcg_3": "NDCG@3",
    "ndcg_5": "NDCG@5",
    "mrr_10": "MRR@10",
    "recall_10": "recall@10",
    "hit_10": "hit@10",
    "auc": "AUC",
    "tie_fraction": "ties",
}
SLICES = {
    "history_length": ("By history length", "context books of the user"),
    "target_popularity": ("By popularity of the positives", "decile of their known ratings"),
    "same_author": ("Positives by an author of the context books", ""),
    "without_same_author": (
        "CandidateLists without positives by an author of the context books",
        "",
    ),
    "cold_books": ("Positives that nobody is known to have rated", ""),
    "truncated": ("Positives that the model reads cut", ""),
}
FRAMES = (
    "summary", "lift", "per_user", "curve", "bands", "checks", "slices", "calibration", "score_distribution", "chance",
)  # fmt: skip
CALIBRATION = ["mean_probability", "positive_fraction"]
MIN_BINS = 3  # of a slice to be drawn: fewer are read in the table
CHECKS = {
    "shuffled_contexts": "With another reader's context",
    "blank_context": "With an empty context",
}

Row = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """A figure: its `<svg>`, its title, and its numbers in words for those who do not see it."""

    svg: str
    title: str
    alt: str


@dataclass(frozen=True)
class Verdict:
    """One sentence on a model, and how it came out: beats, loses, open."""

    text: str
    outcome: str


@dataclass(frozen=True)
class Slice:
    """NDCG@10 by the bins of one property: for each bin its support, chance, and (value, low, high) of each scorer."""

    title: str
    scorers: list[str]
    rows: list[Row]
    figure: Drawn | None


@dataclass(frozen=True)
class Kind:
    """One list kind's part of the report; what an evaluation lacks is empty.

    Attributes:
        scorers: A row of the summary for each scorer, best first; where it is a baseline with `lift`, `lift_low` and
            `lift_high` of the fine-tuned model over it.
        columns: Further columns of the summary and their names.
        best: The best baseline; None without a model.
        depth_rows: Scorer, and its NDCG@10 at each of `depths`; for the retriever's lists alone.
    """

    key: str
    title: str
    best: str | None
    verdicts: list[Verdict]
    n_users: int
    n_without_positives: int
    columns: dict[str, str]
    scorers: list[Row]
    chance: Row | None
    figures: list[Drawn]
    checks: list[tuple[str, Row]]
    slices: list[Slice]
    calibration: list[Row]
    distribution: list[Row]
    depths: list[int]
    depth_rows: list[tuple[str, list[float]]]


def describe(evaluation: Evaluation, key: str) -> Kind:
    """What the evaluation says of the list kind `key`."""
    frames = {field: _of(getattr(evaluation, field), key) for field in FRAMES}
    summary, lift = frames["summary"], frames["lift"]
    best = best_baseline(lift)
    depth = evaluation.depth if key == "retriever" else evaluation.depth.iloc[:0]
    by_depth = depth.pivot(index="scorer", columns="depth", values="ndcg_10")
    present = set(summary["scorer"])
    pair = [s for s in (MODEL, best) if s is not None and s in present]
    shown = [
        s for s in dict.fromkeys([MODEL, "fused", *pair, "untrained", "random"]) if s in present
    ]
    n_users, n_without = (
        int(summary[column].iloc[0]) for column in ("n_users", "n_without_positives")
    )
    return Kind(
        key=key,
        title=title(key),
        best=best,
        verdicts=[
            verdict(row, key, n_users - n_without)
            for row in _rows(lift[lift["is_best"].astype(bool)])
        ],
        n_users=n_users,
        n_without_positives=n_without,
        columns={column: label for column, label in COLUMNS.items() if column in summary},
        scorers=_scorers(summary, lift),
        chance=next(iter(_rows(frames["chance"])), None),
        figures=_figures(key, frames, depth, shown, pair),
        checks=[(check(row), row) for row in _rows(frames["checks"])],
        slices=[
            _slice(key, rows, pair) for _, rows in frames["slices"].groupby("slice", sort=False)
        ],
        calibration=_rows(frames["calibration"]),
        distribution=_rows(frames["score_distribution"]),
        depths=list(by_depth.columns),
        depth_rows=[(str(scorer), row.tolist()) for scorer, row in by_depth.iterrows()],
    )


def best_baseline(lift: pd.DataFrame) -> str | None:
    """The baseline of one list kind that the fine-tuned model must beat; None where nothing was compared."""
    rows = lift[lift["is_best"].astype(bool) & (lift["model"] == MODEL)]
    return str(rows["over"].iloc[0]) if len(rows) else None


def title(key: str) -> str:
    """A list kind in words."""
    return KINDS.get(key, f"{key} lists")


def verdict(lift: Mapping[str, Any], key: str, n_users: int) -> Verdict:
    """Whether a model beats, loses to or is not told apart from the best baseline, and by how much.

    Args:
        lift: model, over, lift, low, high of one list kind; low and high are NaN where there is no interval.
        n_users: Users with a value.
    """
    value, low, high = (float(lift[end]) for end in ("lift", "low", "high"))
    start = f"On {title(key)} {MODELS[lift['model']]}"
    over = f"the best baseline, {name(lift['over'])}"
    if math.isnan(low):
        text = f"{start} differs from {over}, by {signed(value, 3)} NDCG@10; an interval needs two users with a positive."
        return Verdict(text, "open")
    about = f"NDCG@10 (95 % over {n_users:,} users)."
    if low > 0:
        return Verdict(
            f"{start} beats {over}, by {value:.3f} [{low:.3f}, {high:.3f}] {about}", "beats"
        )
    if high < 0:
        return Verdict(
            f"{start} loses to {over}, by {-value:.3f} [{-high:.3f}, {-low:.3f}] {about}", "loses"
        )
    interval = f"{signed(value, 3)} [{signed(low, 3)}, {signed(high, 3)}]"
    return Verdict(f"{start} is not told apart from {over}: {interval} {about}", "open")


def check(row: Mapping[str, Any]) -> str:
    """What a shortcut check found, in one sentence: how much of the ranking is owed to the reader's own context."""
    gap, low, high = (float(row[end]) for end in ("gap", "low", "high"))
    start = CHECKS.get(row["check"], str(row["check"]).replace("_", " "))
    change = f"from {number(row['own_value'], 3)} to {number(row['value'], 3)}"
    interval = f"{signed(gap, 3)} [{signed(low, 3)}, {signed(high, 3)}]"
    if low > 0:
        return f"{start} NDCG@10 falls {change}, a gap of {interval}: the ranking uses the context."
    if high < 0:
        return f"{start} NDCG@10 rises {change}, a gap of {interval}: the reader's own context does harm."
    return f"{start} NDCG@10 goes {change}, a gap of {interval}: nothing shows that the ranking uses the context."


def _of(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    return frame[frame["kind"] == key]


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _scorers(summary: pd.DataFrame, lift: pd.DataFrame) -> list[Row]:
    """The summary, best first, and beside each baseline the lift of the fine-tuned model over it."""
    own = lift.loc[lift["model"] == MODEL, ["over", "lift", "low", "high"]]
    own = own.set_axis(["scorer", "lift", "lift_low", "lift_high"], axis=1)
    return _rows(
        summary.merge(own, on="scorer", how="left").sort_values(
            "ndcg_10", ascending=False, kind="stable"
        )
    )


def _draw(kind: str, what: str, make: Callable[[], Figure], heading: str, alt: str) -> Drawn:
    return Drawn(svg.draw(f"{kind} {what}", make), heading, f"{heading}. {alt}")


def _figures(
    key: str,
    frames: Mapping[str, pd.DataFrame],
    depth: pd.DataFrame,
    shown: Sequence[str],
    pair: Sequence[str],
) -> list[Drawn]:
    curve, users, bins = frames["curve"], frames["per_user"], frames["calibration"]
    banded = " with 95 % bands" if len(frames["bands"]) else ""
    out = [
        _draw(key, "curve", partial(plots.ndcg_by_k, curve, frames["bands"], shown), f"NDCG@k{banded}",
              _words(curve, shown, "ndcg", "k", (1, 10, 20))),
        _draw(key, "users", partial(plots.shares_of_users, users, pair), "Users by their NDCG@10",
              "Medians: " + ", ".join(f"{name(s)} {number(_median(users, s), 2)}" for s in pair) + "."),
    ]  # fmt: skip
    if len(bins):
        alt = " ".join(
            f"{p:.2f} predicted, {o:.2f} found;" for p, o in bins[CALIBRATION].to_numpy(dtype=float)
        )
        out.append(_draw(key, "calibration", partial(plots.calibration, bins), "Calibration", alt))
    if len(depth):
        alt = _words(depth, shown, "ndcg_10", "depth", sorted(set(depth["depth"])))
        out.append(
            _draw(
                key, "depth", partial(plots.depth, depth, shown), "NDCG@10 by reranking depth", alt
            )
        )
    return out


def _words(
    frame: pd.DataFrame, scorers: Sequence[str], value: str, at: str, places: Sequence[int]
) -> str:
    """The values of each scorer at some places of a curve, as text."""
    lines = {s: frame[frame["scorer"] == s].set_index(at)[value] for s in scorers}
    return " ".join(
        f"{name(s)}: {', '.join(f'{line[p]:.2f} at {p}' for p in places if p in line)}."
        for s, line in lines.items()
    )


def _median(users: pd.DataFrame, scorer: str) -> float:
    return float(users.loc[users["scorer"] == scorer, "ndcg_10"].median())


def _slice(kind: str, rows: pd.DataFrame, pair: Sequence[str]) -> Slice:
    key = str(rows["slice"].iloc[0])
    heading, x = SLICES.get(key, (key.replace("_", " ").capitalize(), key.replace("_", " ")))
    rows = rows.sort_values("step", kind="stable")
    scorers = [s for s in pair if s in set(rows["scorer"])]
    table = []
    for label, group in rows.groupby("bin", sort=False):
        cells = {row["scorer"]: (row["ndcg_10"], row["low"], row["high"]) for row in _rows(group)}
        first = group.iloc[0]
        table.append(
            {
                "bin": label,
                "n_users": int(first["n_users"]),
                "chance": first["chance"],
                "cells": cells,
            }
        )
    figure = None
    if len(table) >= MIN_BINS:
        alt = f"{len(table)} bins; the table below holds the numbers."
        figure = _draw(kind, key, partial(plots.slices, rows, x, scorers), f"NDCG@10 by {x}", alt)
    return Slice(heading, scorers, table, figure)
