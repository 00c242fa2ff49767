"""Figures of an evaluation and of a training, drawn without a display and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import pandas as pd

    from reranker.eval import Evaluation

DPI = 120
GREY, DARK = "#8c8c8c", "#333333"
# Okabe & Ito 2008: apart from each other for every common kind of colour vision; a scorer's next of kin is a darker
# shade of its colour, and names stand beside the lines. Chance is grey: it is a reference.
COLOURS = {
    "fine_tuned": "#0072B2",
    "fused": "#00395A",
    "untrained": "#E69F00",
    "bi_encoder": "#009E73",
    "bi_encoder_top3": "#00563F",
    "bm25": "#CC79A7",
    "genres": "#8C4A6E",
    "authors": "#5E2F49",
    "item_knn": "#D55E00",
    "ease": "#8A3D00",
    "retriever": "#5A5A5A",
    "popularity": "#56B4E9",
    "random": GREY,
}
NAMES = {
    "fine_tuned": "fine-tuned",
    "fused": "fused",
    "untrained": "before fine-tuning",
    "bi_encoder": "bi-encoder",
    "bi_encoder_top3": "bi-encoder, top 3",
    "bm25": "BM25",
    "genres": "genre overlap",
    "authors": "author overlap",
    "features_lr": "numeric features alone",
    "item_knn": "item-kNN",
    "ease": "EASE",
    "retriever": "first stage",
    "random": "random (chance)",
}
SLICES = {
    "history_length": "{} context books",
    "target_popularity": "popularity decile {}",
    "same_author": "of a context author: {}",
    "without_same_author": "not of a context author: {}",
    "cold_books": "cold: {}",
    "truncated": "cut: {}",
}


def evaluation_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Every figure of an evaluation by its file name: `ndcg_10`, and for each list kind `ndcg_by_k_*`, `users_*`.

    Where the evaluation has them also `slices_*` and `calibration_*`.
    """
    figures = {"ndcg_10": bars(evaluation)}
    for kind in evaluation.summary["kind"].unique():
        figures[f"ndcg_by_k_{kind}"] = curves(evaluation, kind)
        figures[f"users_{kind}"] = users(evaluation, kind)
    figures |= {
        f"slices_{kind}": slices(evaluation, kind) for kind in evaluation.slices["kind"].unique()
    }
    figures |= {
        f"calibration_{kind}": calibration(evaluation, kind)
        for kind in evaluation.calibration["kind"].unique()
    }
    return figures


def bars(evaluation: Evaluation) -> Figure:
    """NDCG@10 of every scorer with its 95 % interval, best on top; a panel for each list kind."""
    kinds = list(evaluation.summary["kind"].unique())
    n_scorers = evaluation.summary["scorer"].nunique()
    figure, axes = _panels(1, len(kinds), width=5.6 * len(kinds), height=1.3 + 0.42 * n_scorers)
    for axis, kind in zip(axes, kinds, strict=True):
        _bars(axis, evaluation.summary[evaluation.summary["kind"] == kind].sort_values("ndcg_10"))
        axis.set_title(f"NDCG@10, {kind} lists (bars: 95 % over users)", loc="left", fontsize=10)
    return figure


def _bars(axis: Axes, rows: pd.DataFrame) -> None:
    value = rows["ndcg_10"].to_numpy()
    # One user has a mean and no interval: no error bar then, and the number stands at the bar's end.
    low, high = (
        rows[f"ndcg_10_{end}"].fillna(rows["ndcg_10"]).to_numpy() for end in ("low", "high")
    )
    place = np.arange(len(rows))
    shades = [COLOURS[s] if s == "fine_tuned" else "#b8c4cc" for s in rows["scorer"]]
    axis.barh(place, value, color=shades, height=0.64)
    axis.errorbar(
        value,
        place,
        xerr=[value - low, high - value],
        fmt="none",
        ecolor=DARK,
        elinewidth=1.2,
        capsize=2.5,
    )
    for at, end, number in zip(place, high, value, strict=True):
        axis.annotate(
            f"{number:.3f}",
            (end, at),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
        )
    chance = value[(rows["scorer"] == "random").to_numpy()]
    if len(chance):
        axis.axvline(chance[0], color=DARK, linestyle=(0, (4, 3)), linewidth=1)
        axis.annotate("chance", (chance[0], 1), xycoords=("data", "axes fraction"), xytext=(3, -2),
                      textcoords="offset points", va="top", fontsize=8, color=DARK)  # fmt: skip
    axis.set_yticks(place, [_name(s) for s in rows["scorer"]])
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, float(high.max()) * 1.16 or 1)  # or: all at zero
    axis.set_ylim(-0.6, len(rows) - 0.1)


def curves(evaluation: Evaluation, kind: str) -> Figure:
    """NDCG at every cut-off, a line for each scorer with its name at the line's end, some with their 95 % bands."""
    figure, (axis,) = _panels(1, 1, width=6.8, height=4.2)
    rows = evaluation.curve[evaluation.curve["kind"] == kind]
    for scorer, band in evaluation.bands[evaluation.bands["kind"] == kind].groupby("scorer"):
        k, low, high = (band[name].to_numpy(dtype=float) for name in ("k", "low", "high"))
        axis.fill_between(k, low, high, color=_colour(str(scorer)), alpha=0.15, linewidth=0)
    ends = []
    for scorer, line in rows.groupby("scorer"):
        strong = scorer == "fine_tuned"
        k, ndcg = line["k"].to_numpy(), line["ndcg"].to_numpy()
        axis.plot(
            k,
            ndcg,
            color=_colour(str(scorer)),
            linewidth=2.4 if strong else 1.4,
            zorder=3 if strong else 2,
        )
        ends.append((str(scorer), float(k[-1]), float(ndcg[-1])))
    axis.set_xlim(1, rows["k"].max())
    axis.set_ylim(0, float(rows["ndcg"].max()) * 1.1 or 1)
    axis.set_xticks([1, *range(5, int(rows["k"].max()) + 1, 5)])
    axis.set_xlabel("k")
    axis.set_title(f"NDCG@k, mean over users, {kind} lists", loc="left", fontsize=10)
    _label_ends(axis, ends)
    return figure


def users(evaluation: Evaluation, kind: str) -> Figure:
    """The share of users with at most a given NDCG@10: fine-tuned, before, and the best of the baselines."""
    summary = evaluation.summary[evaluation.summary["kind"] == kind].set_index("scorer")["ndcg_10"]
    baselines = summary.drop(["fine_tuned", "fused", "untrained"], errors="ignore")
    best = [str(baselines.idxmax())] if len(baselines) else []
    shown = [scorer for scorer in ("fine_tuned", "untrained", *best) if scorer in summary]
    figure, (axis,) = _panels(1, 1, width=6.8, height=4.2)
    rows = evaluation.per_user[evaluation.per_user["kind"] == kind]
    for i, scorer in enumerate(shown):
        values = np.sort(rows.loc[rows["scorer"] == scorer, "ndcg_10"].dropna().to_numpy())
        share = np.arange(1, len(values) + 1) / len(values)
        colour = _colour(scorer)
        axis.step(
            np.r_[0, values, 1],
            np.r_[0, share, 1],
            where="post",
            color=colour,
            linewidth=2 if i == 0 else 1.5,
        )
        text = f"{_name(scorer)}, median {np.median(values):.2f}"
        axis.annotate(text, (0.98, 0.06 + 0.07 * (len(shown) - 1 - i)), xycoords="axes fraction", ha="right",
                      color=colour, fontsize=9, fontweight="bold" if i == 0 else "normal")  # fmt: skip
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1)
    axis.set_xlabel("NDCG@10 of a user")
    axis.set_title(
        f"Share of users at or below, {kind} lists (lower is better)", loc="left", fontsize=10
    )
    return figure


def slices(evaluation: Evaluation, kind: str) -> Figure:
    """NDCG@10 in every bin with its 95 % interval, the fine-tuned model above the best baseline, and chance."""
    rows = evaluation.slices[evaluation.slices["kind"] == kind]
    bins = rows.drop_duplicates(["slice", "bin"])[
        ["slice", "bin", "n_users", "chance"]
    ].reset_index(drop=True)
    scorers = sorted(rows["scorer"].unique(), key=lambda scorer: scorer != "fine_tuned")
    figure, (axis,) = _panels(1, 1, width=6.8, height=1.2 + 0.32 * len(bins))
    bins["place"] = -(bins.index + 0.6 * (bins["slice"] != bins["slice"].shift()).cumsum())
    for i, scorer in enumerate(scorers):
        mine = rows[rows["scorer"] == scorer].merge(
            bins[["slice", "bin", "place"]], on=["slice", "bin"]
        )
        value, low, high = (
            mine[name].fillna(mine["ndcg_10"]).to_numpy() for name in ("ndcg_10", "low", "high")
        )
        axis.errorbar(value, mine["place"] + 0.15 - 0.3 * i, xerr=[value - low, high - value], color=_colour(scorer),
                      marker="o" if i == 0 else "s", markersize=4.5, linestyle="none", elinewidth=1.2, capsize=2,
                      label=_name(scorer))  # fmt: skip
    axis.plot(bins["chance"], bins["place"], "|", color=GREY, markersize=11, label="chance")
    labels = [
        f"{SLICES[row['slice']].format(row['bin'])}, n = {row['n_users']}"
        for row in bins.to_dict("records")
    ]
    axis.set_yticks(bins["place"], labels)
    axis.set_xlim(0, None)
    figure.suptitle(
        f"NDCG@10 by slice, {kind} lists (bars: 95 % over n users)", x=0.01, ha="left", fontsize=10
    )
    figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=3)
    return figure


def calibration(evaluation: Evaluation, kind: str) -> Figure:
    """The share of positives in bins of the fine-tuned model's probability; the diagonal is a calibrated one."""
    figure, (axis,) = _panels(1, 1, width=4.6, height=4.2)
    rows = evaluation.calibration[evaluation.calibration["kind"] == kind]
    end = 1.05 * float(rows[["mean_probability", "positive_fraction"]].max(axis=None))
    axis.plot([0, 1], [0, 1], color=GREY, linestyle=(0, (4, 3)), linewidth=1)
    axis.plot(
        rows["mean_probability"],
        rows["positive_fraction"],
        color=_colour("fine_tuned"),
        marker="o",
        markersize=4,
    )
    axis.set_xlim(0, end)
    axis.set_ylim(0, end)
    axis.set_xlabel("mean probability of a bin")
    axis.set_ylabel("share of positives")
    axis.set_title(f"Calibration, {kind} lists", loc="left", fontsize=10)
    return figure


def training(logs: Sequence[dict[str, float]]) -> Figure:
    """Loss above, dev NDCG@10 below, over optimiser steps; the best dev step is marked.

    Args:
        logs: Dicts of step with loss, or of step with dev_ndcg_10, in order.
    """
    figure, axes = _panels(2, 1, width=6.8, height=4.6)
    for axis, key, title in zip(
        axes, ("loss", "dev_ndcg_10"), ("Training loss", "Dev NDCG@10"), strict=True
    ):
        step, value = (
            np.array([(row["step"], row[key]) for row in logs if key in row]).reshape(-1, 2).T
        )
        axis.plot(step, value, color=COLOURS["fine_tuned"], linewidth=1.6, marker="o", markersize=3)
        axis.set_title(title, loc="left", fontsize=10)
        if key == "dev_ndcg_10" and len(value):
            best = int(np.argmax(value))
            axis.plot(
                step[best], value[best], "o", color=COLOURS["item_knn"], markersize=7, zorder=3
            )
            left = step[best] > 0.7 * max(row["step"] for row in logs)
            axis.annotate(f"best {value[best]:.3f} at step {step[best]:.0f}", (step[best], value[best]),
                          xytext=(-4 if left else 4, 8), textcoords="offset points", ha="right" if left else "left",
                          fontsize=9, color=COLOURS["item_knn"])  # fmt: skip
            axis.margins(y=0.25)
    axes[-1].set_xlabel("optimiser step")
    return figure


def _panels(
    n_rows: int, n_columns: int, *, width: float, height: float
) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    axes = list(figure.subplots(n_rows, n_columns, sharex=n_rows > 1, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes


def _label_ends(axis: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Names beside the lines' ends, moved apart upwards where they would overlap."""
    gap = 0.055 * (
        axis.get_ylim()[1] - axis.get_ylim()[0]
    )  # a line of text at 9 points in a panel of 4.2 inches
    last = -np.inf
    for scorer, x, y in sorted(ends, key=lambda end: end[2]):
        last = max(y, last + gap)
        axis.annotate(_name(scorer), (x, last), xytext=(6, 0), textcoords="offset points", va="center", fontsize=9,
                      color=_colour(scorer), annotation_clip=False,
                      fontweight="bold" if scorer == "fine_tuned" else "normal")  # fmt: skip


def _colour(scorer: str) -> str:
    return COLOURS.get(scorer, DARK)


def _name(scorer: str) -> str:
    return NAMES.get(scorer, scorer)
