"""Summarise one list kind for the run's page: verdicts in words, tables, and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
from matplotlib.figure import Figure

from reranker.reports import svg
from reranker.reports.page import number
from reranker.reports.run import plots
from reranker.reports.run.verdicts import Verdict, check, verdict
from reranker.reports.scorers import find_list_kind, scorer_name

if TYPE_CHECKING:
    from reranker.eval import Evaluation

MODEL = "fine_tuned"
COLUMNS = {
    "ndcg_3": "NDCG@3",
    "ndcg_5": "NDCG@5",
    "mrr_10": "MRR@10",
    "recall_10": "recall@10",
    "hit_10": "hit@10",
    "auc": "AUC",
    "tie_fraction": "ties",
}
# Slice -> its heading, and the label of its axis.
SLICES = {
    "history_length": ("By history length", "books in the user's history"),
    "target_popularity": ("By popularity of the positives", "popularity decile"),
    "same_author": ("Positives by an author in the user's history", ""),
    "without_same_author": ("Lists without positives by an author in the user's history", ""),
    "cold_books": ("Positives without any known rating", ""),
    "truncated": ("Positives whose text is truncated", ""),
}
FRAMES = (
    "summary", "lift", "per_user", "curve", "bands", "checks", "slices", "calibration",
    "score_distribution", "chance",
)  # fmt: skip
CALIBRATION = ["mean_probability", "positive_fraction"]
MIN_BINS = 3  # slices with fewer bins have a table only

Row = dict[str, Any]


@dataclass(frozen=True)
class Drawn:
    """A figure.

    Attributes:
        svg: The `<svg>` element.
        title: Its caption.
        alt: Its title and numbers in words, for readers who do not see it.
    """

    svg: str
    title: str
    alt: str


@dataclass(frozen=True)
class Slice:
    """NDCG@10 by the bins of one property.

    Attributes:
        title: The heading.
        scorers: The scorers that are compared.
        rows: One per bin: bin, n_users, chance, and `cells` with (value, low, high) per scorer.
        figure: None if there are fewer than MIN_BINS bins.
    """

    title: str
    scorers: list[str]
    rows: list[Row]
    figure: Drawn | None


@dataclass(frozen=True)
class KindSummary:
    """One list kind's part of the page; parts that the evaluation does not have are empty.

    Attributes:
        key: The list kind.
        title: The list kind in words.
        description: How its candidates are chosen.
        best: The best baseline; None without a model.
        verdicts: One per model.
        n_users: Test users with lists of this kind.
        n_without_positives: Those without a positive; they have no value.
        columns: Further columns of `scorers`, with their headers.
        scorers: A row of the summary per scorer, best first; a baseline has `lift`, `lift_low` and
            `lift_high` of the fine-tuned model over it.
        chance: Metrics of a constant scorer.
        figures: NDCG and MAP by k, users, calibration, reranking depth.
        checks: A sentence and the row of each shortcut check.
        slices: NDCG@10 by property.
        calibration, distribution: Rows of the evaluation's frames.
        depths: Reranking depths; empty unless the kind is `retriever`.
        depth_rows: Scorers, and their NDCG@10 at each of `depths`.
    """

    key: str
    title: str
    description: str
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


def summarise_kind(evaluation: Evaluation, key: str) -> KindSummary:
    """Return what the page shows of the list kind `key`."""
    frames = {field: _of_kind(getattr(evaluation, field), key) for field in FRAMES}
    summary, lift = frames["summary"], frames["lift"]
    best = best_baseline(lift)
    depth = evaluation.depth if key == "retriever" else evaluation.depth.iloc[:0]
    by_depth = depth.pivot(index="scorer", columns="depth", values="ndcg_10")
    present = set(summary["scorer"])
    pair = [s for s in (MODEL, best) if s is not None and s in present]
    wanted = dict.fromkeys([MODEL, "fused", *pair, "untrained", "random"])
    shown = [s for s in wanted if s in present]
    n_users, n_without = (int(summary[name].iloc[0]) for name in ("n_users", "n_without_positives"))
    best_rows = _rows(lift[lift["is_best"].astype(bool)])
    return KindSummary(
        key=key,
        title=find_list_kind(key).title,
        description=find_list_kind(key).description,
        best=best,
        verdicts=[verdict(row, key, n_users - n_without) for row in best_rows],
        n_users=n_users,
        n_without_positives=n_without,
        columns={column: label for column, label in COLUMNS.items() if column in summary},
        scorers=_scorers(summary, lift),
        chance=next(iter(_rows(frames["chance"])), None),
        figures=_figures(key, frames, depth, shown=shown, pair=pair),
        checks=[(check(row), row) for row in _rows(frames["checks"])],
        slices=[_slice(key, s, pair) for _, s in frames["slices"].groupby("slice", sort=False)],
        calibration=_rows(frames["calibration"]),
        distribution=_rows(frames["score_distribution"]),
        depths=list(by_depth.columns),
        depth_rows=[(str(scorer), row.tolist()) for scorer, row in by_depth.iterrows()],
    )


def best_baseline(lift: pd.DataFrame) -> str | None:
    """Return the best baseline of one list kind; None if no model was compared."""
    rows = lift[lift["is_best"].astype(bool) & (lift["model"] == MODEL)]
    return str(rows["over"].iloc[0]) if len(rows) else None


def _of_kind(frame: pd.DataFrame, key: str) -> pd.DataFrame:
    return frame[frame["kind"] == key]


def _rows(frame: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]


def _scorers(summary: pd.DataFrame, lift: pd.DataFrame) -> list[Row]:
    """Return the summary, best first, with the fine-tuned model's lift over each baseline."""
    own = lift.loc[lift["model"] == MODEL, ["over", "lift", "low", "high"]]
    own = own.set_axis(["scorer", "lift", "lift_low", "lift_high"], axis=1)
    merged = summary.merge(own, on="scorer", how="left")
    return _rows(merged.sort_values("ndcg_10", ascending=False, kind="stable"))


def _draw(name: str, make: Callable[[], Figure], title: str, alt: str) -> Drawn:
    return Drawn(svg.draw(name, make), title, f"{title}. {alt}")


def _figures(
    key: str,
    frames: Mapping[str, pd.DataFrame],
    depth: pd.DataFrame,
    *,
    shown: Sequence[str],
    pair: Sequence[str],
) -> list[Drawn]:
    """Return the figures of a list kind; `shown` are highlighted, `pair` are compared by user."""
    curve, bands, users, bins = (
        frames[name] for name in ("curve", "bands", "per_user", "calibration")
    )
    medians = ", ".join(f"{scorer_name(s)} {number(_median(users, s), 2)}" for s in pair)
    out = [
        _by_k(f"{key} curve", curve, bands, shown, "ndcg"),
        _by_k(f"{key} map curve", curve, bands[:0], shown, "map"),
        _draw(
            f"{key} users",
            partial(plots.users, users, pair),
            "Users by their NDCG@10",
            f"Medians: {medians}.",
        ),
    ]
    if len(bins):
        points = bins[CALIBRATION].to_numpy(dtype=float)
        alt = "; ".join(f"{p:.2f} predicted, {o:.2f} observed" for p, o in points) + "."
        out.append(
            _draw(f"{key} calibration", partial(plots.calibration, bins), "Calibration", alt)
        )
    if len(depth):
        places = sorted(set(depth["depth"]))
        alt = _values(depth, shown, value="ndcg_10", at="depth", places=places)
        make = partial(plots.depth, depth, shown)
        out.append(_draw(f"{key} depth", make, "NDCG@10 by reranking depth", alt))
    return out


def _by_k(
    key: str, curve: pd.DataFrame, bands: pd.DataFrame, shown: Sequence[str], metric: str
) -> Drawn:
    title = f"{metric.upper()}@k" + (" with 95 % bands" if len(bands) else "")
    alt = _values(curve, shown, value=metric, at="k", places=(1, 10, 20))
    return _draw(key, partial(plots.by_k, curve, bands, shown, metric), title, alt)


def _values(
    frame: pd.DataFrame, scorers: Sequence[str], *, value: str, at: str, places: Sequence[int]
) -> str:
    """Return the values of each scorer at some places of its curve, as text."""
    lines = {s: frame[frame["scorer"] == s].set_index(at)[value] for s in scorers}
    return " ".join(
        f"{scorer_name(s)}: {', '.join(f'{line[p]:.2f} at {p}' for p in places if p in line)}."
        for s, line in lines.items()
    )


def _median(users: pd.DataFrame, scorer: str) -> float:
    return float(users.loc[users["scorer"] == scorer, "ndcg_10"].median())


def _slice(kind: str, rows: pd.DataFrame, pair: Sequence[str]) -> Slice:
    key = str(rows["slice"].iloc[0])
    name = key.replace("_", " ")
    title, x = SLICES.get(key, (name.capitalize(), name))
    rows = rows.sort_values("step", kind="stable")
    scorers = [s for s in pair if s in set(rows["scorer"])]
    table = [_bin(str(label), group) for label, group in rows.groupby("bin", sort=False)]
    figure = None
    if len(table) >= MIN_BINS:
        make = partial(plots.slices, rows, x, scorers)
        alt = f"{len(table)} bins; the table below has the numbers."
        figure = _draw(f"{kind} {key}", make, f"NDCG@10 by {x}", alt)
    return Slice(title, scorers, table, figure)


def _bin(label: str, rows: pd.DataFrame) -> Row:
    cells = {row["scorer"]: (row["ndcg_10"], row["low"], row["high"]) for row in _rows(rows)}
    n_users, chance = int(rows["n_users"].iloc[0]), rows["chance"].iloc[0]
    return {"bin": label, "n_users": n_users, "chance": chance, "cells": cells}
