"""Negatives are distinct, unrated, from the configured sources, and nested in k."""

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


def user_books(books: list[set[int]]) -> UserBooks:
    return UserBooks(
        np.array([u for u, mine in enumerate(books) for _ in mine], dtype=np.int64),
        np.array([b for mine in books for b in sorted(mine)], dtype=np.int64),
    )


def config(strategy: str) -> SamplingConfig:
    return SamplingConfig(strategy=strategy, mix=MIX if strategy == "mix" else MixConfig())


def subsets(books: set[int]) -> st.SearchStrategy[set[int]]:
    return st.sets(st.sampled_from(sorted(books))) if books else st.just(set())


# A user: rated books, the disliked ones among them, and unrated books of a retriever.
User = tuple[set[int], set[int], set[int]]
user = subsets(set(range(N))).flatmap(
    lambda rated: st.tuples(st.just(rated), subsets(rated), subsets(set(range(N)) - rated))
)


def choice(users: list[User], strategy: str) -> Choice:
    popular, has_retriever = strategy in ("popularity", "mix"), strategy in ("retriever", "mix")
    return Choice(
        key=np.arange(100, 100 + len(users), dtype=np.uint64),
        rated=user_books([r for r, _, _ in users]),
        n_books=N,
        near=user_books([near if has_retriever else set() for _, _, near in users]),
        disliked=user_books([low if strategy == "mix" else set() for _, low, _ in users]),
        popularity=popularity_weights(np.arange(N), 1.0) if popular else None,
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(user, st.integers(0, N)), min_size=1, max_size=4))
def test_negatives_are_distinct_and_from_their_source(
    strategy: str, drawn: list[tuple[User, int]]
) -> None:
    users, k = [r for r, _ in drawn], np.array([n for _, n in drawn])
    book, source = draw(choice(users, strategy), k, config(strategy))
    parts = np.split(np.arange(len(book)), np.cumsum(k)[:-1])
    for (rated, low, near), rows in zip(users, parts, strict=True):
        mine = book[rows]
        found, kind = mine[mine != MISSING], source[rows][mine != MISSING]
        assert len(set(found.tolist())) == len(found)
        assert not set(found[kind != DISLIKED].tolist()) & rated
        assert set(found[kind == DISLIKED].tolist()) <= low
        assert set(found[kind == RETRIEVER].tolist()) <= near
        reserved = near if strategy in ("retriever", "mix") else set()
        available = set(range(N)) - rated - reserved
        assert not (mine == MISSING).any() or available <= set(found.tolist())


@pytest.mark.parametrize("strategy", STRATEGIES)
@settings(max_examples=25, deadline=None)
@given(st.lists(user, min_size=1, max_size=4), st.integers(0, N), st.integers(0, N))
def test_fewer_draws_are_a_prefix_of_more(
    strategy: str, users: list[User], one: int, other: int
) -> None:
    small, large = sorted((one, other))
    n = len(users)
    few, many = (
        draw(choice(users, strategy), np.full(n, k), config(strategy)) for k in (small, large)
    )
    for less, more in zip(few, many, strict=True):
        assert np.array_equal(less.reshape(n, small), more.reshape(n, large)[:, :small])


def test_a_mix_draws_from_each_source_in_proportion() -> None:
    n = 3000
    mix = MixConfig(uniform=0.5, popularity=0.2, retriever=0.3)
    cfg = dataclasses.replace(config("mix"), mix=mix)
    books = Choice(
        key=np.arange(n, dtype=np.uint64),
        rated=user_books([set()] * n),
        n_books=N,
        near=user_books([{1, 2, 3, 4}] * n),
        popularity=popularity_weights(np.arange(N), 1.0),
    )
    _, source = draw(books, np.full(n, 2), cfg)
    shares = np.bincount(source, minlength=len(SOURCES)) / (2 * n)
    assert shares == pytest.approx(
        [0, 0.5, 0.2, 0.3, 0], abs=0.03
    )  # more than 4 standard errors of 0.0065


def test_an_empty_pool_is_replaced_by_uniform() -> None:
    _, source = draw(choice([({0}, set(), set())], "retriever"), np.array([3]), config("retriever"))
    assert source.tolist() == [UNIFORM] * 3
