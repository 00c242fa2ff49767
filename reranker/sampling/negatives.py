"""Where negatives come from: unseen books uniformly or by popularity, a retriever's near misses, disliked books."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import numpy as np

from reranker.config import SamplingConfig
from reranker.data.draws import IntArray, KeyArray, bits, distinct, ranges, uniform, unseen
from reranker.sampling.weighted import MISSING, UserBooks, sample_weighted

SOURCES = ("positive", "uniform", "popularity", "retriever", "disliked")
UNIFORM, POPULARITY, RETRIEVER, DISLIKED = range(1, len(SOURCES))


def no_books() -> UserBooks:
    """A shelf without a book."""
    return UserBooks(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))


@dataclass(frozen=True)
class Choice:
    """What the negatives of a part are drawn from; row i is user i of the part.

    Attributes:
        key: (n_users,) of the user ids.
        rated: All that the users rated: never drawn, but for `disliked`.
        near: What a retriever ranks high for them.
        disliked: Target books that they rated low.
        n_books: In the catalogue.
        popularity: (n_books + 1,) cumulative integer weights; None where no source needs them.
    """

    key: KeyArray
    rated: UserBooks
    n_books: int
    near: UserBooks = field(default_factory=no_books)
    disliked: UserBooks = field(default_factory=no_books)
    popularity: IntArray | None = None


def draw(choice: Choice, k: IntArray, cfg: SamplingConfig) -> tuple[IntArray, IntArray]:
    """For every user, k distinct negatives in the order in which they are drawn.

    A source that has run out hands over to `uniform`; when no unseen book is left either, the draw is MISSING. Draw m
    of a user does not depend on k, so the negatives of a smaller neg_ratio are among those of a larger one. Under
    `retriever` and `mix` the uniform and popular draws leave out what the retriever offers, whether it is taken or not.

    Returns:
        book and source (an index of SOURCES), (sum of k,) each; user by user.
    """
    if cfg.strategy == "uniform":
        return _uniform(choice.key, choice.rated, k, choice.n_books, cfg.seed)
    source = _sources(choice.key, k, cfg)
    book = np.full(len(source), MISSING)
    for pool, shelf in ((RETRIEVER, choice.near), (DISLIKED, choice.disliked)):
        _take(pool, shelf, k, choice.key, cfg.seed, book, source)
    rest = np.flatnonzero(book == MISSING)
    row = np.repeat(np.arange(len(k)), k)[rest]
    n_rest = np.bincount(row, minlength=len(k))
    taboo = _together(choice.rated, choice.near)
    if choice.popularity is None:
        book[rest], source[rest] = _uniform(choice.key, taboo, n_rest, choice.n_books, cfg.seed)
    else:
        lines = [choice.popularity, np.arange(choice.n_books + 1)]
        line = np.where(source[rest] == POPULARITY, 0, 1)
        book[rest], line = sample_weighted(
            lines, taboo, n_rest, line, key=choice.key, seed=cfg.seed
        )
        source[rest] = np.where(line == 0, POPULARITY, UNIFORM)
    return book, source


def _uniform(
    key: KeyArray, taboo: UserBooks, k: IntArray, n_books: int, seed: int
) -> tuple[IntArray, IntArray]:
    ends = taboo.ends(len(k))
    n_open = n_books - np.diff(ends)
    n_drawn = np.minimum(k, n_open)
    rank = distinct(n_open, n_drawn, seed=seed, purpose="negatives", key=key)
    book = unseen(rank, n_drawn, ends, taboo.book)
    if len(book) < k.sum():
        padded = np.full(int(k.sum()), MISSING)
        padded[ranges(k) < np.repeat(n_drawn, k)] = book
        book = padded
    return book, np.full(len(book), UNIFORM, dtype=np.int8)


def _sources(key: KeyArray, k: IntArray, cfg: SamplingConfig) -> IntArray:
    """(sum of k,) the source that each draw is to come from."""
    if cfg.strategy != "mix":
        return np.full(int(k.sum()), SOURCES.index(cfg.strategy), dtype=np.int8)
    edges = np.cumsum([asdict(cfg.mix)[name] for name in SOURCES[1:]])
    chance = uniform(bits(cfg.seed, "source", np.repeat(key, k), ranges(k)))
    return (1 + np.searchsorted(edges[:-1], chance, side="right")).astype(np.int8)


def _take(
    pool: int,
    shelf: UserBooks,
    k: IntArray,
    key: KeyArray,
    seed: int,
    book: IntArray,
    source: IntArray,
) -> None:
    """Fill the draws of a pool with its books, in random order and each once; what it lacks becomes uniform."""
    mine = np.flatnonzero(source == pool)
    row = np.repeat(np.arange(len(k)), k)[mine]
    n_wanted, n_held = np.bincount(row, minlength=len(k)), shelf.sizes(len(k))
    n_taken = np.minimum(n_wanted, n_held)
    place = distinct(n_held, n_taken, seed=seed, purpose=SOURCES[pool], key=key)
    has = ranges(n_wanted) < np.repeat(n_taken, n_wanted)
    first = np.cumsum(n_held) - n_held
    book[mine[has]] = shelf.book[np.repeat(first, n_taken) + place]
    source[mine[~has]] = UNIFORM


def _together(one: UserBooks, other: UserBooks) -> UserBooks:
    if not len(other.row):
        return one
    row, book = np.concatenate([one.row, other.row]), np.concatenate([one.book, other.book])
    order = np.lexsort((book, row))
    return UserBooks(row[order], book[order])
