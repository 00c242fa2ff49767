"""Figures of the data report, for its page."""

from __future__ import annotations

from functools import partial

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reranker.reports import svg
from reranker.reports.data.distributions import Spread
from reranker.reports.data.summary import DataSummary
from reranker.reports.svg import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, VIOLET, panel

POSITIVE, CONTEXT, BOOK = BLUE, ORANGE, GREEN
SOURCES = {
    "positive": POSITIVE,
    "uniform": GREY,
    "popularity": PINK,
    "retriever": RED,
    "disliked": VIOLET,
}


def draw(summary: DataSummary) -> dict[str, str]:
    """Every figure of the report as an `<svg>` element: positives_per_user, tokens, texts, popularity."""
    figures = {
        "positives_per_user": positives_per_user,
        "tokens": pair_tokens,
        "texts": text_tokens,
        "popularity": popularity,
    }
    return {name: svg.draw(name, partial(make, summary)) for name, make in figures.items()}


def positives_per_user(summary: DataSummary) -> Figure:
    """Users by their number of positives."""
    figure, axis = panel("positives of a user", "users")
    _bars(axis, summary.per_user["positives"], POSITIVE)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def pair_tokens(summary: DataSummary) -> Figure:
    """Pairs by their number of tokens, with the limit above which they are cut."""
    figure, axis = panel("tokens of context and book", "pairs")
    limit = summary.truncation.max_tokens
    _bars(axis, summary.tokens["pair"], POSITIVE)
    axis.set_xlim(0, max(axis.get_xlim()[1], limit * 1.05))
    axis.axvline(limit, color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    left = limit > 0.6 * axis.get_xlim()[1]
    axis.annotate(f"limit {limit:,}", (limit, 1), xycoords=("data", "axes fraction"), xytext=(-4 if left else 4, 2),
                  textcoords="offset points", ha="right" if left else "left", va="bottom")  # fmt: skip
    return figure


def text_tokens(summary: DataSummary) -> Figure:
    """Pairs by the tokens of their context and of their book text."""
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
    """The share of pairs whose book has at most so many known ratings, a line for each source."""
    figure, axis = panel("known ratings of the book by others", "share of pairs at or below")
    for source in summary.sources:
        strong = source.name == "positive"
        axis.step(source.popularity.percentiles, np.arange(101) / 100, where="post", label=source.name,
                  color=SOURCES.get(source.name, INK), linewidth=2.2 if strong else 1.6)  # fmt: skip
    axis.set_xscale("symlog", linthresh=1)
    axis.set_xlim(0, None)
    axis.set_ylim(0, 1)
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    axis.legend(frameon=False, loc="upper left")
    return figure


def _bars(axis: Axes, values: Spread, colour: str) -> None:
    width = np.diff(values.edges)
    gap = 0.5 if width[0] == 1 else 0  # whole numbers stand in the middle of their bar
    axis.bar(
        values.edges[:-1] - gap,
        values.counts,
        width * (0.9 if len(width) < 15 else 1),
        align="edge",
        color=colour,
    )
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
