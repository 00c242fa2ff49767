"""Draws in turn without replacement where books have weights: exact, by cutting what is drawn out of a line."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from reranker.data.draws import IntArray, KeyArray, below, bits

TOTAL_WEIGHT = (
    1 << 30
)  # popularity weights are integers of about this sum, so that intervals of them are exact
CELLS = 1 << 19  # users x draws in turn at a time: 4 MiB an array
MISSING = -1


@dataclass(frozen=True)
class UserBooks:
    """Some books of every user of a part: sorted by (row, book), no book twice in a row."""

    row: IntArray
    book: IntArray

    def sizes(self, n_rows: int) -> IntArray:
        """(n_rows,) books of each row."""
        return np.diff(self.ends(n_rows))

    def ends(self, n_rows: int) -> IntArray:
        """(n_rows + 1,) where the books of each row begin, and where the last end."""
        return np.searchsorted(self.row, np.arange(n_rows + 1, dtype=self.row.dtype))


def popularity_weights(n_ratings: IntArray, exponent: float) -> IntArray:
    """(n_books + 1,) cumulative weights n_ratings ** exponent as integers; a book that nobody rated weighs nothing."""
    weight = np.where(n_ratings > 0, n_ratings.astype(np.float64) ** exponent, 0.0)
    whole = np.rint(weight / max(weight.sum(), 1e-300) * TOTAL_WEIGHT).astype(np.int64)
    return np.concatenate([[0], np.cumsum(np.where(n_ratings > 0, np.maximum(whole, 1), 0))])


def sample_weighted(
    lines: list[IntArray],
    taboo: UserBooks,
    k: IntArray,
    line: IntArray,
    *,
    key: KeyArray,
    seed: int,
) -> tuple[IntArray, IntArray]:
    """Draws one after another, each from what the earlier ones of its user left.

    Every draw inverts the cumulative weights of the books that are left: the line of all books from which the taboo
    and the drawn ones are cut (an order-statistic shift by weights). A user's k draws cost k * k / 2 comparisons. Draw
    m of a user does not depend on k.

    Args:
        lines: (n_books + 1,) cumulative integer weights; a draw whose line has nothing left goes on to the next.
        taboo: Books that are never drawn.
        k: (n_users,) draws of each user.
        line: (sum of k,) which line each draw is from, user by user.
        key: (n_users,)

    Returns:
        The books, MISSING where no line had one left, and the lines that they came from; (sum of k,) each.
    """
    scales = [_Scale(cumulative, taboo, len(k)) for cumulative in lines]
    book, line = np.full(len(line), MISSING), line.copy()
    first = np.cumsum(k) - k
    by_length = np.argsort(-k, kind="stable")
    while len(by_length) and k[by_length[0]] > 0:
        n = max(1, CELLS // int(k[by_length[0]]))
        rows, by_length = by_length[:n], by_length[n:]
        _Turns(scales, key[rows], rows, k[rows], seed).run(first[rows], book, line)
    return book, line


class _Scale:
    """All books on a line, each as long as its weight; of every row its taboo books are cut out."""

    def __init__(self, cumulative: IntArray, taboo: UserBooks, n_rows: int) -> None:
        self.line = cumulative
        # Row and point share one integer, which 32 bits do not hold.
        self.taboo = taboo = UserBooks(taboo.row.astype(np.int64), taboo.book.astype(np.int64))
        self.first = taboo.ends(n_rows)
        self.cut = np.concatenate(
            [[0], np.cumsum(np.diff(cumulative)[taboo.book])]
        )  # lengths cut before each
        self.left = cumulative[-1] - (self.cut[self.first[1:]] - self.cut[self.first[:-1]])
        self.span = int(cumulative[-1]) + 1
        start = cumulative[taboo.book] - (self.cut[:-1] - self.cut[self.first[taboo.row]])
        self.starts = taboo.row * self.span + start

    def place(self, row: IntArray, book: IntArray) -> tuple[IntArray, IntArray]:
        """Where a book begins once the row's taboo books are cut, and how long it is."""
        n_books = len(self.line) - 1
        before = np.searchsorted(self.taboo.row * n_books + self.taboo.book, row * n_books + book)
        start = self.line[book] - (self.cut[before] - self.cut[self.first[row]])
        return start, self.line[book + 1] - self.line[book]

    def book_at(self, row: IntArray, point: IntArray) -> IntArray:
        """The book at a point of the line without the row's taboo books."""
        after = np.searchsorted(self.starts, row * self.span + point, side="right")
        whole = point + self.cut[after] - self.cut[self.first[row]]
        return np.searchsorted(self.line, whole, side="right") - 1


class _Turns:
    """The draws of some users, the one with most first; what a user drew is kept sorted by book."""

    def __init__(
        self, scales: list[_Scale], key: KeyArray, rows: IntArray, k: IntArray, seed: int
    ) -> None:
        self.scales, self.key, self.rows, self.k, self.seed = scales, key, rows, k, seed
        shape = (len(rows), int(k[0]))
        self.drawn = np.zeros(shape, dtype=np.int64)
        self.start = [np.zeros(shape, dtype=np.int64) for _ in scales]
        self.length = [np.zeros(shape, dtype=np.int64) for _ in scales]

    def run(self, first: IntArray, book: IntArray, line: IntArray) -> None:
        """Fill `book` and `line` at first + step for every user and step."""
        for step in range(int(self.k[0])):
            n = int(np.searchsorted(-self.k, -step))  # users that still draw: those with k > step
            at = first[:n] + step
            book[at], line[at] = self._draw(step, line[at])
            self._keep(step, book[at])

    def _draw(self, step: int, line: IntArray) -> tuple[IntArray, IntArray]:
        got, line = np.full(len(line), MISSING), line.copy()
        for i, scale in enumerate(self.scales):
            mine = np.flatnonzero(line == i)
            row = self.rows[mine]
            start, length = self.start[i][mine, :step], self.length[i][mine, :step]
            left = scale.left[row] - length.sum(axis=1)
            point = below(bits(self.seed, "negatives", self.key[mine], step), np.maximum(left, 1))
            before = start - (np.cumsum(length, axis=1) - length) <= point[:, None]
            got[mine] = np.where(
                left > 0, scale.book_at(row, point + (length * before).sum(axis=1)), MISSING
            )
            if i + 1 < len(self.scales):
                line[mine[left <= 0]] = i + 1
        return got, line

    def _keep(self, step: int, got: IntArray) -> None:
        n = len(got)
        there = got != MISSING
        book = np.where(there, got, 0)
        place = (self.drawn[:n, :step] < book[:, None]).sum(axis=1)
        self.drawn[:n, : step + 1] = _inserted(self.drawn[:n, :step], place, book)
        for i, scale in enumerate(self.scales):
            start, length = scale.place(self.rows[:n], book)
            for table, value in (
                (self.start[i], start),
                (self.length[i], np.where(there, length, 0)),
            ):
                table[:n, : step + 1] = _inserted(table[:n, :step], place, value)


def _inserted(table: IntArray, place: IntArray, value: IntArray) -> IntArray:
    """Each row with its value at its place; what stood there and behind it moves one to the right."""
    n, width = table.shape
    column = np.arange(width + 1)
    out = np.empty((n, width + 1), dtype=np.int64)
    if width:
        out[:] = np.take_along_axis(
            table, np.minimum(column - (column > place[:, None]), width - 1), axis=1
        )
    out[np.arange(n), place] = value
    return out
