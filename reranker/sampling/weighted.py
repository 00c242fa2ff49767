"""Exact sequential weighted sampling without replacement, by inverting the cumulative weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reranker.data.draws import IntArray, KeyArray, below, bits

TOTAL_WEIGHT = 1 << 30  # approximate sum of the popularity weights; as integers they add up exactly
CELLS = 1 << 19  # users x draws per iteration: 4 MiB per array
MISSING = -1


@dataclass(frozen=True)
class UserBooks:
    """Distinct books of each user of a part, sorted by (row, book)."""

    row: IntArray
    book: IntArray

    def sizes(self, n_rows: int) -> IntArray:
        """Return (n_rows,) number of books of each row."""
        return np.diff(self.ends(n_rows))

    def ends(self, n_rows: int) -> IntArray:
        """Return (n_rows + 1,) offsets: row i has the books ends[i]:ends[i + 1]."""
        return np.searchsorted(self.row, np.arange(n_rows + 1, dtype=self.row.dtype))


def popularity_weights(n_ratings: IntArray, exponent: float) -> IntArray:
    """Return (n_books + 1,) cumulative integer weights in proportion to n_ratings ** exponent.

    A book without ratings has weight 0, every other book at least 1.
    """
    weight = np.where(n_ratings > 0, n_ratings.astype(np.float64) ** exponent, 0.0)
    rounded = np.rint(weight / max(weight.sum(), 1e-300) * TOTAL_WEIGHT).astype(np.int64)
    return np.concatenate([[0], np.cumsum(np.where(n_ratings > 0, np.maximum(rounded, 1), 0))])


def sample_weighted(
    weights: list[IntArray],
    excluded: UserBooks,
    k: IntArray,
    *,
    which: IntArray,
    key: KeyArray,
    seed: int,
) -> tuple[IntArray, IntArray]:
    """Draw k distinct books for every user, one after another, with the given weights.

    Every draw inverts the cumulative weights of the books that remain: excluded and drawn books
    are removed from the cumulative weights of all books (an order-statistic shift by weights). The
    k draws of a user take k * k / 2 comparisons. Draw m of a user does not depend on k.

    Args:
        weights: Arrays (n_books + 1,) of cumulative integer weights. If no book with a weight
            remains, a draw uses the next array.
        excluded: Books that are never drawn.
        k: (n_users,) number of draws.
        which: (sum of k,) index in `weights` for each draw, sorted by user.
        key: (n_users,) hash keys of the users.

    Returns:
        (sum of k,) books, MISSING if no book remained, and (sum of k,) indices of the used weights.
    """
    remaining = [_Weights(cumulative, excluded, len(k)) for cumulative in weights]
    book, which = np.full(len(which), MISSING), which.copy()
    first = np.cumsum(k) - k
    by_length = np.argsort(-k, kind="stable")
    while len(by_length) and k[by_length[0]] > 0:
        n = max(1, CELLS // int(k[by_length[0]]))
        rows, by_length = by_length[:n], by_length[n:]
        draws = _Draws(remaining, rows, k[rows], key=key[rows], seed=seed)
        draws.run(first[rows], book, which)
    return book, which


class _Weights:
    """Cumulative weights of all books; every row has its own excluded books removed.

    A book is an interval as long as its weight. `point` and `start` are positions on the line of
    the intervals that remain.
    """

    def __init__(self, cumulative: IntArray, excluded: UserBooks, n_rows: int) -> None:
        self.cumulative = cumulative
        # int64, because row and point are combined in one integer.
        row, book = excluded.row.astype(np.int64), excluded.book.astype(np.int64)
        self.excluded = UserBooks(row, book)
        self.first = self.excluded.ends(n_rows)
        # Weight of all excluded books before each of them.
        self.removed = np.concatenate([[0], np.cumsum(np.diff(cumulative)[book])])
        removed_of_row = self.removed[self.first[1:]] - self.removed[self.first[:-1]]
        self.left = cumulative[-1] - removed_of_row
        self.span = int(cumulative[-1]) + 1
        start = cumulative[book] - (self.removed[:-1] - self.removed[self.first[row]])
        self.starts = row * self.span + start

    def interval(self, row: IntArray, book: IntArray) -> tuple[IntArray, IntArray]:
        """Return start and length of each book's interval."""
        n_books = len(self.cumulative) - 1
        code = self.excluded.row * n_books + self.excluded.book
        before = np.searchsorted(code, row * n_books + book)
        start = self.cumulative[book] - (self.removed[before] - self.removed[self.first[row]])
        return start, self.cumulative[book + 1] - self.cumulative[book]

    def book_at(self, row: IntArray, point: IntArray) -> IntArray:
        """Return the book whose interval contains the point."""
        after = np.searchsorted(self.starts, row * self.span + point, side="right")
        shifted = point + self.removed[after] - self.removed[self.first[row]]
        return np.searchsorted(self.cumulative, shifted, side="right") - 1


class _Draws:
    """The draws of some users, sorted by descending k; each user's drawn books are sorted."""

    def __init__(
        self, weights: list[_Weights], rows: IntArray, k: IntArray, *, key: KeyArray, seed: int
    ) -> None:
        self.weights, self.rows, self.k, self.key, self.seed = weights, rows, k, key, seed
        shape = (len(rows), int(k[0]))
        self.drawn = np.zeros(shape, dtype=np.int64)
        self.start = [np.zeros(shape, dtype=np.int64) for _ in weights]
        self.length = [np.zeros(shape, dtype=np.int64) for _ in weights]

    def run(self, first: IntArray, book: IntArray, which: IntArray) -> None:
        """Fill `book` and `which` at first + step for every user and step."""
        for step in range(int(self.k[0])):
            n = int(np.searchsorted(-self.k, -step))  # users with k > step
            at = first[:n] + step
            book[at], which[at] = self._draw(step, which[at])
            self._remove(step, book[at])

    def _draw(self, step: int, which: IntArray) -> tuple[IntArray, IntArray]:
        book, which = np.full(len(which), MISSING), which.copy()
        for i, weights in enumerate(self.weights):
            mine = np.flatnonzero(which == i)
            row = self.rows[mine]
            start, length = self.start[i][mine, :step], self.length[i][mine, :step]
            left = weights.left[row] - length.sum(axis=1)
            point = below(bits(self.seed, "negatives", self.key[mine], step), np.maximum(left, 1))
            before = start - (np.cumsum(length, axis=1) - length) <= point[:, None]
            drawn = weights.book_at(row, point + (length * before).sum(axis=1))
            book[mine] = np.where(left > 0, drawn, MISSING)
            if i + 1 < len(self.weights):
                which[mine[left <= 0]] = i + 1
        return book, which

    def _remove(self, step: int, drawn: IntArray) -> None:
        n = len(drawn)
        is_drawn = drawn != MISSING
        book = np.where(is_drawn, drawn, 0)
        place = (self.drawn[:n, :step] < book[:, None]).sum(axis=1)
        self.drawn[:n, : step + 1] = _inserted(self.drawn[:n, :step], place, book)
        for i, weights in enumerate(self.weights):
            start, length = weights.interval(self.rows[:n], book)
            length = np.where(is_drawn, length, 0)
            for table, value in ((self.start[i], start), (self.length[i], length)):
                table[:n, : step + 1] = _inserted(table[:n, :step], place, value)


def _inserted(table: IntArray, place: IntArray, value: IntArray) -> IntArray:
    """Return a table with one more column: each row has its value inserted at its place."""
    n, width = table.shape
    column = np.arange(width + 1)
    out = np.empty((n, width + 1), dtype=np.int64)
    if width:
        old_column = np.minimum(column - (column > place[:, None]), width - 1)
        out[:] = np.take_along_axis(table, old_column, axis=1)
    out[np.arange(n), place] = value
    return out
