"""The inner loop that lays pairs out, compiled by numba as the loops of `data/kernels.py` are."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

IntArray = npt.NDArray[np.integer[Any]]
MISSING = -1


class Laid(NamedTuple):
    """Pairs by user, each positive before its negatives; (n_pairs,) each.

    Attributes:
        row: Place of the user in the part.
        positive: Place, among all positives of the part, of the one that the pair belongs to.
        book: Its code.
        label: 1 for the positive.
        source: As the draws have it; 0 for the positive.
        is_kept: Whether refinement keeps it.
    """

    row: IntArray
    positive: IntArray
    book: IntArray
    label: IntArray
    source: IntArray
    is_kept: npt.NDArray[np.bool_]


@njit(nogil=True, cache=True)
def build_rows(
    n: IntArray, n_kept: IntArray, book: IntArray, drawn: IntArray, source: IntArray, neg_ratio: int
) -> tuple[Any, ...]:
    """The pairs of all users; a draw that is MISSING gives none.

    The n_kept first positives of a user are served first, slot by slot (the first negative of each, then the second of
    each), and the other positives after them.

    Args:
        n, n_kept: (n_users,) positives, and how many of them refinement keeps.
        book: (sum of n,) the positives, in the order in which refinement keeps them.
        drawn, source: (sum of n * neg_ratio,) the draws, user by user.
    """
    size = len(book) + np.sum(drawn != MISSING)
    rows, positives, books = (
        np.empty(size, np.int32),
        np.empty(size, np.int32),
        np.empty(size, np.int32),
    )
    labels, sources, is_kept = (
        np.zeros(size, np.int8),
        np.zeros(size, np.int8),
        np.empty(size, np.bool_),
    )
    i = p = 0
    for row in range(len(n)):
        first, kept, others = p * neg_ratio, n_kept[row], n[row] - n_kept[row]
        for place in range(n[row]):
            labels[i] = 1
            for slot in range(-1, neg_ratio):
                turn = (
                    slot * kept + place
                    if place < kept
                    else neg_ratio * kept + slot * others + place - kept
                )
                code = book[p] if slot < 0 else drawn[first + turn]
                if code != MISSING:
                    rows[i], positives[i], books[i], is_kept[i] = row, p, code, place < kept
                    if slot >= 0:
                        sources[i] = source[first + turn]
                    i += 1
            p += 1
    return rows, positives, books, labels, sources, is_kept
