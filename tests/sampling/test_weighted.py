"""Weighted draws equal those of a simple reference implementation and follow the weights."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reranker.data.draws import below, bits
from reranker.sampling.weighted import MISSING, UserBooks, popularity_weights, sample_weighted

N = 8


def one_at_a_time(
    weights: list[list[int]], excluded: set[int], which: list[int], *, key: int, seed: int
) -> list[tuple[int, int]]:
    """Return books and used weights of one user; a list of remaining books shrinks by each draw."""
    left = [b for b in range(N) if b not in excluded]
    out = []
    for step, i in enumerate(which):
        while i + 1 < len(weights) and not sum(weights[i][b] for b in left):
            i += 1
        total = sum(weights[i][b] for b in left)
        if not total:
            out.append((MISSING, i))
            continue
        point = int(below(bits(seed, "negatives", np.uint64(key), step), total))
        for book in left:
            if point < weights[i][book]:
                break
            point -= weights[i][book]
        left.remove(book)
        out.append((book, i))
    return out


users = st.lists(
    st.tuples(st.sets(st.integers(0, N - 1)), st.lists(st.integers(0, 1), max_size=N)), max_size=5
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=N, max_size=N), users)
def test_draws_equal_those_of_the_reference(
    popularity: list[int], drawn: list[tuple[set[int], list[int]]]
) -> None:
    weights = [popularity, [1] * N]
    excluded = UserBooks(
        np.array([u for u, (books, _) in enumerate(drawn) for _ in books], dtype=np.int64),
        np.array([b for books, _ in drawn for b in sorted(books)], dtype=np.int64),
    )
    k = np.array([len(which) for _, which in drawn], dtype=np.int64)
    which = np.array([i for _, which in drawn for i in which], dtype=np.int64)
    cumulative = [np.concatenate([[0], np.cumsum(w)]) for w in weights]
    key = np.arange(len(k), dtype=np.uint64)
    book, found = sample_weighted(cumulative, excluded, k, which=which, key=key, seed=5)
    expected = [
        pair
        for u, (books, indices) in enumerate(drawn)
        for pair in one_at_a_time(weights, books, indices, key=u, seed=5)
    ]
    assert list(zip(book.tolist(), found.tolist(), strict=True)) == expected


def test_first_draws_follow_the_weights_without_excluded_books() -> None:
    n = 20_000
    cumulative = popularity_weights(np.array([0, 1, 4, 9, 16, 25, 36, 49]), exponent=0.5)
    excluded = UserBooks(np.arange(n), np.full(n, 3))
    k, which = np.ones(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    book, _ = sample_weighted([cumulative], excluded, k, which=which, key=np.arange(n), seed=0)
    weights = np.array([0, 1, 2, 0, 4, 5, 6, 7])  # square roots; 0 for the excluded book
    counts = np.bincount(book, minlength=N)
    assert counts[weights == 0].tolist() == [0, 0]
    expected = weights[weights > 0] / weights.sum() * n
    assert stats.chisquare(counts[weights > 0], expected).pvalue > 0.001


def test_second_draws_follow_the_weights_of_the_remaining_books() -> None:
    """With weights 1, 2, 3 the ordered pair (i, j) has probability w_i / 6 * w_j / (6 - w_i)."""
    n, w = 24_000, [1, 2, 3]
    k = np.full(n, 2)
    cumulative = [np.concatenate([[0], np.cumsum(w)])]
    nothing = UserBooks(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    which = np.zeros(2 * n, dtype=np.int64)
    book, _ = sample_weighted(cumulative, nothing, k, which=which, key=np.arange(n), seed=0)
    pair = book.reshape(n, 2) @ [3, 1]
    ordered = [(i, j) for i in range(3) for j in range(3) if i != j]
    counts = [int((pair == 3 * i + j).sum()) for i, j in ordered]
    assert sum(counts) == n
    expected = [n * w[i] / 6 * w[j] / (6 - w[i]) for i, j in ordered]
    assert stats.chisquare(counts, expected).pvalue > 0.001
