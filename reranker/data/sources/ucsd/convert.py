"""Convert the published UCSD Book Graph (Goodreads, 2017) into the four raw tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from reranker.data.sources import published_files, raw_tables
from reranker.data.sources.ucsd import books, ratings
from reranker.errors import DataError

# Version of the output of `convert`; increase it if the same files give other tables.
VERSION = 1

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
    maps: tuple[Path, Path] | None  # only for ratings as CSV

    def all(self) -> list[Path]:
        maps = self.maps or ()
        paths = (*self.books, self.authors, self.genres, *self.ratings, *maps)
        return [path for path in paths if path]


def files(root: Path) -> list[Path]:
    """Return the published files of a folder that `convert` reads, each plain or gzipped.

    Books are goodreads_books.json or goodreads_books_GENRE.json. Ratings are
    goodreads_interactions*.csv with book_id_map.csv and user_id_map.csv, or
    goodreads_interactions_dedup.json, or goodreads_interactions_GENRE.json.
    goodreads_book_authors.json is required, goodreads_book_genres_initial.json is optional.

    Raises:
        DataError: A file is missing, or the folder has the same books or ratings in two formats.
    """
    return _find(root).all()


def _find(root: Path) -> _Published:
    books = _one_format(root, [f"{BOOKS}.json", f"{BOOKS}_*.json"])
    ratings = _one_format(root, [f"{RATINGS}*.csv", f"{RATINGS}_dedup.json", f"{RATINGS}_*.json"])
    authors = published_files.find_file(root, AUTHORS)
    is_csv = any(".csv" in path.name for path in ratings)
    maps = [published_files.find_file(root, name) for name in MAPS] if is_csv else []
    required = [
        (f"{BOOKS}.json", books),
        (AUTHORS, authors),
        (f"{RATINGS}*.csv or {RATINGS}_dedup.json", ratings),
        *zip(MAPS, maps, strict=False),
    ]
    missing = [name for name, found in required if not found]
    if missing or authors is None:
        raise published_files.missing_files_error(root, missing, "ucsd")
    book_map, user_map = maps or (None, None)
    pair = (book_map, user_map) if book_map and user_map else None
    return _Published(books, authors, published_files.find_file(root, GENRES), ratings, pair)


def _one_format(root: Path, patterns: list[str]) -> list[Path]:
    """Return the files of the one pattern that matches; a file belongs to its first pattern."""
    formats: list[list[Path]] = []
    for pattern in patterns:
        seen = {path for paths in formats for path in paths}
        paths = published_files.find_files(root, pattern)
        formats.append([path for path in paths if path not in seen])
    found = [paths for paths in formats if paths]
    if len(found) > 1:
        names = " and ".join(paths[0].name for paths in found)
        raise DataError(
            f"{root}: {names} hold the same rows; keep one of them. Only JSON ratings have dates."
        )
    return found[0] if found else []


def convert(
    root: Path, folder: Path, *, batch_rows: int, shelves: Collection[str]
) -> dict[str, int]:
    """Write the four raw tables into `folder`; return the rows read, written and dropped by reason.

    Book ids become integers; user and author ids become strings. HTML, control characters and lone
    surrogates are removed from texts. If a book or author id is repeated, its first row is kept.
    Authors without a role come first. A book without a genre shelf also gets the genres of
    `goodreads_book_genres_initial`, after its shelves. The time of a rating is read_at, else
    date_updated, else date_added; a read_at more than a day after date_updated is ignored. CSV
    ratings have no times. Repeated ratings of a (user, book) are kept. work_id is not used, because
    editions are merged later by title and author. The bytes of the files do not depend on
    `batch_rows`.

    Args:
        root: Folder with the published files, see `files`.
        folder: Existing folder for reduced_books, reduced_interactions, new_authors and
            book_texts_reduced (.parquet).
        batch_rows: Rows of a file in memory at a time (books: at most `raw_tables.BOOK_ROWS`), in
            addition to one row group, the ids of books and authors, and the maps of ids.
        shelves: Names of the shelves that map to a genre.

    Raises:
        DataError: A file is missing, damaged or mostly malformed, or no books or no ratings are
            left.

    Source: Wan & McAuley 2018, Item Recommendation on Monotonic Behavior Chains.
    """
    found = _find(root)
    counts: Counter[str] = Counter()
    genres = books.read_genres(found.genres, counts)
    book_ids = books.write_books(
        found.books, folder, genres=genres, shelves=shelves, counts=counts, batch_rows=batch_rows
    )
    books.write_authors(found.authors, folder, counts=counts, batch_rows=batch_rows)
    raw_tables.write_empty_texts(folder)
    if found.maps:
        ratings.write_csv(
            found.ratings, found.maps, folder, books=book_ids, counts=counts, batch_rows=batch_rows
        )
    else:
        ratings.write_json(
            found.ratings, folder, books=book_ids, counts=counts, batch_rows=batch_rows
        )
    raw_tables.check_not_empty(root, counts)
    return dict(sorted(counts.items()))
