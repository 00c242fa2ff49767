"""The compiled (numba) inner loop that builds the rows of pairs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.integer[Any]]
MISSING = -1


class PairRows(NamedTuple):
    """Pairs sorted by user, each positive before its negatives; arrays of shape (n_pairs,).

    Attributes:
        row: Index of the user in the part.
        positive: Index of the pair's positive among all positives of the part.
        book: Book code.
        label: 1 for a positive, 0 for a negative.
        source: Source of a negative; 0 for a positive.
        is_kept: Whether refinement keeps the pair.
    """

    row: IntArray
    positive: IntArray
    book: IntArray
    label: IntArray
    source: IntArray
    is_kept: npt.NDArray[np.bool_]


@njit(nogil=True, cache=True)
def build_rows(
    n: IntArray,
    n_kept: IntArray,
    book: IntArray,
    drawn: IntArray,
    source: IntArray,
    neg_ratio: int,
    n_negatives: int,
) -> tuple[Any, ...]:
    """Return the columns of `PairRows` for all users; a draw that is MISSING gives no pair.

    The draws of a user go to the n_kept first positives, slot by slot (the first negative of each,
    then the second of each), and then to the other positives.

    Args:
        n, n_kept: (n_users,) number of positives, and how many of them refinement keeps.
        book: (sum of n,) positives, in the order in which refinement keeps them.
        drawn, source: (sum of n * neg_ratio,) draws, sorted by user.
        n_negatives: How many negatives of a kept positive refinement keeps, the first ones.
    """
    size = len(book) + np.sum(drawn != MISSING)
    rows, positives = np.empty(size, np.int32), np.empty(size, np.int32)
    books, is_kept = np.empty(size, np.int32), np.empty(size, np.bool_)
    labels, sources = np.zeros(size, np.int8), np.zeros(size, np.int8)
    i = p = 0
    for row in range(len(n)):
        first, kept, others = p * neg_ratio, n_kept[row], n[row] - n_kept[row]
        for place in range(n[row]):
            labels[i] = 1
            left = n_negatives + 1 if place < kept else 0  # the positive and its negatives
            for slot in range(-1, neg_ratio):
                draw = slot * kept + place
                if place >= kept:
                    draw = neg_ratio * kept + slot * others + place - kept
                code = book[p] if slot < 0 else drawn[first + draw]
                if code != MISSING:
                    rows[i], positives[i], books[i], is_kept[i] = row, p, code, left > 0
                    left -= 1
                    if slot >= 0:
                        sources[i] = source[first + draw]
                    i += 1
            p += 1
    return rows, positives, books, labels, sources, is_kept
