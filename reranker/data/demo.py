"""The demo world: made-up books and readers in the four raw tables, with a known reason for every rating."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.config import WorldConfig
from reranker.data import demo_words as words
from reranker.data.draws import FloatArray, IntArray, bits

VERSION = 1  # of the world; raise it when the same WorldConfig gives other files

BOOKS_PER_AUTHOR = 5
AUTHORS_PER_GENRE = 3  # at least; a small world has fewer genres, so that nobody has read out a favourite one
POPULARITY_SIGMA = 1.5  # of log popularity: the top tenth of books draws 30 % of choices at popularity_bias 0.5
HOME_FRACTION = 0.85  # of an author's books that are of the author's own genre
SECOND_FRACTION = 0.35  # of works that have a second genre
COAUTHOR_FRACTION = 0.05
SERIES_FRACTION = 0.5  # of the (author, genre) groups of two or more works
MAX_SERIES = 5  # works
TEXT_FRACTION = 0.8  # of books with a row in book_texts_reduced
DESCRIPTION_FRACTION = 0.85
YEAR_FRACTION = 0.95
SHELF_SHARE = ((0.40, 0.60), (0.10, 0.25), (0.05, 0.20), (0.15, 0.35), (0.03, 0.12))  # see _genre_shelves
HABITS_PER_BOOK = 7
TEXT_GENRES = 3

N_FAVOURITES = (0.3, 0.4, 0.3)  # chance of one, two, three favourite genres
STRENGTHS = (1.0, 0.9, 0.8)  # affinity to books of the first, second, third favourite; to all others 0
SECOND_AFFINITY = 0.3  # weight of a book's second genre
AUTHOR_AFFINITY = 0.5  # added for books of a favourite author
FAVOURITE_AUTHORS = 2  # all of the reader's first favourite genre
SHARPNESS = 3.7  # log weight of a choice per unit of affinity: four fifths of choices are favourites at taste 1
MAX_TASTE = 10.0  # when choosing; above it nothing but favourites is read, and weights would leave float32
MAX_LOG_RANGE = 60.0  # of popularity weights, for float32 too
RATING_MEAN = 3.6
SPREAD = 1.0  # stars per unit of affinity
MIN_READ = 4
OTHER_EDITION = 0.3  # chance that a reader took the second edition
BOTH_EDITIONS = 0.05  # chance that a reader of a work with two editions rated both
YEAR = 31_557_600  # seconds
START, START_SPAN = 1_262_304_000, 4 * YEAR  # readers start between 2010 and 2014
SPAN = (YEAR, 5 * YEAR)  # and go on for one to five years

USERS_PER_CHUNK = 4096  # one row group; also the unit of the random streams, so other values give another world
CELLS_PER_BLOCK = 1 << 21  # readers x works raced at once: 8 MiB; other values give the same world

_TEXT = pa.string()
_SHELVES = pa.list_(pa.struct([("count", _TEXT), ("name", _TEXT)]))
BOOKS = pa.schema(
    [
        ("book_id", pa.int64()),
        ("title", _TEXT),
        ("description", _TEXT),
        ("popular_shelves", _SHELVES),
        ("authors", pa.list_(_TEXT)),
        ("publication_year", pa.float64()),
        ("language_code", _TEXT),
    ]
)
INTERACTIONS = pa.schema(
    [("user_id", _TEXT), ("book_id", pa.int64()), ("rating", pa.int64()), ("timestamp", pa.int64())]
)
AUTHORS = pa.schema([("author_id", _TEXT), ("name", _TEXT)])
TEXTS = pa.schema([("book_id", pa.int64()), ("text", _TEXT)])


@dataclass(frozen=True)
class _Works:
    """What readers see of a work, one element each; -1 where there is no second genre, coauthor or other edition."""

    n_genres: int
    n_authors: int
    genre: IntArray
    second: IntArray
    author: IntArray
    coauthor: IntArray
    log_popularity: FloatArray
    book_id: IntArray
    other_id: IntArray  # book_id of the second edition


@dataclass(frozen=True)
class _Readers:
    """The readers of one chunk: taste, length of history, first and last possible second of a rating."""

    taste: FloatArray  # (n, n_genres) affinity
    authors: IntArray  # (n, FAVOURITE_AUTHORS)
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
    works = _works(cfg)
    _write_catalogue(cfg, works, folder)
    n_ratings = 0
    with pq.ParquetWriter(folder / "reduced_interactions.parquet", INTERACTIONS, compression="zstd") as writer:
        for table in _interactions(cfg, works):
            writer.write_table(table)
            n_ratings += table.num_rows
    n_editions = int((works.other_id >= 0).sum())
    return {"n_books": cfg.n_books, "n_editions": n_editions, "n_users": cfg.n_users, "n_ratings": n_ratings}


def _stream(cfg: WorldConfig, purpose: str, chunk: int = 0) -> np.random.Generator:
    return np.random.default_rng(int(bits(cfg.seed, f"demo {purpose}", chunk)))


# Works


def _works(cfg: WorldConfig) -> _Works:
    rng = _stream(cfg, "works")
    n = cfg.n_books
    n_authors = max(n // BOOKS_PER_AUTHOR, 3 * AUTHORS_PER_GENRE)
    n_genres = min(n_authors // AUTHORS_PER_GENRE, len(words.GENRES))
    productivity = rng.lognormal(0.0, 0.7, n_authors)
    extra = rng.choice(n_authors, n - n_authors, p=productivity / productivity.sum())
    author = np.concatenate([np.arange(n_authors), extra])
    genre = np.where(rng.random(n) < HOME_FRACTION, author % n_genres, rng.integers(n_genres, size=n))
    near = (genre + rng.choice([-2, -1, 1, 2], n)) % n_genres
    coauthor = (author + rng.integers(1, n_authors, n)) % n_authors
    n_editions = round(n * cfg.edition_fraction)
    ids = rng.permutation(10 * (n + n_editions))[: n + n_editions] + 1
    other_id = np.full(n, -1)
    other_id[rng.permutation(n)[:n_editions]] = ids[n:]
    return _Works(
        n_genres=n_genres,
        n_authors=n_authors,
        genre=genre,
        second=np.where(rng.random(n) < SECOND_FRACTION, near, -1),
        author=author,
        coauthor=np.where(rng.random(n) < COAUTHOR_FRACTION, coauthor, -1),
        log_popularity=rng.normal(0.0, POPULARITY_SIGMA, n),
        book_id=ids[:n],
        other_id=other_id,
    )


def _write_catalogue(cfg: WorldConfig, works: _Works, folder: Path) -> None:
    rng = _stream(cfg, "catalogue")
    editions = np.flatnonzero(works.other_id >= 0)
    ids = np.concatenate([works.book_id, works.other_id[editions]])
    order = np.argsort(ids)
    ids, work = ids[order], np.concatenate([np.arange(cfg.n_books), editions])[order]
    is_other = order >= cfg.n_books
    names = words.author_names(works.n_authors, rng)
    author_ids = [str(i + 1) for i in rng.permutation(10 * works.n_authors)[: works.n_authors]]
    by = [[a] if b < 0 else [a, b] for a, b in zip(works.author.tolist(), works.coauthor.tolist(), strict=True)]
    title, series = words.titles(works.genre, rng), _series(works, rng)
    described = rng.random(cfg.n_books) < DESCRIPTION_FRACTION
    sentence = [s if d else None for s, d in zip(words.descriptions(works.genre, rng), described, strict=True)]
    shelves, shares = _genre_shelves(works, rng)

    full = [f"{t} ({s.replace(' #', ', #')})" if s else t for t, s in zip(title, series, strict=True)]
    paperback = [f"{t} (Paperback)" for t in title]
    readers = np.exp(works.log_popularity[work]) * np.where(is_other, 0.3, 1.0)
    year = np.rint(2009 - rng.gamma(1.2, 18.0, cfg.n_books))[work] + 2.0 * is_other
    language = rng.choice(np.array(["eng", "en-US", "en-GB", None]), len(work), p=[0.7, 0.15, 0.05, 0.1])
    books = {
        "book_id": ids,
        "title": [(paperback if other else full)[w] for w, other in zip(work, is_other, strict=True)],
        "description": [sentence[w] for w in work],
        "popular_shelves": _popular_shelves(shelves[work], shares[work], readers, rng),
        "authors": [[author_ids[a] for a in by[w]] for w in work],
        "publication_year": pa.array(year, mask=rng.random(len(work)) >= YEAR_FRACTION),
        "language_code": language.tolist(),
    }
    _write(folder / "reduced_books.parquet", pa.table(books, BOOKS))
    _write(folder / "new_authors.parquet", pa.table({"author_id": author_ids, "name": names}, AUTHORS))

    genres = _top_shelves(shelves, shares)
    rows = np.flatnonzero(rng.random(len(work)) < TEXT_FRACTION)
    texts = [
        _text((paperback if is_other[r] else title)[w], [names[a] for a in by[w]], series[w], genres[w], sentence[w])
        for r, w in zip(rows, work[rows], strict=True)
    ]
    _write(folder / "book_texts_reduced.parquet", pa.table({"book_id": ids[rows], "text": texts}, TEXTS))


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd")


def _text(title: str, authors: list[str], series: str, genres: list[str], description: str | None) -> str:
    parts = [f"Title: {title}", f"Authors: {', '.join(authors)}", f"Series: {series}" if series else ""]
    return " | ".join(filter(None, [*parts, f"Genres: {', '.join(genres)}", description]))


def _series(works: _Works, rng: np.random.Generator) -> list[str]:
    """`Dragon Saga #2`, or nothing, for each work: some authors number their first works of a genre."""
    _, group, size = np.unique(works.author * works.n_genres + works.genre, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - (np.cumsum(size) - size)[group[order]]
    genre = works.genre[order[np.cumsum(size) - size]]
    name = words.series_names(genre, rng)
    length = np.where(rng.random(len(size)) < SERIES_FRACTION, rng.integers(2, MAX_SERIES + 1, len(size)), 0)
    inside = (size[group] > 1) & (place < length[group])
    return [f"{name[g]} #{p + 1}" if i else "" for g, p, i in zip(group, place, inside, strict=True)]


def _genre_shelves(works: _Works, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """(n_works, 5) shelves and the share of readers who use them, 0 where there is none.

    In SHELF_SHARE's order: the genre, two narrower shelves of it, the second genre, a narrower shelf of that.
    """
    n = len(works.genre)
    narrow = len(words.GENRES[0].shelves)
    one, step, other = (rng.integers(low, narrow, n) for low in (0, 1, 0))
    subs = [_narrow(works.genre, one), _narrow(works.genre, (one + step) % narrow), _narrow(works.second, other)]
    shelves = np.stack([works.genre, subs[0], subs[1], works.second, subs[2]], axis=1)
    low, high = np.array(SHELF_SHARE).T
    shares = rng.uniform(low, high, shelves.shape)
    shares[:, 3:] *= (works.second >= 0)[:, None]
    return shelves, shares


def _narrow(genre: IntArray, which: IntArray) -> IntArray:
    return len(words.GENRES) + genre * len(words.GENRES[0].shelves) + which


def _top_shelves(shelves: IntArray, shares: FloatArray) -> list[list[str]]:
    top = np.argsort(-shares, axis=1, kind="stable")[:, :TEXT_GENRES]
    return np.array(words.SHELVES)[np.take_along_axis(shelves, top, axis=1)].tolist()


def _popular_shelves(shelves: IntArray, shares: FloatArray, readers: FloatArray, rng: np.random.Generator) -> pa.Array:
    """Genre shelves and HABITS_PER_BOOK habits of each book, most used first, with counts as Goodreads gives them."""
    n_habits = len(words.HABITS)
    habit_shares = rng.random((len(shelves), n_habits)) * 1.2 * 0.85 ** np.arange(n_habits)
    habits = np.argsort(-habit_shares, axis=1, kind="stable")[:, :HABITS_PER_BOOK]
    codes = np.hstack([shelves, len(words.SHELVES) - n_habits + habits])
    share = np.hstack([shares, np.take_along_axis(habit_shares, habits, axis=1)])
    order = np.argsort(-share, axis=1, kind="stable")
    codes, share = np.take_along_axis(codes, order, axis=1), np.take_along_axis(share, order, axis=1)
    used = share > 0
    counts = (share * 1000 * readers[:, None]).astype(np.int64)[used] + 1
    fields = [pa.array(counts).cast(_TEXT), pa.array(words.SHELVES).take(pa.array(codes[used]))]
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(fields, ["count", "name"])
    )


# Readers


def _interactions(cfg: WorldConfig, works: _Works) -> Iterator[pa.Table]:
    for chunk, first in enumerate(range(0, cfg.n_users, USERS_PER_CHUNK)):
        n = min(USERS_PER_CHUNK, cfg.n_users - first)
        readers = _readers(cfg, works, chunk, n)
        user, work, affinity = _choose(cfg, works, readers, chunk)
        ids = pa.array([f"{b:016x}" for b in bits(cfg.seed, "demo user", np.arange(first, first + n)).tolist()])
        yield _rate(cfg, works, readers, user=user, work=work, affinity=affinity, chunk=chunk, ids=ids)


def _readers(cfg: WorldConfig, works: _Works, chunk: int, n: int) -> _Readers:
    """The first n readers of a chunk; all are drawn, so that the first ones do not depend on n."""
    rng = _stream(cfg, "readers", chunk)
    size, g = USERS_PER_CHUNK, works.n_genres
    gap = np.abs(np.arange(g)[:, None] - np.arange(g))
    first = rng.integers(g, size=size)
    race = rng.exponential(size=(size, g)) * 2.0 ** np.minimum(gap, g - gap)[first]  # near genres come first
    race[np.arange(size), first] = -1.0
    favourites = np.argsort(race, axis=1)
    n_more = rng.choice(len(N_FAVOURITES), size, p=N_FAVOURITES)
    taste = np.zeros((size, g))
    for i, strength in enumerate(STRENGTHS):
        has = np.flatnonzero(n_more >= i)
        taste[has, favourites[has, i]] = strength
    at_home = (works.n_authors - first + g - 1) // g  # authors of a genre: its number, then every g-th
    one, two, start, span = rng.random((4, size))
    liked = (one * at_home).astype(np.int64)
    other = (liked + 1 + (two * (at_home - 1)).astype(np.int64)) % at_home
    n_read = rng.geometric(1 / (cfg.mean_ratings - MIN_READ + 1), size) + MIN_READ - 1
    columns = (
        taste,
        first[:, None] + g * np.stack([liked, other], axis=1),
        np.minimum(n_read, cfg.n_books // 4),
        START + (start * START_SPAN).astype(np.int64),
        (span * (SPAN[1] - SPAN[0])).astype(np.int64) + SPAN[0],
    )
    return _Readers(*(column[:n] for column in columns))


def _choose(cfg: WorldConfig, works: _Works, readers: _Readers, chunk: int) -> tuple[IntArray, IntArray, FloatArray]:
    """Reader (of the chunk), work and affinity of every choice; a reader's works are distinct."""
    g = works.n_genres
    by_second = np.hstack([np.zeros((len(readers.taste), 1)), SECOND_AFFINITY * readers.taste])
    affinity = (readers.taste[:, :, None] + by_second[:, None, :]).reshape(-1, g * (g + 1))  # of (genre, second)
    kind = works.genre * (g + 1) + works.second + 1
    pull = SHARPNESS * min(cfg.taste, MAX_TASTE)
    log_weight = cfg.popularity_bias * works.log_popularity
    unpopular = np.exp(np.minimum(log_weight.max() - log_weight, MAX_LOG_RANGE)).astype(np.float32)
    slow = np.exp(-pull * affinity).astype(np.float32)  # float64 before rounding: no ulp of exp decides
    by_author = np.split(np.argsort(works.author, kind="stable"), np.cumsum(np.bincount(works.author))[:-1])
    author_slow = np.float32(np.exp(-pull * AUTHOR_AFFINITY))

    rng = _stream(cfg, "choices", chunk)
    n_rows = max(1, CELLS_PER_BLOCK // len(kind))
    users, chosen = [], []
    for a in range(0, len(slow), n_rows):
        n_read = readers.n_read[a : a + n_rows]
        race = rng.standard_exponential((len(n_read), len(kind)), dtype=np.float32)
        race *= unpopular
        race *= np.take(slow[a : a + n_rows], kind, axis=1)
        for row, authors in zip(race, readers.authors[a : a + n_rows], strict=True):
            for author in authors:
                row[by_author[author]] *= author_slow
        users.append(a + np.repeat(np.arange(len(n_read)), n_read))
        chosen.append(_fastest(race, n_read))
    user, work = np.concatenate(users), np.concatenate(chosen)
    by_favourite = (readers.authors[user] == works.author[work][:, None]).any(axis=1)
    return user, work, affinity[user, kind[work]] + AUTHOR_AFFINITY * by_favourite


def _fastest(race: FloatArray, n: IntArray) -> IntArray:
    """The n[i] smallest columns of each row i, fastest first, in one run."""
    most = int(n.max())
    columns = np.argpartition(race, most - 1, axis=1)[:, :most]
    order = np.argsort(np.take_along_axis(race, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1)[np.arange(most) < n[:, None]]


def _rate(
    cfg: WorldConfig,
    works: _Works,
    readers: _Readers,
    *,
    user: IntArray,
    work: IntArray,
    affinity: FloatArray,
    chunk: int,
    ids: pa.Array,
) -> pa.Table:
    """Rows of the interactions table: by reader, in the order of time, which knows nothing of rating or choice."""
    noise = _stream(cfg, "noise", chunk).standard_normal((len(user), 2))
    time = _stream(cfg, "times", chunk).random((len(user), 2))
    luck = _stream(cfg, "editions", chunk).random((len(user), 2))
    mean = np.bincount(user, affinity) / readers.n_read
    expected = RATING_MEAN + cfg.taste * SPREAD * (affinity - mean[user])
    first, second = works.book_id[work], works.other_id[work]
    took_other = (second >= 0) & (luck[:, 0] < OTHER_EDITION)
    first, second = np.where(took_other, second, first), np.where(took_other, first, second)
    both = np.flatnonzero((second >= 0) & (luck[:, 1] < BOTH_EDITIONS))

    row = np.concatenate([np.arange(len(user)), both])
    rating = np.clip(expected[row] + cfg.rating_noise * np.concatenate([noise[:, 0], noise[both, 1]]), 1.0, 5.0)
    time = np.concatenate([time[:, 0], time[both, 1]])
    order = np.lexsort((time, user[row]))
    owner = user[row][order]
    size = np.bincount(owner)
    place = np.arange(len(owner)) - (np.cumsum(size) - size)[owner]  # added, so that no two ratings share a second
    columns = {
        "user_id": ids.take(pa.array(owner)),
        "book_id": np.concatenate([first, second[both]])[order],
        "rating": np.rint(rating[order]).astype(np.int64),
        "timestamp": readers.start[owner] + (time[order] * readers.span[owner]).astype(np.int64) + place,
    }
    return pa.table(columns, INTERACTIONS)
