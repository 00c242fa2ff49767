"""Draw the figures of a comparison; configurations are labelled with their numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reranker.reports.colours import BLUE, GREY
from reranker.reports.comparison.compare import Comparison
from reranker.reports.comparison.summary import is_significant
from reranker.reports.svg import INK, draw, panel

# Columns of a comparison's runs, and what they measure.
COSTS = {"train_s": "seconds of training", "pairs_per_s": "pairs per second in training"}


def figures(comparison: Comparison, kind: str) -> dict[str, str]:
    """Return the figures of a list kind as `<svg>` elements.

    The names are `differences`, `effects/<key>`, `train_s` and `pairs_per_s`.
    """
    metric, effect_rows = comparison.metric, comparison.effects
    table = comparison.table[comparison.table["kind"] == kind].reset_index(drop=True)
    runs = comparison.runs[comparison.runs["kind"] == kind]
    makers = {"differences": partial(differences, table, metric)}
    if len(effect_rows):
        by_key = effect_rows[effect_rows["kind"] == kind].groupby("key", sort=False)
        makers |= {f"effects/{key}": partial(effects, rows, metric) for key, rows in by_key}
    numbers = {c.name: number for number, c in enumerate(comparison.configurations, start=1)}
    for column in COSTS:
        if runs[column].notna().any():
            makers[column] = partial(cost, runs, column, metric=metric, numbers=numbers)
    return {name: draw(f"{kind}/{name}", make) for name, make in makers.items()}


def differences(table: pd.DataFrame, metric: str) -> Figure:
    """Draw each configuration's difference from the reference with its interval."""
    rows = table.iloc[1:]
    figure, axis = panel(f"difference of {metric} from 1", "")
    figure.set_figheight(_height(len(rows)))
    highlighted = [is_significant(row) for row in rows.to_dict("records")]
    intervals = rows[["difference", "difference_low", "difference_high"]]
    _draw_intervals(axis, intervals, highlighted)
    axis.axvline(0, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    axis.set_yticks(np.arange(len(rows)), [str(i + 1) for i in rows.index])
    return figure


def effects(rows: pd.DataFrame, metric: str) -> Figure:
    """Draw the metric's mean at each value of a key, with its interval."""
    figure, axis = panel(f"mean {metric}", "")
    figure.set_figheight(_height(len(rows)))
    _draw_intervals(axis, rows[["mean", "low", "high"]], [True] * len(rows))
    names = [value if len(value) < 22 else f"{value[:20]} …" for value in rows["value"]]
    axis.set_yticks(np.arange(len(rows)), names)
    return figure


def cost(runs: pd.DataFrame, column: str, *, metric: str, numbers: dict[str, int]) -> Figure:
    """Draw the metric against the cost of training, one point per run.

    Args:
        runs: Columns configuration, mean, and those of COSTS.
        column: The cost; a key of COSTS.
        metric: Name of the metric.
        numbers: The label of each configuration.
    """
    figure, axis = panel(COSTS[column], f"mean {metric}")
    axis.plot(runs[column], runs["mean"], "o", color=BLUE, markersize=6)
    for row in runs[runs[column].notna()].to_dict("records"):
        place = row[column], row["mean"]
        text = str(numbers[row["configuration"]])
        axis.annotate(text, place, xytext=(5, 4), textcoords="offset points")
    axis.margins(0.12)
    return figure


def _draw_intervals(axis: Axes, rows: pd.DataFrame, highlighted: list[bool]) -> None:
    """Draw points with intervals, the first on top; columns are the middle and both ends.

    A point without an interval has no line.
    """
    middle, low, high = (rows[column] for column in rows)
    place = np.arange(len(rows))
    colours = [BLUE if strong else GREY for strong in highlighted]
    axis.hlines(place, low.fillna(middle), high.fillna(middle), colors=colours)
    axis.scatter(middle, place, color=colours, s=28, zorder=3)
    axis.set_ylim(len(rows) - 0.5, -0.5)


def _height(n_rows: int) -> float:
    return 0.9 + 0.28 * n_rows
