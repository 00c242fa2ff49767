"""Draw negatives: unrated books (uniform, by popularity, or hard negatives) and disliked books."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from reranker.config import SamplingConfig
from reranker.data.draws import IntArray, KeyArray, bits, distinct, ranges, uniform, unseen
from reranker.sampling.weighted import MISSING, UserBooks, sample_weighted

SOURCES = ("positive", "uniform", "popularity", "retriever", "disliked")
UNIFORM, POPULARITY, RETRIEVER, DISLIKED = range(1, len(SOURCES))


def no_books() -> UserBooks:
    """Return an empty `UserBooks`."""
    return UserBooks(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Choice:
    """The books from which the negatives of a part are drawn; row i is user i of the part.

    Attributes:
        key: (n_users,) hash keys of the user ids.
        rated: Rated books; they are never drawn, except as `disliked`.
        near: Books that a retriever ranks high.
        disliked: Target books with a low rating.
        n_books: Books in the catalogue.
        popularity: (n_books + 1,) cumulative integer weights; None if no source needs them.
    """

    key: KeyArray
    rated: UserBooks
    n_books: int
    near: UserBooks = field(default_factory=no_books)
    disliked: UserBooks = field(default_factory=no_books)
    popularity: IntArray | None = None


def draw(choice: Choice, k: IntArray, cfg: SamplingConfig) -> tuple[IntArray, IntArray]:
    """Draw k distinct negatives for every user.

    When a source is exhausted, `uniform` replaces it; when no unrated book is left, the draw is
    MISSING. Draw m of a user does not depend on k, so the negatives of a smaller neg_ratio are a
    subset of those of a larger one. With `retriever` and `mix` the uniform and popularity draws
    exclude all books of the retriever, drawn or not.

    Returns:
        book and source (an index of SOURCES), (sum of k,) each, sorted by user, in drawing order.
    """
    if cfg.strategy == "uniform":
        return _uniform(choice, choice.rated, k, cfg.seed)
    source = _sources(choice.key, k, cfg)
    book = np.full(len(source), MISSING)
    for pool, books in ((RETRIEVER, choice.near), (DISLIKED, choice.disliked)):
        _fill(book, source, pool, books=books, k=k, key=choice.key, seed=cfg.seed)
    rest = np.flatnonzero(book == MISSING)
    row = np.repeat(np.arange(len(k)), k)[rest]
    n_rest = np.bincount(row, minlength=len(k))
    excluded = _union(choice.rated, choice.near)
    if choice.popularity is None:
        book[rest], source[rest] = _uniform(choice, excluded, n_rest, cfg.seed)
    else:
        weights = [choice.popularity, np.arange(choice.n_books + 1)]
        which = np.where(source[rest] == POPULARITY, 0, 1)
        book[rest], which = sample_weighted(
            weights, excluded, n_rest, which=which, key=choice.key, seed=cfg.seed
        )
        source[rest] = np.where(which == 0, POPULARITY, UNIFORM)
    return book, source


def _uniform(
    choice: Choice, excluded: UserBooks, k: IntArray, seed: int
) -> tuple[IntArray, IntArray]:
    ends = excluded.ends(len(k))
    n_available = choice.n_books - np.diff(ends)
    n_drawn = np.minimum(k, n_available)
    rank = distinct(n_available, n_drawn, seed=seed, purpose="negatives", key=choice.key)
    book = unseen(rank, n_drawn, ends, excluded.book)
    if len(book) < k.sum():
        padded = np.full(int(k.sum()), MISSING)
        padded[ranges(k) < np.repeat(n_drawn, k)] = book
        book = padded
    return book, np.full(len(book), UNIFORM, dtype=np.int8)


def _sources(key: KeyArray, k: IntArray, cfg: SamplingConfig) -> IntArray:
    """Return (sum of k,) the source that each draw should use."""
    if cfg.strategy != "mix":
        return np.full(int(k.sum()), SOURCES.index(cfg.strategy), dtype=np.int8)
    edges = np.cumsum([asdict(cfg.mix)[name] for name in SOURCES[1:]])
    chance = uniform(bits(cfg.seed, "source", np.repeat(key, k), ranges(k)))
    return (1 + np.searchsorted(edges[:-1], chance, side="right")).astype(np.int8)


def _fill(
    book: IntArray,
    source: IntArray,
    pool: int,
    *,
    books: UserBooks,
    k: IntArray,
    key: KeyArray,
    seed: int,
) -> None:
    """Fill the draws of a pool in place with its books, in random order and without repetition.

    The source of draws that exceed the pool becomes uniform.
    """
    mine = np.flatnonzero(source == pool)
    row = np.repeat(np.arange(len(k)), k)[mine]
    n_wanted, n_held = np.bincount(row, minlength=len(k)), books.sizes(len(k))
    n_taken = np.minimum(n_wanted, n_held)
    place = distinct(n_held, n_taken, seed=seed, purpose=SOURCES[pool], key=key)
    has = ranges(n_wanted) < np.repeat(n_taken, n_wanted)
    first = np.cumsum(n_held) - n_held
    book[mine[has]] = books.book[np.repeat(first, n_taken) + place]
    source[mine[~has]] = UNIFORM


def _union(one: UserBooks, other: UserBooks) -> UserBooks:
    """Return the books of two disjoint sets, sorted by (row, book)."""
    if not len(other.row):
        return one
    row, book = np.concatenate([one.row, other.row]), np.concatenate([one.book, other.book])
    order = np.lexsort((book, row))
    return UserBooks(row[order], book[order])
