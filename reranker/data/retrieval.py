"""First stages that rank the whole catalogue for a reader: item-kNN and EASE from ratings, BM25 from texts."""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import pandas as pd
import scipy.linalg.lapack as lapack
import scipy.sparse as sp

from reranker.data.draws import FloatArray

# Mean NDCG@10 of three list kinds, 138 dev users of 1,321 Goodreads members: .465 for 30, .473 for 100, .480 for 200,
# .478 for 300, .475 for 500, .476 for 1000.
EASE_L2 = 200.0


class ItemKNN:
    """Cosine similarity of books over who is known to have rated them, all neighbours kept.

    Source: Deshpande & Karypis 2004.
    """

    def __init__(self, known: pd.DataFrame, *, n_users: int, n_books: int) -> None:
        self._shape = (n_users, n_books)
        ratings = _incidence(known, self._shape)
        norm = np.sqrt(np.asarray(ratings.multiply(ratings).sum(axis=0)).ravel())
        self._unit = ratings @ sp.diags_array(np.divide(1.0, norm, out=np.zeros_like(norm), where=norm > 0))

    def scores(self, users: np.ndarray, context: pd.DataFrame) -> sp.csr_array:
        """(n_users, n_books) sparse: the sum of a book's similarities to the user's context books.

        Args:
            users: Codes, whose rows come back in this order.
            context: user, book.
        """
        mine = _incidence(context, self._shape)[users]
        return ((mine @ self._unit.T) @ self._unit).tocsr()


class Ease:
    """Linear weights from book to book that best rebuild who is known to have rated what, none from a book to itself.

    With the Gram matrix G of the books, P = (G + EASE_L2 I)^-1, the weight from i to j is -P_ij / P_jj. P is dense: the
    n_kept books that are rated most often (ties: ascending code) have weights, and all others score 0. Seconds grow
    with the cube of n_kept, memory with 16 B times its square: 5,000 books took 2.7 s and 10,000 20 s on 2 cores.

    Source: Steck 2019, "Embarrassingly shallow autoencoders for sparse data".
    """

    def __init__(self, known: pd.DataFrame, *, n_users: int, n_books: int, n_kept: int) -> None:
        self._shape = (n_users, n_books)
        count = np.bincount(known["book"], minlength=n_books)
        self._kept = np.sort(np.argsort(-count, kind="stable")[:n_kept])
        ratings = _incidence(known, self._shape)[:, self._kept]
        self._weight = _ease_weights((ratings.T @ ratings).toarray(order="F"))

    def scores(self, users: np.ndarray, context: pd.DataFrame) -> sp.csr_array:
        """(n_users, n_books) sparse, only the kept books stored: the sum of the weights from the user's context books.

        Args:
            users: Codes, whose rows come back in this order.
            context: user, book.
        """
        dense = _incidence(context, self._shape)[users][:, self._kept] @ self._weight
        place = np.tile(self._kept, len(users)), np.arange(len(users) + 1) * len(self._kept)
        return sp.csr_array((dense.ravel(), *place), shape=(len(users), self._shape[1]))


def fit_first_stage(name: str, known: pd.DataFrame, *, n_users: int, n_books: int, ease_books: int) -> ItemKNN | Ease:
    """The first stage from ratings of this name, `item_knn` or `ease`, fitted on what is known: user, book.

    Args:
        ease_books: Books that `ease` keeps.
    """
    if name == "ease":
        return Ease(known, n_users=n_users, n_books=n_books, n_kept=ease_books)
    return ItemKNN(known, n_users=n_users, n_books=n_books)


def _incidence(rows: pd.DataFrame, shape: tuple[int, int]) -> sp.csr_array:
    return sp.csr_array((np.ones(len(rows)), (rows["user"].to_numpy(), rows["book"].to_numpy())), shape=shape)


def _ease_weights(gram: FloatArray) -> FloatArray:
    """(n, n) weights; the Gram matrix is overwritten, so that two such matrices are in memory at the peak."""
    np.fill_diagonal(gram, gram.diagonal() + EASE_L2)
    factor, _ = lapack.dpotrf(gram, overwrite_a=True)  # positive definite by EASE_L2 > 0
    weight, _ = lapack.dpotri(factor, overwrite_c=True)  # of the symmetric inverse, the upper triangle
    weight += np.triu(weight, 1).T
    weight /= -weight.diagonal().copy()
    np.fill_diagonal(weight, 0.0)
    return np.asarray(weight)


class Bm25:
    """BM25 over the book texts of the catalogue, English stop words left out."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(list(texts), stopwords="en", show_progress=False), show_progress=False)

    def scores(self, query: str) -> FloatArray:
        """(n_books,) float32 scores of all books for a text."""
        [words] = bm25s.tokenize([query], stopwords="en", return_ids=False, show_progress=False)
        found: FloatArray = self._index.get_scores(words)
        return found
