"""Figures of a comparison, for its page; configurations stand there by their numbers, which fit on a phone."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reranker.reports.comparison.runs import Comparison
from reranker.reports.comparison.summary import told_apart
from reranker.reports.svg import BLUE, GREY, INK, draw, panel

COSTS = {"train_s": "seconds of training", "pairs_per_s": "pairs per second of training"}


def figures(comparison: Comparison, kind: str) -> dict[str, str]:
    """The figures of a list kind as `<svg>` elements: `differences`, `effects/<key>`, `train_s`, `pairs_per_s`."""
    table = comparison.table[comparison.table["kind"] == kind].reset_index(drop=True)
    runs = comparison.runs[comparison.runs["kind"] == kind]
    makers = {"differences": partial(differences, table, comparison.metric)}
    if len(comparison.effects):
        for key, rows in comparison.effects[comparison.effects["kind"] == kind].groupby(
            "key", sort=False
        ):
            makers[f"effects/{key}"] = partial(effects, rows, comparison.metric)
    numbers = {c.name: number for number, c in enumerate(comparison.configurations, start=1)}
    for column, label in COSTS.items():
        if runs[column].notna().any():
            makers[column] = partial(cost, runs, numbers, column, label, comparison.metric)
    return {name: draw(f"{kind}/{name}", make) for name, make in makers.items()}


def differences(table: pd.DataFrame, metric: str) -> Figure:
    """Each configuration's difference to the reference with its interval; the reference's line is zero."""
    rows = table.iloc[1:]
    figure, axis = panel(f"difference of {metric} to 1", "")
    figure.set_figheight(_height(len(rows)))
    clear = pd.Series(
        [told_apart(row) for row in rows.to_dict("records")], index=rows.index, dtype=bool
    )
    _intervals(axis, rows["difference"], rows["difference_low"], rows["difference_high"], clear)
    axis.axvline(0, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    axis.set_yticks(np.arange(len(rows)), [str(i + 1) for i in rows.index])
    return figure


def effects(rows: pd.DataFrame, metric: str) -> Figure:
    """The metric's mean at each value of a key, with its interval."""
    figure, axis = panel(f"mean {metric}", "")
    figure.set_figheight(_height(len(rows)))
    _intervals(axis, rows["mean"], rows["low"], rows["high"], pd.Series(True, index=rows.index))
    axis.set_yticks(
        np.arange(len(rows)),
        [value if len(value) < 22 else f"{value[:20]} …" for value in rows["value"]],
    )
    return figure


def cost(
    runs: pd.DataFrame, numbers: dict[str, int], column: str, label: str, metric: str
) -> Figure:
    """A point for each run: what its training cost, and how good it is; the numbers are its configuration's."""
    figure, axis = panel(label, f"mean {metric}")
    axis.plot(runs[column], runs["mean"], "o", color=BLUE, markersize=6)
    for row in runs[runs[column].notna()].to_dict("records"):
        axis.annotate(str(numbers[row["configuration"]]), (row[column], row["mean"]), xytext=(5, 4),
                      textcoords="offset points")  # fmt: skip
    axis.margins(0.12)
    return figure


def _intervals(
    axis: Axes, middle: pd.Series, low: pd.Series, high: pd.Series, strong: pd.Series
) -> None:
    """MetricBuffer with bars, the first on top; a point without an interval stands alone."""
    place = np.arange(len(middle))
    axis.hlines(
        place, low.fillna(middle), high.fillna(middle), colors=[BLUE if s else GREY for s in strong]
    )
    axis.scatter(middle, place, color=[BLUE if s else GREY for s in strong], s=28, zorder=3)
    axis.set_ylim(len(middle) - 0.5, -0.5)


def _height(n_rows: int) -> float:
    return 0.9 + 0.28 * n_rows
