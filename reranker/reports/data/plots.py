"""Draw the figures of the data report."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reranker.reports import svg
from reranker.reports.colours import BLUE, GREEN, GREY, ORANGE, PINK, RED, VIOLET
from reranker.reports.data.distributions import Distribution
from reranker.reports.data.summary import DataSummary
from reranker.reports.svg import INK, panel

POSITIVE, CONTEXT, BOOK = BLUE, ORANGE, GREEN
SOURCES = {
    "positive": POSITIVE,
    "uniform": GREY,
    "popularity": PINK,
    "retriever": RED,
    "disliked": VIOLET,
}


def draw(summary: DataSummary) -> dict[str, str]:
    """Return every figure as an `<svg>` element: positives_per_user, tokens, texts, popularity."""
    figures = {
        "positives_per_user": positives_per_user,
        "tokens": pair_tokens,
        "texts": text_tokens,
        "popularity": popularity,
    }
    return {name: svg.draw(name, partial(make, summary)) for name, make in figures.items()}


def positives_per_user(summary: DataSummary) -> Figure:
    """Draw the number of users by their number of positives."""
    figure, axis = panel("positives of a user", "users")
    draw_histogram(axis, summary.per_user["positives"], POSITIVE)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def pair_tokens(summary: DataSummary) -> Figure:
    """Draw the number of pairs by their tokens, and the limit above which they are truncated."""
    figure, axis = panel("tokens of context and book", "pairs")
    limit = summary.truncation.max_tokens
    draw_histogram(axis, summary.tokens["pair"], POSITIVE)
    axis.set_xlim(0, max(axis.get_xlim()[1], limit * 1.05))
    axis.axvline(limit, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    side, offset = ("right", -4) if limit > 0.6 * axis.get_xlim()[1] else ("left", 4)
    axis.annotate(
        f"limit {limit:,}",
        (limit, 1),
        xycoords=("data", "axes fraction"),
        xytext=(offset, 2),
        textcoords="offset points",
        ha=side,
        va="bottom",
    )
    return figure


def text_tokens(summary: DataSummary) -> Figure:
    """Draw the distributions of the tokens of contexts and of book texts."""
    figure, axis = panel("tokens of the text", "share of pairs per token")
    for name, label, colour in (("user_ctx", "context", CONTEXT), ("book_text", "book", BOOK)):
        values = summary.tokens[name]
        density = values.counts / np.diff(values.edges) / summary.truncation.n_pairs
        axis.stairs(density, values.edges, color=colour, fill=True, alpha=0.35)
        axis.stairs(density, values.edges, color=colour, linewidth=1.6, label=label)
    axis.set_xlim(0, None)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))
    axis.legend(frameon=False)
    return figure


def popularity(summary: DataSummary) -> Figure:
    """Draw the share of pairs whose book has at most a number of ratings, a line per source."""
    figure, axis = panel("known ratings of the book by others", "share of pairs at or below")
    fraction = np.arange(101) / 100
    for source in summary.sources:
        style: Any = {"color": SOURCES.get(source.name, INK), "label": source.name}
        style["linewidth"] = 2.2 if source.name == "positive" else 1.6
        axis.step(source.popularity.percentiles, fraction, where="post", **style)
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, None)
    axis.set_ylim(0, 1)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axis.legend(frameon=False, loc="upper left")
    return figure


def draw_histogram(axis: Axes, values: Distribution, colour: str) -> None:
    """Draw a distribution as bars."""
    edges, width = values.edges[:-1], np.diff(values.edges)
    # A bar that holds one integer is centred on it.
    left = edges - 0.5 if width[0] == 1 else edges
    shown = width * (0.9 if len(width) < 15 else 1)
    axis.bar(left, values.counts, shown, align="edge", color=colour)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
