"""First stages that rank the whole catalogue for a reader: item-kNN and EASE from ratings, BM25 from texts."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import pandas as pd
import scipy.sparse as sp

from reranker.data.draws import FloatArray
from reranker.data.retrieval.ease import Ease, incidence


class ItemKNN:
    """Cosine similarity of books over who is known to have rated them, all neighbours kept.

    Source: Deshpande & Karypis 2004.
    """

    def __init__(self, known: pd.DataFrame, *, n_users: int, n_books: int) -> None:
        self._shape = (n_users, n_books)
        ratings = incidence(known, self._shape)
        norm = np.sqrt(np.asarray(ratings.multiply(ratings).sum(axis=0)).ravel())
        self._unit = ratings @ sp.diags_array(
            np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0)
        )

    def scores(self, users: np.ndarray, context: pd.DataFrame) -> sp.csr_array:
        """(n_users, n_books) sparse: the sum of a book's similarities to the user's context books.

        Args:
            users: Codes, whose rows come back in this order.
            context: user, book.
        """
        mine = incidence(context, self._shape)[users]
        return ((mine @ self._unit.T) @ self._unit).tocsr()


def fit_first_stage(
    name: str, known: pd.DataFrame, *, n_users: int, n_books: int, ease_books: int
) -> ItemKNN | Ease:
    """The first stage from ratings of this name, `item_knn` or `ease`, fitted on what is known: user, book.

    Args:
        ease_books: Books that `ease` keeps.
    """
    if name == "ease":
        return Ease.fit(known, n_users=n_users, n_books=n_books, n_kept=ease_books)
    return ItemKNN(known, n_users=n_users, n_books=n_books)


class Bm25:
    """BM25 over the book texts of the catalogue, English stop words left out."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = bm25s.BM25()
        self._index.index(
            bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False
        )

    def scores(self, query: str) -> FloatArray:
        """(n_books,) float32 scores of all books for a text."""
        [words] = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        found: FloatArray = self._index.get_scores(words)
        return found
