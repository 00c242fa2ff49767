"""The demo world: made-up books and readers in the four raw tables, with a known reason for every rating."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION
from reranker.config import WorldConfig
from reranker.data.draws import FloatArray, IntArray, bits
from reranker.data.sources.demo import books
from reranker.data.sources.demo.books import Works, stream

VERSION = 2  # of the world; raise it when the same WorldConfig gives other files

N_FAVOURITES = (0.3, 0.4, 0.3)  # chance of one, two, three favourite genres
STRENGTHS = (
    1.0,
    0.9,
    0.8,
)  # affinity to books of the first, second, third favourite; to all others 0
SECOND_AFFINITY = 0.3  # weight of a book's second genre
AUTHOR_AFFINITY = 0.5  # added for books of a favourite author
SHARPNESS = 3.7  # log weight of a choice per unit of affinity: four fifths of choices are favourites at taste 1
MAX_TASTE = (
    10.0  # when choosing; above it nothing but favourites is read, and weights would leave float32
)
MAX_LOG_RANGE = 60.0  # of popularity weights, for float32 too
RATING_MEAN = 3.6
SPREAD = 1.0  # stars per unit of affinity
MIN_READ = 4
OTHER_EDITION = 0.3  # chance that a reader took the second edition
BOTH_EDITIONS = 0.05  # chance that a reader of a work with two editions rated both
YEAR = 31_557_600  # seconds
START, START_SPAN = 1_262_304_000, 4 * YEAR  # readers start between 2010 and 2014
SPAN = (YEAR, 5 * YEAR)  # and go on for one to five years

USERS_PER_CHUNK = (
    4096  # one row group; also the unit of the random streams, so other values give another world
)
CELLS_PER_BLOCK = 1 << 21  # readers x works raced at once: 8 MiB; other values give the same world

INTERACTIONS = pa.schema(
    [
        ("user_id", pa.string()),
        ("book_id", pa.int64()),
        ("rating", pa.int64()),
        ("timestamp", pa.int64()),
    ]
)


@dataclass(frozen=True)
class _Readers:
    """The readers of one chunk: taste, length of history, first and last possible second of a rating."""

    taste: FloatArray  # (n, n_genres) affinity
    authors: IntArray  # (n, 2) favourites, both of the reader's first genre
    n_read: IntArray
    start: IntArray
    span: IntArray


def generate(cfg: WorldConfig, folder: Path) -> dict[str, object]:
    """Write the four raw tables of a made-up world into `folder`.

    A reader chooses distinct works with weight popularity^popularity_bias * exp(taste * SHARPNESS * affinity) and
    rates round(clip(RATING_MEAN + taste * SPREAD * (affinity - its mean over the reader's works) + noise, 1, 5)).
    Affinity comes from genres and authors; popularity and times know nothing of either. So at taste 0 nothing about a
    reader can be learnt from what the reader read. A world with more users begins with the users of the smaller one.

    Args:
        cfg: The world. Each history has at least MIN_READ and at most n_books / 4 works.
        folder: Exists; gets reduced_books, reduced_interactions, new_authors and book_texts_reduced (.parquet).

    Returns:
        n_books (works), n_editions (further book ids), n_users, n_ratings (rows; a few readers rate both editions).

    Source: choosing without replacement by an exponential race, Efraimidis & Spirakis 2006.
    """
    works = books.build(cfg)
    books.write(cfg, works, folder)
    n_ratings = 0
    with pq.ParquetWriter(
        folder / "reduced_interactions.parquet", INTERACTIONS, compression=COMPRESSION
    ) as writer:
        for table in _interactions(cfg, works):
            writer.write_table(table)
            n_ratings += table.num_rows
    n_editions = int((works.other_id >= 0).sum())
    return {
        "n_books": cfg.n_books,
        "n_editions": n_editions,
        "n_users": cfg.n_users,
        "n_ratings": n_ratings,
    }


def _interactions(cfg: WorldConfig, works: Works) -> Iterator[pa.Table]:
    for chunk, first in enumerate(range(0, cfg.n_users, USERS_PER_CHUNK)):
        n = min(USERS_PER_CHUNK, cfg.n_users - first)
        readers = _readers(cfg, works, chunk, n)
        user, work = _choose(cfg, works, readers, chunk)
        ids = pa.array(
            [f"{b:016x}" for b in bits(cfg.seed, "demo user", np.arange(first, first + n)).tolist()]
        )
        yield _rate(cfg, works, readers, user=user, work=work, chunk=chunk, ids=ids)


def _readers(cfg: WorldConfig, works: Works, chunk: int, n: int) -> _Readers:
    """The first n readers of a chunk; all are drawn, so that the first ones do not depend on n."""
    rng = stream(cfg, "readers", chunk)
    size, g = USERS_PER_CHUNK, works.n_genres
    gap = np.abs(np.arange(g)[:, None] - np.arange(g))
    first = rng.integers(g, size=size)
    race = (
        rng.exponential(size=(size, g)) * 2.0 ** np.minimum(gap, g - gap)[first]
    )  # near genres come first
    race[np.arange(size), first] = -1.0
    favourites = np.argsort(race, axis=1)
    n_more = rng.choice(len(N_FAVOURITES), size, p=N_FAVOURITES)
    taste = np.zeros((size, g))
    for i, strength in enumerate(STRENGTHS):
        has = np.flatnonzero(n_more >= i)
        taste[has, favourites[has, i]] = strength
    at_home = (
        works.n_authors - first + g - 1
    ) // g  # authors of a genre: its number, then every g-th
    one, two, start, span = rng.random((4, size))
    liked = (one * at_home).astype(np.int64)
    other = (liked + 1 + (two * (at_home - 1)).astype(np.int64)) % at_home
    n_read = rng.geometric(1 / (cfg.mean_ratings - MIN_READ + 1), size) + MIN_READ - 1
    return _Readers(
        taste=taste[:n],
        authors=(first[:, None] + g * np.stack([liked, other], axis=1))[:n],
        n_read=np.minimum(n_read, cfg.n_books // 4)[:n],
        start=START + (start[:n] * START_SPAN).astype(np.int64),
        span=SPAN[0] + (span[:n] * (SPAN[1] - SPAN[0])).astype(np.int64),
    )


def _affinity(works: Works, readers: _Readers) -> FloatArray:
    """(n_readers, n_kinds) affinity of every reader to every kind of work, authors apart."""
    by_second = np.hstack([np.zeros((len(readers.taste), 1)), SECOND_AFFINITY * readers.taste])
    return (readers.taste[:, :, None] + by_second[:, None, :]).reshape(len(readers.taste), -1)


def _choose(
    cfg: WorldConfig, works: Works, readers: _Readers, chunk: int
) -> tuple[IntArray, IntArray]:
    """Reader (of the chunk) and work of every choice; a reader's works are distinct."""
    pull = SHARPNESS * min(cfg.taste, MAX_TASTE)
    log_weight = cfg.popularity_bias * works.log_popularity
    unpopular = np.exp(np.minimum(log_weight.max() - log_weight, MAX_LOG_RANGE)).astype(np.float32)
    slow = np.exp(-pull * _affinity(works, readers)).astype(
        np.float32
    )  # from float64: no processor's exp decides
    author_slow = np.float32(np.exp(-pull * AUTHOR_AFFINITY))
    by_author = np.split(
        np.argsort(works.author, kind="stable"), np.cumsum(np.bincount(works.author))[:-1]
    )
    kind, n_works = works.kind, len(works.genre)

    rng = stream(cfg, "choices", chunk)
    n_rows = max(1, CELLS_PER_BLOCK // n_works)
    chosen = []
    for a in range(0, len(slow), n_rows):
        race = rng.standard_exponential((min(n_rows, len(slow) - a), n_works), dtype=np.float32)
        race *= unpopular
        race *= np.take(slow[a : a + n_rows], kind, axis=1)
        for row, authors in zip(race, readers.authors[a : a + n_rows], strict=True):
            for author in authors:
                row[by_author[author]] *= author_slow
        chosen.append(_fastest(race, readers.n_read[a : a + n_rows]))
    return np.repeat(np.arange(len(slow)), readers.n_read), np.concatenate(chosen)


def _fastest(race: FloatArray, n: IntArray) -> IntArray:
    """The n[i] smallest columns of each row i, fastest first, in one run."""
    most = int(n.max())
    columns = np.argpartition(race, most - 1, axis=1)[:, :most]
    order = np.argsort(np.take_along_axis(race, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)[np.arange(most) < n[:, None]]


def _rate(
    cfg: WorldConfig,
    works: Works,
    readers: _Readers,
    *,
    user: IntArray,
    work: IntArray,
    chunk: int,
    ids: pa.Array,
) -> pa.Table:
    """Rows of the interactions table: by reader, in the order of time, which knows nothing of rating or choice."""
    noise = stream(cfg, "noise", chunk).standard_normal((len(user), 2))
    time = stream(cfg, "times", chunk).random((len(user), 2))
    luck = stream(cfg, "editions", chunk).random((len(user), 2))
    by_favourite = (readers.authors[user] == works.author[work][:, None]).any(axis=1)
    affinity = _affinity(works, readers)[user, works.kind[work]] + AUTHOR_AFFINITY * by_favourite
    mean = np.bincount(user, affinity) / readers.n_read
    expected = RATING_MEAN + cfg.taste * SPREAD * (affinity - mean[user])
    first, second = works.book_id[work], works.other_id[work]
    took_other = (second >= 0) & (luck[:, 0] < OTHER_EDITION)
    first, second = np.where(took_other, second, first), np.where(took_other, first, second)
    both = np.flatnonzero((second >= 0) & (luck[:, 1] < BOTH_EDITIONS))

    row = np.concatenate([np.arange(len(user)), both])
    rating = np.clip(
        expected[row] + cfg.rating_noise * np.concatenate([noise[:, 0], noise[both, 1]]), 1.0, 5.0
    )
    time = np.concatenate([time[:, 0], time[both, 1]])
    order = np.lexsort((time, user[row]))
    owner = user[row][order]
    size = np.bincount(owner)
    place = (
        np.arange(len(owner)) - (np.cumsum(size) - size)[owner]
    )  # added, so that no two ratings share a second
    columns = {
        "user_id": ids.take(pa.array(owner)),
        "book_id": np.concatenate([first, second[both]])[order],
        "rating": np.rint(rating[order]).astype(np.int64),
        "timestamp": readers.start[owner]
        + (time[order] * readers.span[owner]).astype(np.int64)
        + place,
    }
    return pa.table(columns, INTERACTIONS)
