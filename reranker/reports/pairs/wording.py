"""Words for the numbers of a pairs summary, shared by the page and the terminal."""

from __future__ import annotations

from reranker.reports.data.distributions import Distribution
from reranker.reports.pairs.summary import PairsSummary

TEXTS = {"user_ctx": "context", "book_text": "book text"}
PER_USER = {
    "positives": "positives",
    "negatives": "negatives",
    "negatives_per_positive": "negatives per positive",
}
# What may be wrong with the pairs, by name of its count.
CHECKS = {
    "duplicate_rows": "rows equal to an earlier row",
    "conflicts": "books of a user with both labels",
    "users_without_positives": "users without positives",
    "users_without_negatives": "users without negatives",
    "users_with_several_contexts": "users with several contexts",
}


def rows(summary: PairsSummary) -> list[tuple[str, int]]:
    """Return the number of rows read, dropped by reason, and kept."""
    dropped = [(f"dropped: no {name}", n) for name, n in summary.dropped.items() if n]
    return [("rows", summary.n["rows"]), *dropped, ("pairs", summary.n["pairs"])]


def labels(summary: PairsSummary) -> list[tuple[str, int, float]]:
    """Return the number and share of the pairs of each label."""
    total = summary.n["pairs"]
    named = (("1 (positive)", "positives"), ("0 (negative)", "negatives"))
    return [(name, summary.n[key], summary.n[key] / total if total else 0.0) for name, key in named]


def lengths(summary: PairsSummary) -> list[tuple[str, Distribution]]:
    """Return the distributions of characters and words of both texts."""
    return [
        (f"{unit} of the {label}", found[name])
        for unit, found in (("characters", summary.chars), ("words", summary.words))
        for name, label in TEXTS.items()
        if name in found
    ]


def per_user(summary: PairsSummary) -> list[tuple[str, Distribution]]:
    """Return the distributions over users."""
    return [(PER_USER[name], values) for name, values in summary.per_user.items()]
