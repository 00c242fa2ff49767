"""Figures of a run's report, for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from reranker.reports.run.summary import NAMES
from reranker.reports.svg import BLUE, GREEN, GREY, INK, ORANGE, VIOLET, panel

# Any other scorer that stands out is the best of the baselines.
COLOURS = {"fine_tuned": BLUE, "fused": VIOLET, "untrained": GREEN, "random": GREY}
OTHER: Any = {"color": GREY, "linewidth": 0.8, "alpha": 0.6}
THRESHOLDS = np.linspace(
    0, 1, 201
)  # of the shares of users: a point is half a step of the third digit


def name(scorer: str) -> str:
    """What a scorer is called in a report."""
    return NAMES.get(scorer, scorer.replace("_", " "))


def ndcg_by_k(curve: pd.DataFrame, bands: pd.DataFrame, shown: Sequence[str]) -> Figure:
    """NDCG at every cut-off: a line for each scorer, strong and named for those of `shown`, with its band if any."""
    figure, axis = panel("k", "NDCG@k", layout=None)
    for scorer, line in curve.groupby("scorer"):
        if scorer not in shown:
            axis.plot(line["k"], line["ndcg"], **OTHER)
    for scorer in shown:
        line, band = (rows[rows["scorer"] == scorer] for rows in (curve, bands))
        axis.plot(
            line["k"],
            line["ndcg"],
            color=_colour(scorer),
            linewidth=_width(scorer),
            label=name(scorer),
        )
        if len(band):
            ends = (band[end].to_numpy(dtype=float) for end in ("k", "low", "high"))
            axis.fill_between(*ends, color=_colour(scorer), alpha=0.2, linewidth=0)
    last = int(curve["k"].max())
    axis.set_xlim(1, last)
    axis.set_ylim(0, None)
    axis.set_xticks([1, *range(5, last + 1, 5)])
    _legend(axis)
    return figure


def shares_of_users(per_user: pd.DataFrame, shown: Sequence[str]) -> Figure:
    """The share of users whose NDCG@10 is at most so much, a line for each scorer of `shown`."""
    figure, axis = panel("NDCG@10 of a user", "share of users at or below", layout=None)
    for scorer in shown:
        values = np.sort(per_user.loc[per_user["scorer"] == scorer, "ndcg_10"].dropna().to_numpy())
        share = np.searchsorted(values, THRESHOLDS, side="right") / max(len(values), 1)
        axis.step(
            THRESHOLDS,
            share,
            where="post",
            color=_colour(scorer),
            linewidth=_width(scorer),
            label=name(scorer),
        )
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    _legend(axis)
    return figure


def slices(rows: pd.DataFrame, x: str, shown: Sequence[str]) -> Figure:
    """NDCG@10 in every bin of one slice, with intervals, for the scorers of `shown`; chance as short lines.

    Args:
        rows: scorer, bin, ndcg_10, low, high, chance; the bins of a scorer in order.
        x: What the bins are of; a bin is named by the first word of its name.
    """
    figure, axis = panel(x, "NDCG@10", layout=None)
    bins = list(dict.fromkeys(rows["bin"]))
    present = [scorer for scorer in shown if scorer in set(rows["scorer"])]
    for i, scorer in enumerate(present):
        own = rows[rows["scorer"] == scorer]
        place = np.array([bins.index(b) for b in own["bin"]]) + 0.16 * (i - (len(present) - 1) / 2)
        value, low, high = (own[c].to_numpy(dtype=float) for c in ("ndcg_10", "low", "high"))
        ends = np.nan_to_num(
            np.maximum(0, [value - low, high - value])
        )  # a bin of one user has no interval
        axis.errorbar(
            place,
            value,
            yerr=ends,
            fmt="o",
            markersize=4,
            color=_colour(scorer),
            capsize=2,
            label=name(scorer),
        )
    chance = rows.drop_duplicates("bin")["chance"].to_numpy(dtype=float)
    axis.hlines(chance, np.arange(len(bins)) - 0.35, np.arange(len(bins)) + 0.35, color=INK, linewidth=0.8,
                linestyle="dotted", label="chance")  # fmt: skip
    axis.set_xticks(range(len(bins)), [str(b).partition(" ")[0] for b in bins])
    axis.set_ylim(0, 1.25 * axis.get_ylim()[1])
    axis.legend(frameon=False, loc="upper left", ncols=3, columnspacing=1)
    return figure


def calibration(rows: pd.DataFrame) -> Figure:
    """The share of positives against the mean predicted probability of each bin; on the diagonal they are equal."""
    figure, axis = panel("mean predicted probability", "share of positives", layout=None)
    axis.plot([0, 1], [0, 1], color=INK, linestyle="dotted", linewidth=1)
    place = rows["mean_probability"], rows["positive_fraction"]
    axis.plot(*place, color=BLUE, marker="o", markersize=4, linewidth=1.6, clip_on=False)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    return figure


def depth(rows: pd.DataFrame, shown: Sequence[str]) -> Figure:
    """NDCG@10 when only so many of the retriever's first books are reranked, strong and named for those of `shown`."""
    figure, axis = panel("books reranked, of the retriever's first", "NDCG@10", layout=None)
    depths = sorted(set(rows["depth"]))
    for scorer, line in rows.sort_values("depth").groupby("scorer"):
        place = [depths.index(d) for d in line["depth"]]
        style: Any = {
            "color": _colour(scorer),
            "label": name(scorer),
            "marker": "o",
            "markersize": 4,
        }
        axis.plot(place, line["ndcg_10"], **(style if scorer in shown else OTHER))
    axis.set_xticks(range(len(depths)), [f"{d:,}" for d in depths])
    axis.set_ylim(0, None)
    _legend(axis)
    return figure


def training(logs: Sequence[dict[str, float]]) -> Figure:
    """Loss above, dev NDCG@10 below, over optimiser steps; the best dev step is marked."""
    figure = Figure(figsize=(4.6, 3.6))
    axes = figure.subplots(2, 1, sharex=True)
    figure.subplots_adjust(left=0.14, bottom=0.13, right=0.97, top=0.97)
    for axis, key, title in zip(
        axes, ("loss", "dev_ndcg_10"), ("loss", "dev NDCG@10"), strict=True
    ):
        step, value = (
            np.array([(row["step"], row[key]) for row in logs if key in row]).reshape(-1, 2).T
        )
        axis.plot(step, value, color=BLUE, linewidth=1.6, marker="o", markersize=3)
        axis.spines[["top", "right"]].set_visible(False)
        axis.set_ylabel(title)
        if key == "dev_ndcg_10" and len(value):
            best = int(np.argmax(value))
            axis.plot(step[best], value[best], "o", color=ORANGE, markersize=7, zorder=3)
            axis.margins(y=0.2)
    axes[-1].set_xlabel("optimiser step")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _colour(scorer: str) -> str:
    return COLOURS.get(scorer, ORANGE)


def _width(scorer: str) -> float:
    return 2.2 if scorer == "fine_tuned" else 1.6


def _legend(axis: Axes) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False)
