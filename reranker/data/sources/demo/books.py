"""The books of the demo world: works with genres, authors and popularity, and the three tables that describe them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION
from reranker.config import WorldConfig
from reranker.data.draws import FloatArray, IntArray, bits
from reranker.data.sources.demo import words as words

BoolArray = npt.NDArray[np.bool_]

BOOKS_PER_AUTHOR = 5
AUTHORS_PER_GENRE = (
    3  # at least; a small world has fewer genres, so that nobody has read out a favourite one
)
POPULARITY_SIGMA = (
    1.5  # of log popularity: the top tenth of books draws 30 % of choices at popularity_bias 0.5
)
HOME_FRACTION = 0.85  # of an author's books that are of the author's own genre
SECOND_FRACTION = 0.35  # of works that have a second genre
COAUTHOR_FRACTION = 0.05
SERIES_FRACTION = 0.5  # of the (author, genre) groups of two or more works
MAX_SERIES = 5  # works
TEXT_FRACTION = 0.8  # of books with a row in book_texts_reduced
DESCRIPTION_FRACTION = 0.85
YEAR_FRACTION = 0.95
SHELF_SHARE = (
    (0.40, 0.60),
    (0.10, 0.25),
    (0.05, 0.20),
    (0.15, 0.35),
    (0.03, 0.12),
)  # see _genre_shelves
HABITS_PER_BOOK = 7
TEXT_GENRES = 3

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
AUTHORS = pa.schema([("author_id", _TEXT), ("name", _TEXT)])
TEXTS = pa.schema([("book_id", pa.int64()), ("text", _TEXT)])


@dataclass(frozen=True)
class Works:
    """The works, one element each; -1 where there is no second genre, coauthor or other edition."""

    n_genres: int
    n_authors: int
    genre: IntArray
    second: IntArray
    author: IntArray
    coauthor: IntArray
    log_popularity: FloatArray
    book_id: IntArray
    other_id: IntArray  # book_id of the second edition

    @property
    def kind(self) -> IntArray:
        """(n_works,) genre and second genre as one code, below n_genres * (n_genres + 1)."""
        return self.genre * (self.n_genres + 1) + self.second + 1


def stream(cfg: WorldConfig, purpose: str, chunk: int = 0) -> np.random.Generator:
    """The generator of one draw of the world: no draw moves when another changes."""
    return np.random.default_rng(int(bits(cfg.seed, f"demo {purpose}", chunk)))


def build(cfg: WorldConfig) -> Works:
    """The works of a world. Author a's home genre is a modulo n_genres; every author has a work."""
    rng = stream(cfg, "works")
    n = cfg.n_books
    n_authors = max(n // BOOKS_PER_AUTHOR, 3 * AUTHORS_PER_GENRE)
    n_genres = min(n_authors // AUTHORS_PER_GENRE, len(words.GENRES))
    productivity = rng.lognormal(0.0, 0.7, n_authors)
    extra = rng.choice(n_authors, n - n_authors, p=productivity / productivity.sum())
    author = np.concatenate([np.arange(n_authors), extra])
    genre = np.where(
        rng.random(n) < HOME_FRACTION, author % n_genres, rng.integers(n_genres, size=n)
    )
    near = (genre + rng.choice([-2, -1, 1, 2], n)) % n_genres
    coauthor = (author + rng.integers(1, n_authors, n)) % n_authors
    n_editions = round(n * cfg.edition_fraction)
    ids = rng.permutation(10 * (n + n_editions))[: n + n_editions] + 1
    other_id = np.full(n, -1)
    other_id[rng.permutation(n)[:n_editions]] = ids[n:]
    return Works(
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


@dataclass(frozen=True)
class _Copy:
    """What is printed of each work, one element each."""

    title: list[str]
    series: list[str]  # "Dragon Saga #2", or empty
    author_ids: list[list[str]]
    authors: list[str]
    sentence: list[str | None]
    shelves: IntArray  # see _genre_shelves
    shares: FloatArray


def write(cfg: WorldConfig, works: Works, folder: Path) -> None:
    """Write reduced_books, new_authors and book_texts_reduced, ascending book_id; texts for TEXT_FRACTION of books.

    A second edition has its work's authors, description and shelves, and the work's title without the series, with
    " (Paperback)" behind it.
    """
    rng = stream(cfg, "catalogue")
    names = words.author_names(works.n_authors, rng)
    author_ids = [str(i + 1) for i in rng.permutation(10 * works.n_authors)[: works.n_authors]]
    _write(folder / "new_authors.parquet", {"author_id": author_ids, "name": names}, AUTHORS)

    copy = _copy(works, names, author_ids, rng)
    editions = np.flatnonzero(works.other_id >= 0)
    ids = np.concatenate([works.book_id, works.other_id[editions]])
    order = np.argsort(ids)
    work = np.concatenate([np.arange(cfg.n_books), editions])[order]
    is_other = order >= cfg.n_books
    _write(
        folder / "reduced_books.parquet",
        {"book_id": ids[order], **_columns(works, copy, work, is_other, rng)},
        BOOKS,
    )
    rows = np.flatnonzero(rng.random(len(work)) < TEXT_FRACTION)
    texts = {"book_id": ids[order][rows], "text": _texts(copy, work[rows], is_other[rows])}
    _write(folder / "book_texts_reduced.parquet", texts, TEXTS)


def _write(path: Path, columns: dict[str, Any], schema: pa.Schema) -> None:
    pq.write_table(pa.table(columns, schema), path, compression=COMPRESSION)


def _copy(works: Works, names: list[str], author_ids: list[str], rng: np.random.Generator) -> _Copy:
    by = [
        [a] if b < 0 else [a, b]
        for a, b in zip(works.author.tolist(), works.coauthor.tolist(), strict=True)
    ]
    described = rng.random(len(by)) < DESCRIPTION_FRACTION
    sentences = words.descriptions(works.genre, rng)
    shelves, shares = _genre_shelves(works, rng)
    return _Copy(
        title=words.titles(works.genre, rng),
        series=_series(works, rng),
        author_ids=[[author_ids[a] for a in authors] for authors in by],
        authors=[", ".join(names[a] for a in authors) for authors in by],
        sentence=[s if d else None for s, d in zip(sentences, described, strict=True)],
        shelves=shelves,
        shares=shares,
    )


def _columns(
    works: Works, copy: _Copy, work: IntArray, is_other: BoolArray, rng: np.random.Generator
) -> dict[str, Any]:
    numbered = [
        f"{t} ({s.replace(' #', ', #')})" if s else t
        for t, s in zip(copy.title, copy.series, strict=True)
    ]
    readers = np.exp(works.log_popularity[work]) * np.where(is_other, 0.3, 1.0)
    year = np.rint(2009 - rng.gamma(1.2, 18.0, len(numbered)))[work] + 2.0 * is_other
    language = rng.choice(
        np.array(["eng", "en-US", "en-GB", None]), len(work), p=[0.7, 0.15, 0.05, 0.1]
    )
    return {
        "title": [
            _paperback(copy.title[w]) if o else numbered[w]
            for w, o in zip(work, is_other, strict=True)
        ],
        "description": [copy.sentence[w] for w in work],
        "popular_shelves": _popular_shelves(copy.shelves[work], copy.shares[work], readers, rng),
        "authors": [copy.author_ids[w] for w in work],
        "publication_year": pa.array(year, mask=rng.random(len(work)) >= YEAR_FRACTION),
        "language_code": language.tolist(),
    }


def _paperback(title: str) -> str:
    return f"{title} (Paperback)"


def _texts(copy: _Copy, work: IntArray, is_other: BoolArray) -> list[str]:
    """`Title: … | Authors: … | Series: … | Genres: a, b, c | <description>`, without what is not there."""
    top = np.argsort(-copy.shares, axis=1, kind="stable")[:, :TEXT_GENRES]
    genres = np.array(words.SHELVES)[np.take_along_axis(copy.shelves, top, axis=1)]
    result = []
    for w, other in zip(work.tolist(), is_other, strict=True):
        title = _paperback(copy.title[w]) if other else copy.title[w]
        parts = [
            f"Title: {title}",
            f"Authors: {copy.authors[w]}",
            copy.series[w] and f"Series: {copy.series[w]}",
        ]
        result.append(
            " | ".join(filter(None, [*parts, f"Genres: {', '.join(genres[w])}", copy.sentence[w]]))
        )
    return result


def _series(works: Works, rng: np.random.Generator) -> list[str]:
    """`Dragon Saga #2`, or nothing, for each work: some authors number their first works of a genre."""
    _, group, size = np.unique(
        works.author * works.n_genres + works.genre, return_inverse=True, return_counts=True
    )
    order = np.argsort(group, kind="stable")
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - (np.cumsum(size) - size)[group[order]]
    genre = works.genre[order[np.cumsum(size) - size]]
    name = words.series_names(genre, rng)
    length = np.where(
        rng.random(len(size)) < SERIES_FRACTION, rng.integers(2, MAX_SERIES + 1, len(size)), 0
    )
    inside = (size[group] > 1) & (place < length[group])
    return [
        f"{name[g]} #{p + 1}" if i else "" for g, p, i in zip(group, place, inside, strict=True)
    ]


def _genre_shelves(works: Works, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """(n_works, 5) shelves and the share of readers who use them, 0 where there is none.

    In SHELF_SHARE's order: the genre, two narrower shelves of it, the second genre, a narrower shelf of that.
    """
    n = len(works.genre)
    narrow = len(words.GENRES[0].shelves)
    one, step, other = (rng.integers(low, narrow, n) for low in (0, 1, 0))
    subs = [
        _narrow(works.genre, one),
        _narrow(works.genre, (one + step) % narrow),
        _narrow(works.second, other),
    ]
    shelves = np.stack([works.genre, subs[0], subs[1], works.second, subs[2]], axis=1)
    low, high = np.array(SHELF_SHARE).T
    shares = rng.uniform(low, high, shelves.shape)
    shares[:, 3:] *= (works.second >= 0)[:, None]
    return shelves, shares


def _narrow(genre: IntArray, which: IntArray) -> IntArray:
    return len(words.GENRES) + genre * len(words.GENRES[0].shelves) + which


def _popular_shelves(
    shelves: IntArray, shares: FloatArray, readers: FloatArray, rng: np.random.Generator
) -> pa.Array:
    """Genre shelves and HABITS_PER_BOOK habits of each book, most used first, with counts as Goodreads gives them."""
    n_habits = len(words.HABITS)
    habit_shares = rng.random((len(shelves), n_habits)) * 1.2 * 0.85 ** np.arange(n_habits)
    habits = np.argsort(-habit_shares, axis=1, kind="stable")[:, :HABITS_PER_BOOK]
    codes = np.hstack([shelves, len(words.SHELVES) - n_habits + habits])
    share = np.hstack([shares, np.take_along_axis(habit_shares, habits, axis=1)])
    order = np.argsort(-share, axis=1, kind="stable")
    codes, share = (
        np.take_along_axis(codes, order, axis=1),
        np.take_along_axis(share, order, axis=1),
    )
    used = share > 0
    counts = (share * 1000 * readers[:, None]).astype(np.int64)[used] + 1
    fields = [pa.array(counts).cast(_TEXT), pa.array(words.SHELVES).take(pa.array(codes[used]))]
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    return pa.ListArray.from_arrays(
        pa.array(offsets, pa.int32()), pa.StructArray.from_arrays(fields, ["count", "name"])
    )
