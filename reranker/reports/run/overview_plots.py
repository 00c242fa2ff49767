"""Draw the figures of an evaluation that a run logs as images, with all scorers named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from reranker.reports.colours import GREY
from reranker.reports.run import plots
from reranker.reports.scorers import find_scorer, scorer_name

if TYPE_CHECKING:
    import pandas as pd

    from reranker.data.draws import FloatArray
    from reranker.eval import Evaluation

DARK, PALE = "#333333", "#b8c4cc"
_ENDS = ("low", "high")
LINE_GAP = 0.055  # height of a line of text, as a fraction of the y axis of `curves`
BIN_LABELS = {
    "history_length": "{} history books",
    "target_popularity": "popularity decile {}",
    "same_author": "author in history: {}",
    "without_same_author": "author not in history: {}",
    "cold_books": "unrated book: {}",
    "truncated": "truncated: {}",
}


def evaluation_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Return every figure of an evaluation by file name.

    The names are `ndcg_10`, and for each list kind `ndcg_by_k_<kind>` and `users_<kind>`; also
    `slices_<kind>` and `calibration_<kind>` if the evaluation has these values.
    """
    figures = {"ndcg_10": bars(evaluation.summary)}
    for kind in evaluation.summary["kind"].unique():
        summary, per_user, curve, bands, bins, calibration = (
            frame[frame["kind"] == kind]
            for frame in (
                evaluation.summary,
                evaluation.per_user,
                evaluation.curve,
                evaluation.bands,
                evaluation.slices,
                evaluation.calibration,
            )
        )
        figures[f"ndcg_by_k_{kind}"] = curves(curve, bands)
        figures[f"users_{kind}"] = _titled(
            plots.users(per_user, _compared(summary)), f"Users by NDCG@10, {kind} lists"
        )
        if len(bins):
            figures[f"slices_{kind}"] = slices(bins)
        if len(calibration):
            figure = plots.calibration(calibration)
            figures[f"calibration_{kind}"] = _titled(figure, f"Calibration, {kind} lists")
    return figures


def _compared(summary: pd.DataFrame) -> list[str]:
    """Return the fine-tuned model, the untrained one and the best baseline, if they exist."""
    mean = summary.set_index("scorer")["ndcg_10"]
    baselines = mean[[s for s in mean.index if not find_scorer(s).is_model and s != "untrained"]]
    best = [str(baselines.idxmax())] if len(baselines) else []
    return [scorer for scorer in ("fine_tuned", "untrained", *best) if scorer in mean]


def bars(summary: pd.DataFrame) -> Figure:
    """Draw NDCG@10 of every scorer with its 95 % interval, best on top; a panel per list kind."""
    kinds = list(summary["kind"].unique())
    height = 1.3 + 0.42 * summary["scorer"].nunique()
    figure, axes = _panels(len(kinds), width=5.6 * len(kinds), height=height)
    for axis, kind in zip(axes, kinds, strict=True):
        _draw_bars(axis, summary[summary["kind"] == kind].sort_values("ndcg_10"))
        axis.set_title(f"NDCG@10, {kind} lists (bars: 95 % over users)", loc="left", fontsize=10)
    return figure


def _draw_bars(axis: Axes, rows: pd.DataFrame) -> None:
    value = rows["ndcg_10"].to_numpy()
    # The mean of one user has no interval.
    low, high = (rows[f"ndcg_10_{end}"].fillna(rows["ndcg_10"]).to_numpy() for end in _ENDS)
    place = np.arange(len(rows))
    shades = [find_scorer(s).colour if s == "fine_tuned" else PALE for s in rows["scorer"]]
    axis.barh(place, value, color=shades, height=0.64)
    style: Any = {"ecolor": DARK, "elinewidth": 1.2, "capsize": 2.5}
    axis.errorbar(value, place, xerr=[value - low, high - value], fmt="none", **style)
    offset: Any = {"textcoords": "offset points", "fontsize": 9}
    for at, end, number in zip(place, high, value, strict=True):
        axis.annotate(f"{number:.3f}", (end, at), xytext=(5, 0), va="center", **offset)
    _draw_chance(axis, value[(rows["scorer"] == "random").to_numpy()])
    axis.set_yticks(place, [scorer_name(s) for s in rows["scorer"]])
    axis.tick_params(axis="y", length=0)
    axis.set_xlim(0, float(high.max()) * 1.16 or 1)  # 1 if all values are zero
    axis.set_ylim(-0.6, len(rows) - 0.1)


def _draw_chance(axis: Axes, chance: FloatArray) -> None:
    """Draw a line at the random scorer's value; `chance` has no value or one."""
    for value in chance:
        axis.axvline(value, color=DARK, linestyle=(0, (4, 3)), linewidth=1)
        style: Any = {"textcoords": "offset points", "fontsize": 8, "color": DARK, "va": "top"}
        style |= {"xycoords": ("data", "axes fraction"), "xytext": (3, -2)}
        axis.annotate("chance", (value, 1), **style)


def curves(curve: pd.DataFrame, bands: pd.DataFrame) -> Figure:
    """Draw NDCG at every cut-off of one list kind: a named line per scorer, with 95 % bands."""
    figure, (axis,) = _panels(1, width=6.8, height=4.2)
    for scorer, band in bands.groupby("scorer"):
        plots.draw_band(axis, str(scorer), band)
    ends = []
    for scorer, line in curve.groupby("scorer"):
        k, ndcg = line["k"].to_numpy(), line["ndcg"].to_numpy()
        strong = scorer == "fine_tuned"
        style: Any = {"linewidth": 2.4 if strong else 1.4, "zorder": 3 if strong else 2}
        axis.plot(k, ndcg, color=find_scorer(str(scorer)).colour, **style)
        ends.append((str(scorer), float(k[-1]), float(ndcg[-1])))
    plots.draw_k_axis(axis, int(curve["k"].max()))
    axis.set_ylim(0, float(curve["ndcg"].max()) * 1.1 or 1)
    axis.set_xlabel("k")
    kind = curve["kind"].iloc[0]
    axis.set_title(f"NDCG@k, mean over users, {kind} lists", loc="left", fontsize=10)
    _name_lines(axis, ends)
    return figure


def _name_lines(axis: Axes, ends: list[tuple[str, float, float]]) -> None:
    """Write each scorer's name at the end of its line; names that would overlap move up."""
    low, high = axis.get_ylim()
    last = -np.inf
    for scorer, x, y in sorted(ends, key=lambda end: end[2]):
        last = max(y, last + LINE_GAP * (high - low))
        axis.annotate(
            scorer_name(scorer),
            (x, last),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=find_scorer(scorer).colour,
            annotation_clip=False,
            fontweight="bold" if scorer == "fine_tuned" else "normal",
        )


def slices(rows: pd.DataFrame) -> Figure:
    """Draw NDCG@10 in every bin of all slices with 95 % intervals, and each bin's chance level."""
    bins = rows.drop_duplicates(["slice", "bin"])[["slice", "bin", "n_users", "chance"]]
    bins = bins.reset_index(drop=True)
    bins["place"] = -(bins.index + 0.6 * (bins["slice"] != bins["slice"].shift()).cumsum())
    figure, (axis,) = _panels(1, width=6.8, height=1.2 + 0.32 * len(bins))
    scorers = sorted(rows["scorer"].unique(), key=lambda scorer: scorer != "fine_tuned")
    for i, scorer in enumerate(scorers):
        own = rows[rows["scorer"] == scorer].merge(bins[["slice", "bin", "place"]])
        value, low, high = (own[c].fillna(own["ndcg_10"]) for c in ("ndcg_10", *_ENDS))
        style: Any = {"color": find_scorer(scorer).colour, "label": scorer_name(scorer)}
        style |= {"marker": "s" if i else "o", "markersize": 4.5, "linestyle": "none"}
        errors = [value - low, high - value]
        place = own["place"] + 0.15 - 0.3 * i
        axis.errorbar(value, place, xerr=errors, elinewidth=1.2, capsize=2, **style)
    axis.plot(bins["chance"], bins["place"], "|", color=GREY, markersize=11, label="chance")
    axis.set_yticks(bins["place"], [_bin_label(row) for row in bins.to_dict("records")])
    axis.set_xlim(0, None)
    title = f"NDCG@10 by slice, {rows['kind'].iloc[0]} lists (bars: 95 % over n users)"
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.legend(frameon=False, fontsize=9, loc="outside lower right", ncols=3)
    return figure


def _bin_label(row: dict[Any, Any]) -> str:
    return f"{BIN_LABELS[row['slice']].format(row['bin'])}, n = {row['n_users']}"


def _panels(n: int, *, width: float, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = list(figure.subplots(1, n, squeeze=False).ravel())
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=9)
    return figure, axes


def _titled(figure: Figure, title: str) -> Figure:
    """Return a page's figure with a title."""
    figure.subplots_adjust(top=0.91)
    figure.axes[0].set_title(title, loc="left", fontsize=10)
    return figure
