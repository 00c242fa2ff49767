"""A catalogue of four books, and the corpus and the request that tests make of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from reranker.data import ContextBuilder, Contexts, Corpus, Tables
from reranker.data.numeric_features import NumericFeatures
from reranker.serving.reranker import Ranked

CONTEXT = {"n_titles": 2, "n_genres": 2, "positive_rating": 4.0}
BOOKS = pd.DataFrame(
    [
        (
            10,
            "Dune (Dune, #1)",
            "Dune #1",
            "Frank Herbert",
            "science fiction, classics",
            "",
            "Dune by Frank Herbert",
        ),
        (20, "Emma", "", "Jane Austen", "romance, classics", "", "Emma by Jane Austen"),
        (30, "It", "", "Stephen King", "horror", "", "It by Stephen King"),
        (40, "Ulysses", "", "James Joyce", "classics", "", "Ulysses by James Joyce"),
    ],
    columns=["book_id", "title", "series", "authors", "genres", "description", "book_text"],
)
EDITIONS = pd.DataFrame(
    {"book_id": [10, 11, 20, 30, 40], "book": np.array([0, 0, 1, 2, 3], dtype=np.int32)}
)
REQUEST = {
    "history": [11, 40],
    "ratings": [5.0, 4.0],
    "candidates": [{"book_id": 20}, {"text": "Title: It"}],
}


def corpus_of(
    books: pd.DataFrame = BOOKS,
    editions: pd.DataFrame = EDITIONS,
    *,
    features: NumericFeatures | None = None,
    digest: str = "digest of tables",
) -> Corpus:
    """Return a corpus of these books without users, as far as a bundle needs one."""
    nobody = pd.DataFrame({"user": [], "book": []}, dtype=np.int64)
    tables = Tables(books, nobody, nobody, editions, 4.0, digest, {}, Path("nowhere"))
    contexts = Contexts([], nobody, ContextBuilder(books, **CONTEXT), features)
    return Corpus(tables, contexts)


def ids(ranked: list[Ranked]) -> list[int | str | None]:
    return [r.book_id for r in ranked]
