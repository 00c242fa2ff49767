"""Render the data report as one self-contained HTML page."""

from __future__ import annotations

from itertools import groupby

from reranker.reports.data.plots import draw
from reranker.reports.data.summary import DataSummary
from reranker.reports.page import count, number, percent, render

TEXTS = {"user_ctx": "context", "book_text": "book", "pair": "both"}
BOOKS = {
    "given": "a text from the source",
    "rendered": "a text rendered from the columns",
    "description": "a description",
    "genres": "genres",
    "authors": "authors",
    "series": "a series",
}


def page(summary: DataSummary) -> str:
    """Return the report as HTML; every text of the data is escaped."""
    stages = groupby(summary.funnel, key=lambda step: step.stage)
    audit = [(key, n) for key, n in summary.counts.items() if key.startswith("audit/")]
    return render(
        "data/page.html",
        title="Data report",
        s=summary,
        figures=draw(summary),
        stages=[(stage, list(steps)) for stage, steps in stages],
        tiles=_tiles(summary),
        audit=[(key.removeprefix("audit/").replace("_", " "), n) for key, n in audit],
        token_rows=[(label, summary.tokens[name]) for name, label in TEXTS.items()],
        char_rows=[(label, summary.chars[name]) for name, label in TEXTS.items()],
        book_rows=[(label, summary.books[name]) for name, label in BOOKS.items()],
    )


def _tiles(summary: DataSummary) -> list[tuple[str, str]]:
    n = summary.n
    aucs = [(s.name, s.popularity_auc) for s in summary.sources if s.popularity_auc is not None]
    return [
        (count(n["pairs"]), "pairs"),
        (count(n["users"]), "users in pairs"),
        (count(n["books"]), "books in pairs"),
        (percent(n["positives"] / n["pairs"]), "of pairs are positive"),
        (percent(summary.truncation.pair_fraction), "of pairs are truncated"),
        *((number(auc, 3), f"AUC of popularity, {name} negatives") for name, auc in aucs),
    ]
