"""Generate the works of the demo world and write its tables of books, authors and texts."""

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
from reranker.data.sources.demo import words

BoolArray = npt.NDArray[np.bool_]

BOOKS_PER_AUTHOR = 5
# Minimum. A small world has fewer genres, so that no user has read all books of a favourite genre.
AUTHORS_PER_GENRE = 3
# Standard deviation of log popularity. At popularity_bias 0.5 the most popular tenth of the books
# gets 30 % of the choices.
POPULARITY_SIGMA = 1.5
# Share of an author's works in the author's main genre.
MAIN_GENRE_FRACTION = 0.85
# Share of works with a second genre.
SECOND_FRACTION = 0.35
COAUTHOR_FRACTION = 0.05
# Share of series among the (author, genre) groups of two or more works.
SERIES_FRACTION = 0.5
# Maximum number of works in a series.
MAX_SERIES = 5
# Share of books with a row in book_texts_reduced.
TEXT_FRACTION = 0.8
DESCRIPTION_FRACTION = 0.85
YEAR_FRACTION = 0.95
# Ranges of the shares in `_genre_shelves`, in its order of shelves.
SHELF_SHARE = ((0.40, 0.60), (0.10, 0.25), (0.05, 0.20), (0.15, 0.35), (0.03, 0.12))
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
    """The works: arrays with one element per work, -1 for no second genre, coauthor or edition."""

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
        """Return (n_works,) genre and second genre as one code below n_genres * (n_genres + 1)."""
        return self.genre * (self.n_genres + 1) + self.second + 1


def stream(cfg: WorldConfig, purpose: str, chunk: int = 0) -> np.random.Generator:
    """Return the random generator of one purpose.

    Each purpose has its own generator, so a change of one draw does not affect the others.
    """
    return np.random.default_rng(int(bits(cfg.seed, f"demo {purpose}", chunk)))


def build(cfg: WorldConfig) -> Works:
    """Return the works of a world.

    The main genre of author a is a modulo n_genres. Every author has at least one work.
    """
    rng = stream(cfg, "works")
    n = cfg.n_books
    n_authors = max(n // BOOKS_PER_AUTHOR, 3 * AUTHORS_PER_GENRE)
    n_genres = min(n_authors // AUTHORS_PER_GENRE, len(words.GENRES))
    productivity = rng.lognormal(0.0, 0.7, n_authors)
    extra = rng.choice(n_authors, n - n_authors, p=productivity / productivity.sum())
    author = np.concatenate([np.arange(n_authors), extra])
    genre = np.where(
        rng.random(n) < MAIN_GENRE_FRACTION, author % n_genres, rng.integers(n_genres, size=n)
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
class _Metadata:
    """The metadata of the works: lists and arrays with one element per work."""

    title: list[str]
    series: list[str]  # "Dragon Saga #2" or empty
    author_ids: list[list[str]]
    authors: list[str]
    sentence: list[str | None]
    shelves: IntArray  # see _genre_shelves
    shares: FloatArray


def write(cfg: WorldConfig, works: Works, folder: Path) -> None:
    """Write reduced_books, new_authors and book_texts_reduced; books are sorted by book_id.

    TEXT_FRACTION of the books have a text. A second edition has the authors, description and
    shelves of its work. Its title is the work's title without the series, followed by
    " (Paperback)".
    """
    rng = stream(cfg, "catalogue")
    names = words.author_names(works.n_authors, rng)
    author_ids = [str(i + 1) for i in rng.permutation(10 * works.n_authors)[: works.n_authors]]
    _write(folder / "new_authors.parquet", {"author_id": author_ids, "name": names}, AUTHORS)

    metadata = _metadata(works, names, author_ids, rng=rng)
    editions = np.flatnonzero(works.other_id >= 0)
    ids = np.concatenate([works.book_id, works.other_id[editions]])
    order = np.argsort(ids)
    work = np.concatenate([np.arange(cfg.n_books), editions])[order]
    is_other = order >= cfg.n_books
    columns = _columns(works, metadata, work, is_other=is_other, rng=rng)
    _write(folder / "reduced_books.parquet", {"book_id": ids[order], **columns}, BOOKS)
    rows = np.flatnonzero(rng.random(len(work)) < TEXT_FRACTION)
    texts = {"book_id": ids[order][rows], "text": _texts(metadata, work[rows], is_other[rows])}
    _write(folder / "book_texts_reduced.parquet", texts, TEXTS)


def _write(path: Path, columns: dict[str, Any], schema: pa.Schema) -> None:
    pq.write_table(pa.table(columns, schema), path, compression=COMPRESSION)


def _metadata(
    works: Works, names: list[str], author_ids: list[str], *, rng: np.random.Generator
) -> _Metadata:
    pairs = zip(works.author.tolist(), works.coauthor.tolist(), strict=True)
    authors_of = [[a] if b < 0 else [a, b] for a, b in pairs]
    described = rng.random(len(authors_of)) < DESCRIPTION_FRACTION
    sentences = words.descriptions(works.genre, rng)
    shelves, shares = _genre_shelves(works, rng)
    return _Metadata(
        title=words.titles(works.genre, rng),
        series=_series(works, rng),
        author_ids=[[author_ids[a] for a in authors] for authors in authors_of],
        authors=[", ".join(names[a] for a in authors) for authors in authors_of],
        sentence=[s if d else None for s, d in zip(sentences, described, strict=True)],
        shelves=shelves,
        shares=shares,
    )


def _columns(
    works: Works,
    metadata: _Metadata,
    work: IntArray,
    *,
    is_other: BoolArray,
    rng: np.random.Generator,
) -> dict[str, Any]:
    """Return the columns of reduced_books except book_id; `work` is the work of each book."""
    titles = zip(metadata.title, metadata.series, strict=True)
    numbered = [f"{t} ({s.replace(' #', ', #')})" if s else t for t, s in titles]
    popularity = np.exp(works.log_popularity[work]) * np.where(is_other, 0.3, 1.0)
    year = np.rint(2009 - rng.gamma(1.2, 18.0, len(numbered)))[work] + 2.0 * is_other
    codes = np.array(["eng", "en-US", "en-GB", None])
    language = rng.choice(codes, len(work), p=[0.7, 0.15, 0.05, 0.1])
    shelves, shares = metadata.shelves[work], metadata.shares[work]
    return {
        "title": [
            _paperback(metadata.title[w]) if o else numbered[w]
            for w, o in zip(work, is_other, strict=True)
        ],
        "description": [metadata.sentence[w] for w in work],
        "popular_shelves": _popular_shelves(shelves, shares, popularity, rng=rng),
        "authors": [metadata.author_ids[w] for w in work],
        "publication_year": pa.array(year, mask=rng.random(len(work)) >= YEAR_FRACTION),
        "language_code": language.tolist(),
    }


def _paperback(title: str) -> str:
    return f"{title} (Paperback)"


def _texts(metadata: _Metadata, work: IntArray, is_other: BoolArray) -> list[str]:
    """Return `Title: … | Authors: … | Series: … | Genres: a, b, c | <description>` of each book.

    Missing fields are left out.
    """
    top = np.argsort(-metadata.shares, axis=1, kind="stable")[:, :TEXT_GENRES]
    genres = np.array(words.SHELVES)[np.take_along_axis(metadata.shelves, top, axis=1)]
    result = []
    for w, other in zip(work.tolist(), is_other, strict=True):
        title = _paperback(metadata.title[w]) if other else metadata.title[w]
        parts = [
            f"Title: {title}",
            f"Authors: {metadata.authors[w]}",
            metadata.series[w] and f"Series: {metadata.series[w]}",
            f"Genres: {', '.join(genres[w])}",
            metadata.sentence[w],
        ]
        result.append(" | ".join(filter(None, parts)))
    return result


def _series(works: Works, rng: np.random.Generator) -> list[str]:
    """Return `Dragon Saga #2` or an empty string for each work.

    SERIES_FRACTION of the (author, genre) groups form a series of their first works.
    """
    code = works.author * works.n_genres + works.genre
    _, group, size = np.unique(code, return_inverse=True, return_counts=True)
    order = np.argsort(group, kind="stable")
    place = np.empty(len(group), dtype=np.int64)
    place[order] = np.arange(len(group)) - (np.cumsum(size) - size)[group[order]]
    genre = works.genre[order[np.cumsum(size) - size]]
    name = words.series_names(genre, rng)
    is_series = rng.random(len(size)) < SERIES_FRACTION
    length = np.where(is_series, rng.integers(2, MAX_SERIES + 1, len(size)), 0)
    inside = (size[group] > 1) & (place < length[group])
    return [
        f"{name[g]} #{p + 1}" if i else "" for g, p, i in zip(group, place, inside, strict=True)
    ]


def _genre_shelves(works: Works, rng: np.random.Generator) -> tuple[IntArray, FloatArray]:
    """Return (n_works, 5) shelf codes and the shares of users who use the shelves.

    The columns are the genre, two narrower shelves of the genre, the second genre, and a narrower
    shelf of the second genre. Without a second genre its shares are 0.
    """
    n = len(works.genre)
    narrow = len(words.GENRES[0].shelves)
    one, step, other = (rng.integers(low, narrow, n) for low in (0, 1, 0))
    first, second = _narrow(works.genre, one), _narrow(works.genre, (one + step) % narrow)
    third = _narrow(works.second, other)
    shelves = np.stack([works.genre, first, second, works.second, third], axis=1)
    low, high = np.array(SHELF_SHARE).T
    shares = rng.uniform(low, high, shelves.shape)
    shares[:, 3:] *= (works.second >= 0)[:, None]
    return shelves, shares


def _narrow(genre: IntArray, which: IntArray) -> IntArray:
    return len(words.GENRES) + genre * len(words.GENRES[0].shelves) + which


def _popular_shelves(
    shelves: IntArray, shares: FloatArray, popularity: FloatArray, *, rng: np.random.Generator
) -> pa.Array:
    """Return the shelves of each book with counts, most used first.

    They are the genre shelves and HABITS_PER_BOOK habits. Counts are strings, as in Goodreads.
    """
    n_habits = len(words.HABITS)
    habit_shares = rng.random((len(shelves), n_habits)) * 1.2 * 0.85 ** np.arange(n_habits)
    habits = np.argsort(-habit_shares, axis=1, kind="stable")[:, :HABITS_PER_BOOK]
    codes = np.hstack([shelves, len(words.SHELVES) - n_habits + habits])
    share = np.hstack([shares, np.take_along_axis(habit_shares, habits, axis=1)])
    order = np.argsort(-share, axis=1, kind="stable")
    codes, share = (np.take_along_axis(values, order, axis=1) for values in (codes, share))
    used = share > 0
    counts = (share * 1000 * popularity[:, None]).astype(np.int64)[used] + 1
    fields = [pa.array(counts).cast(_TEXT), pa.array(words.SHELVES).take(pa.array(codes[used]))]
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
    structs = pa.StructArray.from_arrays(fields, ["count", "name"])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)
