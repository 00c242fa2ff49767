"""EASE: a linear item-item model fitted on ratings, which can exclude a user's own ratings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import scipy.linalg.lapack as lapack
import scipy.sparse as sp
from safetensors.numpy import load_file, save_file

from reranker.data.draws import FloatArray, IntArray

# Mean NDCG@10 by EASE_L2, over three kinds of candidate lists of 138 dev users (1,321 Goodreads
# members): .465 at 30, .473 at 100, .480 at 200, .478 at 300, .475 at 500, .476 at 1000.
EASE_L2 = 200.0
# Default number of books that have weights: the most rated ones.
EASE_BOOKS = 5000


class Ease:
    """Linear weights between books that best reconstruct the matrix of known ratings.

    No book has a weight to itself. With the Gram matrix G of the books, P = (G + EASE_L2 I)^-1 and
    the weight from i to j is -P_ij / P_jj. P is dense, so only the n_kept most rated books (ties:
    ascending code) have weights; all others score 0. Time grows with the cube of n_kept, memory is
    16 B times its square: 5,000 books took 2.7 s and 10,000 took 20 s on 2 cores.

    Source: Steck 2019, "Embarrassingly shallow autoencoders for sparse data".

    Attributes:
        kept: (n_kept,) codes of the books that have weights, ascending.
        inverse: (n_kept, n_kept) P.

    Example:
        >>> known = pd.DataFrame({"user": [0, 0, 1], "book": [0, 1, 1]})
        >>> ease = Ease.fit(known, n_users=2, n_books=3)
        >>> ease.scores(np.array([0, 1]), known).shape
        (2, 3)
    """

    def __init__(self, kept: IntArray, inverse: FloatArray, *, n_books: int) -> None:
        self.kept, self.inverse, self._n_books = kept, inverse, n_books

    @classmethod
    def fit(
        cls, known: pd.DataFrame, *, n_users: int, n_books: int, n_kept: int = EASE_BOOKS
    ) -> Ease:
        """Return the weights fitted on the known ratings.

        Args:
            known: Columns user and book.
            n_users, n_books: Numbers of user and book codes.
            n_kept: Number of books that have weights.
        """
        count = np.bincount(known["book"], minlength=n_books)
        kept = np.sort(np.argsort(-count, kind="stable")[:n_kept])
        ratings = incidence(known, (n_users, n_books))[:, kept]
        return cls(kept, _inverse((ratings.T @ ratings).toarray(order="F")), n_books=n_books)

    def rounded(self) -> Ease:
        """Return a copy with P rounded to float32, which is what `save` writes.

        A model that `read` loads gives exactly the same scores as this copy.
        """
        inverse = self.inverse.astype(np.float32).astype(np.float64)
        return Ease(self.kept, inverse, n_books=self._n_books)

    def save(self, path: Path) -> None:
        """Write a safetensors file: kept as int64, inverse as float32; 100 MB for 5,000 books."""
        kept, inverse = self.kept.astype(np.int64), self.inverse.astype(np.float32)
        save_file({"kept": kept, "inverse": inverse}, path)

    @classmethod
    def read(cls, path: Path, *, n_books: int) -> Ease:
        """Return the model that `save` wrote, for a catalogue of n_books books."""
        file = load_file(path)
        return cls(file["kept"], file["inverse"].astype(np.float64), n_books=n_books)

    def scores(
        self, users: np.ndarray, context: pd.DataFrame, own: pd.DataFrame | None = None
    ) -> sp.csr_array:
        """Return sparse (n_users, n_books) scores, which store only the books that have weights.

        A score is the sum of the weights from the user's context books.

        Args:
            users: User codes, one for each row of the result.
            context: Columns user and book: the context books of each user.
            own: Columns user and book: the known ratings of each user. If set, every user is scored
                with exactly the weights that a fit on all other users gives (Sherman & Morrison
                1950), as a user who was not in the training data would be.
        """
        history = self._rows(users, context)
        product = history @ self.inverse
        diagonal = self.inverse.diagonal()
        if own is not None:
            rated = self._rows(users, own)
            removed = rated @ self.inverse
            scale = 1 / (1 - rated.multiply(removed).sum(axis=1))
            product += (history.multiply(removed).sum(axis=1) * scale)[:, None] * removed
            diagonal = diagonal + removed**2 * scale[:, None]
        # The diagonal of P is not a weight, so the 1 that it gives each context book is removed.
        dense = history - product / diagonal
        columns, rows = np.tile(self.kept, len(users)), np.arange(len(users) + 1) * len(self.kept)
        values = np.asarray(dense).ravel()
        return sp.csr_array((values, columns, rows), shape=(len(users), self._n_books))

    def _rows(self, users: np.ndarray, rows: pd.DataFrame) -> sp.csr_array:
        """Return a (n_users, n_kept) matrix with 1 for each (user, book) in `rows`."""
        n_users = 1 + max(int(users.max(initial=0)), int(rows["user"].max()) if len(rows) else 0)
        return incidence(rows, (n_users, self._n_books))[users][:, self.kept]


def incidence(rows: pd.DataFrame, shape: tuple[int, int]) -> sp.csr_array:
    """Return a (n_users, n_books) matrix with 1 for each (user, book) in `rows`."""
    codes = rows["user"].to_numpy(), rows["book"].to_numpy()
    return sp.csr_array((np.ones(len(rows)), codes), shape=shape)


def _inverse(gram: FloatArray) -> FloatArray:
    """Return the (n, n) inverse of the Gram matrix plus EASE_L2 I.

    The Gram matrix is overwritten. Two matrices of this size are in memory at the peak.
    """
    np.fill_diagonal(gram, gram.diagonal() + EASE_L2)
    # The matrix is positive definite because EASE_L2 > 0.
    factor, _ = lapack.dpotrf(gram, overwrite_a=True)
    # The inverse is symmetric; LAPACK fills its upper triangle only.
    inverse, _ = lapack.dpotri(factor, overwrite_c=True)
    inverse += np.triu(inverse, 1).T
    return np.asarray(inverse)
