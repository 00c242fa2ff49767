"""The UCSD Book Graph (Goodreads, 2017) as published, made into the four raw tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from reranker.data.sources import published_files, raw_tables
from reranker.data.sources.ucsd import books, ratings
from reranker.errors import DataError

VERSION = 1  # of what `convert` writes; raise it when the same files give other tables

BOOKS = "goodreads_books"
AUTHORS = "goodreads_book_authors.json"
GENRES = "goodreads_book_genres_initial.json"
RATINGS = "goodreads_interactions"
MAPS = ("book_id_map.csv", "user_id_map.csv")


@dataclass(frozen=True)
class _Published:
    books: list[Path]
    authors: Path
    genres: Path | None
    ratings: list[Path]
    maps: tuple[Path, Path] | None  # with ratings as CSV

    def all(self) -> list[Path]:
        return [
            p
            for p in (*self.books, self.authors, self.genres, *self.ratings, *(self.maps or ()))
            if p
        ]


def files(root: Path) -> list[Path]:
    """The published files of a folder that `convert` reads, each plain or gzipped.

    Books are goodreads_books.json or goodreads_books_GENRE.json; ratings goodreads_interactions*.csv with
    book_id_map.csv and user_id_map.csv, or goodreads_interactions_dedup.json, or goodreads_interactions_GENRE.json.
    goodreads_book_authors.json is needed; goodreads_book_genres_initial.json is read where it is there.

    Raises:
        DataError: A file is missing, or the folder holds the same books or ratings in two forms.
    """
    return _find(root).all()


def _find(root: Path) -> _Published:
    books = _one_form(root, [f"{BOOKS}.json", f"{BOOKS}_*.json"])
    ratings = _one_form(root, [f"{RATINGS}*.csv", f"{RATINGS}_dedup.json", f"{RATINGS}_*.json"])
    authors = published_files.find(root, AUTHORS)
    maps = (
        [published_files.find(root, name) for name in MAPS]
        if any(".csv" in p.name for p in ratings)
        else []
    )
    needed = {
        f"{BOOKS}.json": books,
        AUTHORS: authors,
        f"{RATINGS}*.csv or {RATINGS}_dedup.json": ratings,
    }
    absent = [
        name for name, found in (*needed.items(), *zip(MAPS, maps, strict=False)) if not found
    ]
    if absent or authors is None:
        raise published_files.missing(root, absent, "ucsd")
    book_map, user_map = maps or (None, None)
    pair = (book_map, user_map) if book_map and user_map else None
    return _Published(books, authors, published_files.find(root, GENRES), ratings, pair)


def _one_form(root: Path, patterns: list[str]) -> list[Path]:
    forms: list[list[Path]] = []
    for pattern in patterns:
        seen = {path for form in forms for path in form}
        forms.append([path for path in published_files.find_all(root, pattern) if path not in seen])
    given = [form for form in forms if form]
    if len(given) > 1:
        names = " and ".join(form[0].name for form in given)
        raise DataError(
            f"{root}: {names} hold the same rows; keep one of them (of ratings, only JSON has dates)."
        )
    return given[0] if given else []


def convert(
    root: Path, folder: Path, *, batch_rows: int, shelves: Collection[str]
) -> dict[str, int]:
    """Write the four raw tables into `folder` and return the rows in, out and dropped, by reason.

    Ids become integers (books) and strings (users, authors); texts lose HTML, control characters and lone
    surrogates. Of rows with one book or author id the first is kept. Authors without a role come first. A book none
    of whose shelves is a genre gets those of `goodreads_book_genres_initial`, after its shelves. A rating's time is
    read_at, else date_updated, else date_added; a read_at over a day after date_updated is not believed. CSV ratings
    have no times. Repeated ratings of one (user, book) stay. work_id is left out: editions are merged by title and
    author later. The files' bytes do not depend on `batch_rows`.

    Args:
        root: Holds the published files, see `files`.
        folder: Exists; gets reduced_books, reduced_interactions, new_authors, book_texts_reduced (.parquet).
        batch_rows: Rows of a file in memory at a time (of books at most `raw_tables.BOOK_ROWS`), beside one row group, the
            ids of books and authors, and the maps of ids.
        shelves: Those that mean a genre.

    Raises:
        DataError: A file is missing, damaged or mostly malformed, or nothing is left of books or ratings.

    Source: Wan & McAuley 2018, Item Recommendation on Monotonic Behavior Chains.
    """
    found = _find(root)
    counts: Counter[str] = Counter()
    genres = books.read_genres(found.genres, counts)
    kept = books.write_books(
        found.books, folder, genres=genres, shelves=shelves, counts=counts, batch_rows=batch_rows
    )
    books.write_authors(found.authors, folder, counts=counts, batch_rows=batch_rows)
    raw_tables.write_no_texts(folder)
    if found.maps:
        ratings.write_csv(
            found.ratings, found.maps, folder, books=kept, counts=counts, batch_rows=batch_rows
        )
    else:
        ratings.write_json(found.ratings, folder, books=kept, counts=counts, batch_rows=batch_rows)
    raw_tables.refuse_empty(root, counts)
    return dict(sorted(counts.items()))
