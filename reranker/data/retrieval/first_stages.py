"""First stages that rank all books for a user: item-kNN and EASE on ratings, BM25 on texts."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reranker.data.draws import FloatArray
from reranker.data.retrieval.ease import EASE_BOOKS, Ease, incidence


class ItemKNN:
    """Item-based nearest neighbours: cosine similarity of books over the users who rated them.

    All neighbours are used, not only the most similar ones.

    Source: Deshpande & Karypis 2004.
    """

    def __init__(self, known: pd.DataFrame, *, n_users: int, n_books: int) -> None:
        self._shape = (n_users, n_books)
        ratings = incidence(known, self._shape)
        norm = np.sqrt(np.asarray(ratings.multiply(ratings).sum(axis=0)).ravel())
        scale = np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        self._unit = ratings @ sp.diags_array(scale)

    def scores(self, users: np.ndarray, context: pd.DataFrame) -> sp.csr_array:
        """Return sparse (n_users, n_books) scores.

        A score is the sum of a book's similarities to the user's context books.

        Args:
            users: User codes, one for each row of the result.
            context: Columns user and book: the context books of each user.
        """
        history = incidence(context, self._shape)[users]
        return ((history @ self._unit.T) @ self._unit).tocsr()


def fit_first_stage(
    name: str, known: pd.DataFrame, *, n_users: int, n_books: int, ease_books: int = EASE_BOOKS
) -> ItemKNN | Ease:
    """Return the first stage `item_knn` or `ease`, fitted on the known ratings.

    Args:
        name: `item_knn` or `ease`.
        known: Columns user and book.
        n_users, n_books: Numbers of user and book codes.
        ease_books: Number of books that have weights in `ease`.
    """
    if name == "ease":
        return Ease.fit(known, n_users=n_users, n_books=n_books, n_kept=ease_books)
    return ItemKNN(known, n_users=n_users, n_books=n_books)


class Bm25:
    """BM25 over the book texts of the catalogue, without English stop words."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = bm25s.BM25()
        tokens = bm25s.tokenize(list(texts), stopwords="en", show_progress=False)
        self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> FloatArray:
        """Return (n_books,) float32 scores of all books for a query text."""
        [words] = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        scores: FloatArray = self._index.get_scores(words)
        return scores
