"""Draws in turn equal a list that shrinks, a draw at a time, and follow the weights."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reranker.data.draws import below, bits
from reranker.sampling.weighted import MISSING, UserBooks, popularity_weights, sample_weighted

N = 8


def one_at_a_time(
    weights: list[list[int]], taboo: set[int], wanted: list[int], key: int, *, seed: int
) -> list[tuple[int, int]]:
    """Books and lines of one user, by walking along the weights of the books that are left."""
    left = [b for b in range(N) if b not in taboo]
    out = []
    for step, line in enumerate(wanted):
        while line + 1 < len(weights) and not sum(weights[line][b] for b in left):
            line += 1
        total = sum(weights[line][b] for b in left)
        if not total:
            out.append((MISSING, line))
            continue
        point = int(below(bits(seed, "negatives", np.uint64(key), step), total))
        for book in left:
            if point < weights[line][book]:
                break
            point -= weights[line][book]
        left.remove(book)
        out.append((book, line))
    return out


users = st.lists(
    st.tuples(st.sets(st.integers(0, N - 1)), st.lists(st.integers(0, 1), max_size=N)), max_size=5
)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=N, max_size=N), users)
def test_draws_in_turn_are_those_of_a_list_that_shrinks(
    popularity: list[int], readers: list[tuple[set[int], list[int]]]
) -> None:
    weights = [popularity, [1] * N]
    taboo = UserBooks(
        np.array([u for u, (t, _) in enumerate(readers) for _ in t], dtype=np.int64),
        np.array([b for t, _ in readers for b in sorted(t)], dtype=np.int64),
    )
    k = np.array([len(wanted) for _, wanted in readers], dtype=np.int64)
    line = np.array([x for _, wanted in readers for x in wanted], dtype=np.int64)
    lines = [np.concatenate([[0], np.cumsum(w)]) for w in weights]
    book, found = sample_weighted(
        lines, taboo, k, line, key=np.arange(len(k), dtype=np.uint64), seed=5
    )
    expected = [
        pair
        for u, (t, wanted) in enumerate(readers)
        for pair in one_at_a_time(weights, t, wanted, u, seed=5)
    ]
    assert list(zip(book.tolist(), found.tolist(), strict=True)) == expected


def test_first_draws_follow_the_weights_and_leave_taboo_books_out() -> None:
    n = 20_000
    line = popularity_weights(np.array([0, 1, 4, 9, 16, 25, 36, 49]), exponent=0.5)
    taboo = UserBooks(np.arange(n), np.full(n, 3))
    book, _ = sample_weighted(
        [line],
        taboo,
        np.ones(n, dtype=np.int64),
        np.zeros(n, dtype=np.int64),
        key=np.arange(n),
        seed=0,
    )
    weights = np.array([0, 1, 2, 0, 4, 5, 6, 7])  # square roots, without the taboo one
    counts = np.bincount(book, minlength=N)
    assert counts[weights == 0].tolist() == [0, 0]
    expected = weights[weights > 0] / weights.sum() * n
    assert stats.chisquare(counts[weights > 0], expected).pvalue > 0.001


def test_second_draws_follow_the_weights_of_what_the_first_left() -> None:
    """Of weights 1, 2, 3 the ordered pair (i, j) has the chance w_i / 6 * w_j / (6 - w_i)."""
    n, w = 24_000, [1, 2, 3]
    k = np.full(n, 2)
    lines = [np.concatenate([[0], np.cumsum(w)])]
    nothing = UserBooks(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
    book, _ = sample_weighted(
        lines, nothing, k, np.zeros(2 * n, dtype=np.int64), key=np.arange(n), seed=0
    )
    pair = book.reshape(n, 2) @ [3, 1]
    ordered = [(i, j) for i in range(3) for j in range(3) if i != j]
    counts = [int((pair == 3 * i + j).sum()) for i, j in ordered]
    assert sum(counts) == n
    assert (
        stats.chisquare(counts, [n * w[i] / 6 * w[j] / (6 - w[i]) for i, j in ordered]).pvalue
        > 0.001
    )
