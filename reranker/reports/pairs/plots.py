"""Draw the figures of the page on a pairs file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reranker.reports import svg
from reranker.reports.colours import GREY
from reranker.reports.data.plots import BOOK, CONTEXT, POSITIVE, draw_histogram
from reranker.reports.pairs.summary import PairsSummary
from reranker.reports.svg import panel

RATIO = "negatives_per_positive"


def draw(summary: PairsSummary) -> dict[str, str]:
    """Return the figures that have data, as `<svg>` elements by name."""
    made: dict[str, Callable[[], Figure]] = {}
    for name in summary.per_user:
        make = _ratio if name == RATIO else partial(_users, name=name)
        made[name] = partial(make, summary)
    if summary.n["pairs"]:
        made |= {unit: partial(_lengths, summary, unit) for unit in ("chars", "words")}
    return {name: svg.draw(name, make) for name, make in made.items()}


def _users(summary: PairsSummary, *, name: str) -> Figure:
    """Draw the number of users by their number of positives or negatives."""
    figure, axis = panel(f"{name} of a user", "users")
    draw_histogram(axis, summary.per_user[name], POSITIVE if name == "positives" else GREY)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _ratio(summary: PairsSummary) -> Figure:
    """Draw the share of users with at most a number of negatives per positive."""
    figure, axis = panel("negatives per positive of a user", "share of users at or below")
    percentiles = summary.per_user[RATIO].percentiles
    axis.step([0, *percentiles], np.arange(-1, 101).clip(0) / 100, where="post", color=GREY)
    axis.set_xlim(0, max(1.0, 1.05 * percentiles[-1]))
    axis.set_ylim(0, 1.02)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
    return figure


def _lengths(summary: PairsSummary, unit: str) -> Figure:
    """Draw the distributions of the lengths of contexts and of book texts."""
    lengths = {"chars": summary.chars, "words": summary.words}[unit]
    names = {"chars": "characters", "words": "words"}
    figure, axis = panel(f"{names[unit]} of the text", f"share of pairs per {names[unit][:-1]}")
    for name, label, colour in (("user_ctx", "context", CONTEXT), ("book_text", "book", BOOK)):
        values = lengths[name]
        density = values.counts / np.diff(values.edges) / summary.n["pairs"]
        axis.stairs(density, values.edges, color=colour, fill=True, alpha=0.35)
        axis.stairs(density, values.edges, color=colour, linewidth=1.6, label=label)
    axis.set_xlim(0, None)
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.1%}"))
    axis.legend(frameon=False)
    return figure
