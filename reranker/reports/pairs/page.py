"""Render the summary of a pairs file as one self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from reranker.errors import ConfigError
from reranker.reports import page as pages
from reranker.reports.page import count, percent, render
from reranker.reports.pairs import wording
from reranker.reports.pairs.plots import draw
from reranker.reports.pairs.summary import PairsSummary

FIGURES = {
    "positives": "Users by number of positives",
    "negatives": "Users by number of negatives",
    "negatives_per_positive": "Negatives per positive",
    "words": "Pairs by words of each text",
    "chars": "Pairs by characters of each text",
}


def page(summary: PairsSummary) -> str:
    """Return the page as HTML; every text of the data is escaped."""
    figures = [(name, svg, FIGURES[name]) for name, svg in draw(summary).items()]
    return render(
        "pairs/page.html",
        title="Pairs",
        s=summary,
        tiles=_tiles(summary),
        rows=wording.rows(summary),
        labels=wording.labels(summary),
        checks=[(label, summary.n[name]) for name, label in wording.CHECKS.items()],
        per_user=wording.per_user(summary),
        lengths=wording.lengths(summary),
        user_figures=[(svg, title) for name, svg, title in figures if name in summary.per_user],
        text_figures=[(svg, title) for name, svg, title in figures if name not in summary.per_user],
    )


def write_page(path: Path, summary: PairsSummary) -> None:
    """Write the page.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        pages.write_page(path, page(summary))
    except OSError as error:
        raise ConfigError(
            f"--html={path} cannot be written ({error.strerror}). Name a file in a folder that "
            "exists."
        ) from error


def _tiles(summary: PairsSummary) -> list[tuple[str, str]]:
    n = summary.n
    tiles = [(count(n[name]), name) for name in ("pairs", "users", "books", "contexts")]
    if n["pairs"]:
        tiles.append((percent(n["positives"] / n["pairs"]), "of pairs are positive"))
    if n["rows"]:
        tiles.append((percent((n["rows"] - n["pairs"]) / n["rows"]), "of rows are dropped"))
    return tiles
