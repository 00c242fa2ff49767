"""Draw the figures of one list kind and of the training, for the run's page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reranker.data.draws import FloatArray
from reranker.reports.colours import BLUE, GREY, ORANGE
from reranker.reports.scorers import find_scorer, scorer_name
from reranker.reports.svg import INK, panel

OTHER: Any = {"color": GREY, "linewidth": 0.8, "alpha": 0.6}  # scorers that are not highlighted
# Steps of the figure of users; a step is finer than a pixel.
THRESHOLDS = np.linspace(0, 1, 201)


def by_k(curve: pd.DataFrame, bands: pd.DataFrame, shown: Sequence[str], metric: str) -> Figure:
    """Draw a metric at every cut-off; the scorers in `shown` are highlighted, with their bands.

    Args:
        curve: scorer, k, and a column for the metric.
        bands: scorer, k, low, high; empty for a metric without bands.
        metric: `ndcg` or `map`.
    """
    figure, axis = panel("k", f"{metric.upper()}@k", layout=None)
    for scorer, line in curve.groupby("scorer"):
        if scorer not in shown:
            axis.plot(line["k"], line[metric], **OTHER)
    for scorer in shown:
        line, band = (rows[rows["scorer"] == scorer] for rows in (curve, bands))
        axis.plot(line["k"], line[metric], **_style(scorer))
        if len(band):
            draw_band(axis, scorer, band)
    draw_k_axis(axis, int(curve["k"].max()))
    _legend(axis)
    return figure


def draw_band(axis: Axes, scorer: str, band: pd.DataFrame) -> None:
    """Fill the 95 % band of a scorer's curve: columns k, low, high."""
    k, low, high = (band[name].to_numpy(dtype=float) for name in ("k", "low", "high"))
    axis.fill_between(k, low, high, color=find_scorer(scorer).colour, alpha=0.2, linewidth=0)


def draw_k_axis(axis: Axes, last: int) -> None:
    """Set limits and ticks of an axis of cut-offs 1 to `last`."""
    axis.set_xlim(1, last)
    axis.set_ylim(0, None)
    axis.set_xticks([1, *range(5, last + 1, 5)])


def users(per_user: pd.DataFrame, shown: Sequence[str]) -> Figure:
    """Draw the share of users with at most a given NDCG@10, one line per scorer in `shown`."""
    figure, axis = panel("NDCG@10 of a user", "share of users at or below", layout=None)
    for scorer in shown:
        values = np.sort(per_user.loc[per_user["scorer"] == scorer, "ndcg_10"].dropna().to_numpy())
        share = np.searchsorted(values, THRESHOLDS, side="right") / max(len(values), 1)
        style = _style(scorer)
        if len(values):
            style["label"] += f", median {np.median(values):.2f}"
        axis.step(THRESHOLDS, share, where="post", **style)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    _legend(axis)
    return figure


def slices(rows: pd.DataFrame, x: str, shown: Sequence[str]) -> Figure:
    """Draw NDCG@10 in every bin of one slice with intervals, and the chance level of each bin.

    Args:
        rows: Columns scorer, bin, ndcg_10, low, high, chance; the bins of a scorer in order.
        x: Label of the x axis; a bin is labelled with the first word of its name.
        shown: Scorers to draw.
    """
    figure, axis = panel(x, "NDCG@10", layout=None)
    bins = list(dict.fromkeys(rows["bin"]))
    present = [scorer for scorer in shown if scorer in set(rows["scorer"])]
    for i, scorer in enumerate(present):
        own = rows[rows["scorer"] == scorer]
        offset = 0.16 * (i - (len(present) - 1) / 2)
        _draw_bins(axis, scorer, np.array([bins.index(b) for b in own["bin"]]) + offset, own)
    chance = rows.drop_duplicates("bin")["chance"].to_numpy(dtype=float)
    place = np.arange(len(bins))
    style: Any = {"color": INK, "linewidth": 0.8, "linestyle": "dotted", "label": "chance"}
    axis.hlines(chance, place - 0.35, place + 0.35, **style)
    axis.set_xticks(range(len(bins)), [str(b).partition(" ")[0] for b in bins])
    axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper left", ncols=3, columnspacing=1)
    return figure


def _draw_bins(axis: Axes, scorer: str, place: FloatArray, rows: pd.DataFrame) -> None:
    value, low, high = (rows[c].to_numpy(dtype=float) for c in ("ndcg_10", "low", "high"))
    # A bin with one user has no interval.
    errors = np.nan_to_num(np.maximum(0, [value - low, high - value]))
    style: Any = {"color": find_scorer(scorer).colour, "label": scorer_name(scorer)}
    axis.errorbar(place, value, yerr=errors, fmt="o", markersize=4, capsize=2, **style)


def calibration(rows: pd.DataFrame) -> Figure:
    """Draw the share of positives against the mean predicted probability of each bin.

    Bins of a calibrated model are on the diagonal.
    """
    figure, axis = panel("mean predicted probability", "share of positives", layout=None)
    axis.plot([0, 1], [0, 1], color=INK, linestyle="dotted", linewidth=1)
    place = rows["mean_probability"], rows["positive_fraction"]
    axis.plot(*place, color=BLUE, marker="o", markersize=4, linewidth=1.6, clip_on=False)
    end = min(1, 1.05 * float(rows[["mean_probability", "positive_fraction"]].max(axis=None)))
    axis.set_xlim(0, end)
    axis.set_ylim(0, end)
    return figure


def depth(rows: pd.DataFrame, shown: Sequence[str]) -> Figure:
    """Draw NDCG@10 by reranking depth; the scorers in `shown` are highlighted."""
    figure, axis = panel("number of retrieved books that are reranked", "NDCG@10", layout=None)
    depths = sorted(set(rows["depth"]))
    for scorer, line in rows.sort_values("depth").groupby("scorer"):
        place = [depths.index(d) for d in line["depth"]]
        marked = {**_style(str(scorer)), "marker": "o", "markersize": 4}
        axis.plot(place, line["ndcg_10"], **(marked if scorer in shown else OTHER))
    axis.set_xticks(range(len(depths)), [f"{d:,}" for d in depths])
    axis.set_ylim(0, None)
    _legend(axis)
    return figure


def training(logs: Sequence[dict[str, float]]) -> Figure:
    """Draw the loss and dev NDCG@10 over optimiser steps; the best dev step is marked.

    Args:
        logs: Dicts with `step` and `loss`, or with `step` and `dev_ndcg_10`, in order.
    """
    figure = Figure(figsize=(4.6, 3.6))
    upper, lower = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.14, bottom=0.13, right=0.97, top=0.97)
    _draw_log(upper, logs, "loss", "loss")
    step, value = _draw_log(lower, logs, "dev_ndcg_10", "dev NDCG@10")
    if len(value):
        _mark_best(lower, step, value, last=max(row["step"] for row in logs))
    lower.set_xlabel("optimiser step")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw_log(
    axis: Axes, logs: Sequence[dict[str, float]], key: str, label: str
) -> tuple[FloatArray, FloatArray]:
    """Draw one logged value and return its steps and values."""
    points = np.array([(row["step"], row[key]) for row in logs if key in row]).reshape(-1, 2)
    axis.plot(*points.T, color=BLUE, linewidth=1.6, marker="o", markersize=3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_ylabel(label)
    return points[:, 0], points[:, 1]


def _mark_best(axis: Axes, step: FloatArray, value: FloatArray, *, last: float) -> None:
    best = int(np.argmax(value))
    axis.plot(step[best], value[best], "o", color=ORANGE, markersize=7, zorder=3)
    # The text is left of a point that is near the right edge.
    side, offset = ("right", -6) if step[best] > 0.6 * last else ("left", 6)
    axis.annotate(
        f"best {value[best]:.3f} at step {step[best]:.0f}",
        (step[best], value[best]),
        xytext=(offset, 7),
        textcoords="offset points",
        ha=side,
    )
    axis.margins(y=0.3)


def _style(scorer: str) -> dict[str, Any]:
    return {
        "color": find_scorer(scorer).colour,
        "linewidth": 2.2 if scorer == "fine_tuned" else 1.6,
        "label": scorer_name(scorer),
    }


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)
