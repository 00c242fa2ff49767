"""Draws are exact, uniform and nested, and depend on their keys only."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from reranker.data.draws import below, bits, distinct, text_keys, uniform, unseen


@pytest.mark.slow
def test_keys_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from reranker.data.draws import *; print(bits(1, 'x', text_keys(['a', 'é']), 3).tolist())"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"PYTHONHASHSEED": s},
            stdout=subprocess.PIPE,
            text=True,
        )
        for s in ("0", "1", "77")
    ]
    outputs = {child.communicate(timeout=300)[0] for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(outputs) == 1


def test_another_purpose_or_seed_gives_other_numbers() -> None:
    key = np.arange(1000, dtype=np.uint64)
    streams = [bits(0, "a", key), bits(0, "b", key), bits(1, "a", key)]
    assert all(not np.any(x == y) for i, x in enumerate(streams) for y in streams[:i])


def test_uniform_is_uniform_over_consecutive_keys() -> None:
    sample = uniform(bits(0, "u", np.arange(20_000, dtype=np.uint64)))
    assert stats.kstest(sample, "uniform").pvalue > 0.001


@pytest.mark.parametrize("n", [1, 2, 7, 1000, 2**32 - 1])
def test_below_is_in_range_and_exact_at_the_edges(n: int) -> None:
    edge = np.array([0, 2**64 - 1], dtype=np.uint64)
    assert below(edge, n).tolist() == [0, n - 1]


def shuffled(n: int, k: int, key: int, *, seed: int) -> list[int]:
    """Return the first k places of a Fisher-Yates shuffle, computed step by step."""
    places = list(range(n))
    for m in range(k):
        pick = m + int(below(bits(seed, "t", np.uint64(key), m), n - m))
        places[m], places[pick] = places[pick], places[m]
    return places[:k]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.integers(1, 12).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=8
    )
)
def test_distinct_is_a_fisher_yates_shuffle_at_any_density(sizes: list[tuple[int, int]]) -> None:
    n, k = (np.array([s[i] for s in sizes], dtype=np.int64) for i in range(2))
    drawn = distinct(n, k, seed=3, purpose="t", key=np.arange(len(sizes), dtype=np.uint64))
    expected = [shuffled(n, k, row, seed=3) for row, (n, k) in enumerate(sizes)]
    assert drawn.tolist() == [book for row in expected for book in row]


def test_distinct_is_a_fisher_yates_shuffle_of_a_long_row_among_short_ones() -> None:
    n, k = np.array([5000, 7, 5000]), np.array([3, 7, 4000])
    drawn = distinct(n, k, seed=3, purpose="t", key=np.arange(3, dtype=np.uint64))
    assert drawn.tolist() == [b for u in range(3) for b in shuffled(n[u], k[u], u, seed=3)]


def test_distinct_is_uniform_over_ordered_subsets() -> None:
    size = np.full(24_000, 4)
    key = np.arange(24_000, dtype=np.uint64)
    drawn = distinct(size, size - 1, seed=0, purpose="t", key=key).reshape(-1, 3)
    _, counts = np.unique(drawn @ [16, 4, 1], return_counts=True)
    assert len(counts) == 24  # 4 * 3 * 2
    assert stats.chisquare(counts).pvalue > 0.001


def test_fewer_draws_are_a_prefix_of_more() -> None:
    key, n = text_keys(map(str, range(100))), np.full(100, 30)
    few, many = (
        distinct(n, np.full(100, k), seed=1, purpose="t", key=key).reshape(100, k) for k in (9, 15)
    )
    assert np.array_equal(few, many[:, :9])


def test_the_draws_of_a_row_do_not_depend_on_other_rows() -> None:
    key, n, k = np.arange(10, dtype=np.uint64), np.arange(20, 30), np.full(10, 5)
    all_rows = distinct(n, k, seed=1, purpose="t", key=key)
    one_row = distinct(n[3:4], k[3:4], seed=1, purpose="t", key=key[3:4])
    assert np.array_equal(all_rows[15:20], one_row)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sets(st.integers(0, 9), max_size=9), min_size=1, max_size=5))
def test_unseen_is_the_set_difference_in_order(seen: list[set[int]]) -> None:
    ends = np.cumsum([0, *map(len, seen)])
    seen_book = np.array([b for books in seen for b in sorted(books)], dtype=np.int64)
    rest = [sorted(set(range(10)) - books) for books in seen]
    k = np.array([len(books) for books in rest])
    found = unseen(np.concatenate([np.arange(n) for n in k]), k, ends, seen_book)
    assert found.tolist() == [book for books in rest for book in books]


def test_unseen_is_the_set_difference_of_a_long_history() -> None:
    seen_book = np.flatnonzero(uniform(bits(0, "seen", np.arange(5000))) < 0.3)
    rest = np.setdiff1d(np.arange(5000), seen_book)
    k, ends = np.array([len(rest)]), np.array([0, len(seen_book)])
    found = unseen(np.arange(len(rest)), k, ends, seen_book)
    assert np.array_equal(found, rest)
