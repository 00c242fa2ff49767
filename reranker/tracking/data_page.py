"""The data report as one HTML page that needs no other file, no script and no network."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from reranker.tracking.data_plots import draw
from reranker.tracking.data_report import DataSummary

TEMPLATE = Path(__file__).with_suffix(".html")
MAX_SHOWN = 1500  # characters of one text in an example
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
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"count": _count, "number": _number, "share": _share, "short": _short}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        s=summary,
        figures=draw(summary),
        stages=[(stage, list(steps)) for stage, steps in groupby(summary.funnel, key=lambda step: step.stage)],
        tiles=_tiles(summary),
        audit=[(k.split("/")[1].replace("_", " "), n) for k, n in summary.counts.items() if k.startswith("audit/")],
        token_rows=[(label, summary.tokens[name]) for name, label in TEXTS.items()],
        char_rows=[(label, summary.chars[name]) for name, label in TEXTS.items()],
        book_rows=[(label, summary.books[name]) for name, label in BOOKS.items()],
    )


def _tiles(summary: DataSummary) -> list[tuple[str, str]]:
    n = summary.n
    tiles = [
        (_count(n["pairs"]), "pairs"),
        (_count(n["users"]), "users in pairs"),
        (_count(n["books"]), "books in pairs"),
        (_share(n["positives"] / n["pairs"]), "of pairs are positive"),
        (_share(summary.truncation.pair_fraction), "of pairs are cut to the model's length"),
    ]
    aucs = [(_number(s.popularity_auc, 3), s.name) for s in summary.sources if s.popularity_auc is not None]
    return tiles + [(value, f"AUC of popularity, {name} negatives") for value, name in aucs]


def _count(value: int) -> str:
    return f"{value:,}"


def _number(value: float, digits: int) -> str:
    return f"{value:,.{digits}f}"


def _share(value: float) -> str:
    """Per cent; what is not 0 or all is not rounded to it."""
    if 0 < value < 0.001:
        return "<\u00a00.1\u00a0%"
    if 0.999 < value < 1:
        return ">\u00a099.9\u00a0%"
    return f"{100 * value:.1f}\u00a0%"


def _short(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]} …"
