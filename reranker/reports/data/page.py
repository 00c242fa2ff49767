"""The data report as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

from itertools import groupby

from reranker.reports.data.plots import draw
from reranker.reports.data.summary import DataSummary
from reranker.reports.page import count, number, render, share

TEXTS = {"user_ctx": "context", "book_text": "book", "pair": "both"}
BOOKS = {
    "given": "a text of the source",
    "rendered": "a text rendered from the columns",
    "description": "a description",
    "genres": "genres",
    "authors": "authors",
    "series": "a series",
}


def page(summary: DataSummary) -> str:
    """The report as HTML; every text of the data is escaped."""
    return render(
        "data/page.html",
        title="Data report",
        s=summary,
        figures=draw(summary),
        stages=[
            (stage, list(steps))
            for stage, steps in groupby(summary.funnel, key=lambda step: step.stage)
        ],
        tiles=_tiles(summary),
        audit=[
            (k.split("/")[1].replace("_", " "), n)
            for k, n in summary.counts.items()
            if k.startswith("audit/")
        ],
        token_rows=[(label, summary.tokens[name]) for name, label in TEXTS.items()],
        char_rows=[(label, summary.chars[name]) for name, label in TEXTS.items()],
        book_rows=[(label, summary.books[name]) for name, label in BOOKS.items()],
    )


def _tiles(summary: DataSummary) -> list[tuple[str, str]]:
    n = summary.n
    tiles = [
        (count(n["pairs"]), "pairs"),
        (count(n["users"]), "users in pairs"),
        (count(n["books"]), "books in pairs"),
        (share(n["positives"] / n["pairs"]), "of pairs are positive"),
        (share(summary.truncation.pair_fraction), "of pairs are cut to the model's length"),
    ]
    aucs = [
        (number(s.popularity_auc, 3), s.name)
        for s in summary.sources
        if s.popularity_auc is not None
    ]
    return tiles + [(value, f"AUC of popularity, {name} negatives") for value, name in aucs]
