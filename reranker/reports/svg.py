"""Draw figures as SVG that takes its text colour from the page, for light and dark themes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# A placeholder for the page's text colour until `draw` replaces it; no other colour is near it.
INK = "#012345"
STYLE: Any = {
    "svg.fonttype": "none",  # text stays searchable and uses the page's font
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
}


def draw(name: str, make: Callable[[], Figure]) -> str:
    """Return the figure that `make` creates as one `<svg>` element with `currentColor` as ink.

    Args:
        name: Unique on the page. Ids inside the SVG are derived from it, so that equal numbers
            give equal ids.
        make: Creates the figure; the style above is active during the call.
    """
    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        make().savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    # Matplotlib gives the groups of every figure the same ids.
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    return text.replace(INK, "currentColor")


def panel(
    x: str, y: str, *, layout: Literal["constrained"] | None = "constrained"
) -> tuple[Figure, Axes]:
    """Return an empty figure and its axes with labels.

    Args:
        x: Label of the x axis.
        y: Label of the y axis.
        layout: `constrained` fits any label but draws the figure twice; None reserves space for
            tick labels as wide as 0.75.
    """
    figure = Figure(figsize=(4.6, 2.9), layout=layout)  # inches; a phone shows it at about 80 %
    if layout is None:
        figure.subplots_adjust(left=0.13, bottom=0.16, right=0.97, top=0.96)
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    return figure, axis
