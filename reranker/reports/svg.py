"""Figures for pages: SVG that takes its ink from the page, so that it is readable on light and dark."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK = "#012345"  # stands for the page's text colour until the SVG is written; no other colour here is near it
# After Okabe & Ito 2008, at a lightness that stands out from white and from near black.
BLUE, ORANGE, GREEN, PINK, GREY = "#1b87c9", "#d98a00", "#0f9d74", "#c8689c", "#8a8f98"
RED, VIOLET = "#d5641c", "#7d6bd0"
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and takes the page's font
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(name: str, make: Callable[[], Figure]) -> str:
    """The figure that `make` draws as one `<svg>` element without a header; its ink is the page's `currentColor`.

    Args:
        name: One of its own for each figure of a page: the ids inside are made of it, and of the same numbers the
            same ids.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        make().savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(
        r'<g id="[^"]*"', "<g", text
    )  # the names of parts are those of every other figure
    return text.replace(INK, "currentColor")


def panel(
    x: str, y: str, *, layout: Literal["constrained"] | None = "constrained"
) -> tuple[Figure, Axes]:
    """An empty figure with one pair of axes, named.

    Args:
        layout: `constrained` makes room for any label and draws twice for it; None has room for ticks such as 0.75.
    """
    figure = Figure(figsize=(4.6, 2.9), layout=layout)  # a phone shows it at four fifths of this
    if layout is None:
        figure.subplots_adjust(left=0.13, bottom=0.16, right=0.97, top=0.96)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    return figure, axis
