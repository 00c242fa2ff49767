"""Four books, and the requests and bundles that tests make of them."""

from __future__ import annotations

import numpy as np
import pandas as pd

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


def ids(ranked: list[Ranked]) -> list[int | str | None]:
    return [r.book_id for r in ranked]
