"""Negatives: distinct, unseen, of the sources that were asked for, nested in k, at any density."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.config import MixConfig, SamplingConfig
from reranker.sampling.negatives import DISLIKED, RETRIEVER, SOURCES, UNIFORM, Choice, draw
from reranker.sampling.weighted import MISSING, UserBooks, popularity_weights

N = 12
MIX = MixConfig(uniform=0.25, popularity=0.25, retriever=0.25, disliked=0.25)
STRATEGIES = ["uniform", "popularity", "retriever", "mix"]


def shelf(books: list[set[int]]) -> UserBooks:
    return UserBooks(
        np.array([u for u, mine in enumerate(books) for _ in mine], dtype=np.int64),
        np.array([b for mine in books for b in sorted(mine)], dtype=np.int64),
    )


def config(strategy: str) -> SamplingConfig:
    return SamplingConfig(strategy=strategy, mix=MIX if strategy == "mix" else MixConfig())


# Of each reader: rated books, those of them that were disliked, and unrated ones that a retriever offers.
reader = st.sets(st.integers(0, N - 1)).flatmap(
    lambda rated: st.tuples(
        st.just(rated),
        st.sets(st.sampled_from(sorted(rated))) if rated else st.just(set()),
        st.sets(st.sampled_from(sorted(set(range(N)) - rated)))
        if len(rated) < N
        else st.just(set()),
    )
)


def choice(readers: list[tuple[set[int], set[int], set[int]]], strategy: str) -> Choice:
    popular = strategy in ("popularity", "mix")
    return Choice(
        key=np.arange(100, 100 + len(readers), dtype=np.uint64),
        rated=shelf([r for r, _, _ in readers]),
        n_books=N,
        near=shelf([near if strategy in ("retriever", "mix") else set() for _, _, near in readers]),
        disliked=shelf([low if strategy == "mix" else set() for _, low, _ in readers]),
        popularity=popularity_weights(np.arange(N), 1.0) if popular else None,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(reader, st.integers(0, N)), min_size=1, max_size=4))
def test_negatives_are_distinct_and_of_their_source(
    strategy: str, drawn: list[tuple[tuple[set[int], set[int], set[int]], int]]
) -> None:
    readers, k = [r for r, _ in drawn], np.array([n for _, n in drawn])
    book, source = draw(choice(readers, strategy), k, config(strategy))
    parts = np.split(np.arange(len(book)), np.cumsum(k)[:-1])
    for (rated, low, near), rows in zip(readers, parts, strict=True):
        mine = book[rows]
        found, kind = mine[mine != MISSING], source[rows][mine != MISSING]
        assert len(set(found.tolist())) == len(found)
        assert not set(found[kind != DISLIKED].tolist()) & rated
        assert set(found[kind == DISLIKED].tolist()) <= low
        assert set(found[kind == RETRIEVER].tolist()) <= near
        open_ = set(range(N)) - rated - (near if strategy in ("retriever", "mix") else set())
        assert not (mine == MISSING).any() or open_ <= set(
            found.tolist()
        )  # nothing missing while there is a book


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, deadline=None)
@given(st.lists(reader, min_size=1, max_size=4), st.integers(0, N), st.integers(0, N))
def test_fewer_draws_are_a_prefix_of_more(
    strategy: str, readers: list[tuple[set[int], set[int], set[int]]], one: int, other: int
) -> None:
    small, large = sorted((one, other))
    n = len(readers)
    few, many = (
        draw(choice(readers, strategy), np.full(n, k), config(strategy)) for k in (small, large)
    )
    for less, more in zip(few, many, strict=True):
        assert np.array_equal(less.reshape(n, small), more.reshape(n, large)[:, :small])


def test_a_mix_draws_from_each_source_in_its_share() -> None:
    n = 3000
    cfg = dataclasses.replace(
        config("mix"), mix=MixConfig(uniform=0.5, popularity=0.2, retriever=0.3)
    )
    plenty = Choice(
        key=np.arange(n, dtype=np.uint64),
        rated=shelf([set()] * n),
        n_books=N,
        near=shelf([{1, 2, 3, 4}] * n),
        popularity=popularity_weights(np.arange(N), 1.0),
    )
    _, source = draw(plenty, np.full(n, 2), cfg)
    shares = np.bincount(source, minlength=len(SOURCES)) / (2 * n)
    assert shares == pytest.approx([0, 0.5, 0.2, 0.3, 0], abs=0.03)  # 4 standard errors of .0065


def test_an_empty_pool_hands_over_to_uniform_and_says_so() -> None:
    _, source = draw(choice([({0}, set(), set())], "retriever"), np.array([3]), config("retriever"))
    assert source.tolist() == [UNIFORM] * 3
