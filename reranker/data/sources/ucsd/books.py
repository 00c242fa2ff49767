"""Read books, authors and genres of the UCSD Book Graph and write them as raw tables."""

from __future__ import annotations

import bisect
from array import array
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from reranker.data.sources import raw_tables
from reranker.data.sources.cleaning import clean_description, clean_text, parse_integer
from reranker.data.sources.published_files import LineCounter, json_rows

Shelves = list[dict[str, str]]


class Genres:
    """The genres in `goodreads_book_genres_initial`, stored in about 40 bytes per book."""

    def __init__(self) -> None:
        # The genres of book i are in _name[_end[i - 1]:_end[i]] and the same slice of _count.
        self._book, self._end = array("q"), array("q")
        self._name, self._count = array("q"), array("q")
        self._names: dict[str, int] = {}
        self._order: list[int] = []

    def add(self, book_id: int, genres: dict[str, object]) -> None:
        """Add a book's genres and their counts."""
        for name, count in genres.items():
            self._name.append(self._names.setdefault(clean_text(name), len(self._names)))
            self._count.append(parse_integer(count) or 0)
        self._book.append(book_id)
        self._end.append(len(self._name))

    def sort(self) -> None:
        """Sort the books for look-up; call this once, after the last `add`."""
        self._order = sorted(range(len(self._book)), key=self._book.__getitem__)

    def shelves(self, book_id: int) -> Shelves:
        """Return a book's genres as shelves, most frequent first.

        A combined name such as `fantasy, paranormal` gives two shelves with the same count.
        """
        at = bisect.bisect_left(self._order, book_id, key=self._book.__getitem__)
        if at == len(self._order) or self._book[self._order[at]] != book_id:
            return []
        i = self._order[at]
        first = self._end[i - 1] if i else 0
        names = list(self._names)
        entries = sorted(range(first, self._end[i]), key=lambda e: -self._count[e])
        return [
            {"count": str(self._count[e]), "name": name.strip().replace(" ", "-")}
            for e in entries
            for name in names[self._name[e]].split(", ")
            if name.strip()
        ]


def read_genres(path: Path | None, counts: Counter[str]) -> Genres:
    """Return the genres of a file; without a file no book has genres."""
    genres = Genres()
    if path is not None:
        lines = LineCounter(path)
        for row in json_rows(path, lines):
            book_id, found = parse_integer(row.get("book_id")), row.get("genres")
            if book_id is not None and isinstance(found, dict):
                genres.add(book_id, found)
        counts["genres_dropped_malformed_line"] += lines.n_bad
    genres.sort()
    return genres


def write_books(
    paths: list[Path],
    folder: Path,
    *,
    genres: Genres,
    shelves: Collection[str],
    counts: Counter[str],
    batch_rows: int,
) -> set[int]:
    """Write `reduced_books` and return its ids; the first row of an id is kept.

    Args:
        paths: Published files of books.
        folder: Where the table is written.
        genres: Used for books without a genre shelf.
        shelves: Names of the shelves that map to a genre. A book with none of them also gets the
            shelves of `genres`.
        counts: Numbers of rows are added, by reason.
        batch_rows: Rows in memory at a time.
    """
    ids: set[int] = set()
    file = folder / "reduced_books.parquet"
    with raw_tables.RowGroupWriter(
        file, raw_tables.BOOKS, batch_rows=batch_rows, rows=raw_tables.BOOK_ROWS
    ) as out:
        for path in paths:
            lines = LineCounter(path)
            for row in json_rows(path, lines):
                book_id = _new_id(row, "book_id", ids, counts=counts, table="books")
                if book_id is not None:
                    book = _book(book_id, row, genres, genre_shelves=shelves, counts=counts)
                    out.append(book)
            _count_lines(lines, counts, table="books")
    counts["books"] = out.n
    return ids


def write_authors(path: Path, folder: Path, *, counts: Counter[str], batch_rows: int) -> None:
    """Write `new_authors`: authors with an id and a name; the first row of an id is kept."""
    ids: set[int] = set()
    lines = LineCounter(path)
    file = folder / "new_authors.parquet"
    with raw_tables.RowGroupWriter(file, raw_tables.AUTHORS, batch_rows=batch_rows) as out:
        for row in json_rows(path, lines):
            name = clean_text(row.get("name"))
            author_id = None
            if name:
                author_id = _new_id(row, "author_id", ids, counts=counts, table="authors")
            counts["authors_dropped_no_name"] += not name
            if author_id is not None:
                out.append((str(author_id), name))
    counts["authors"] = out.n
    _count_lines(lines, counts, table="authors")


def _new_id(
    row: dict[str, Any], key: str, seen: set[int], *, counts: Counter[str], table: str
) -> int | None:
    """Return the row's id and add it to `seen`; None if it is missing or a duplicate."""
    value = parse_integer(row.get(key))
    if value is None:
        counts[f"{table}_dropped_no_id"] += 1
    elif value in seen:
        counts[f"{table}_dropped_duplicate_id"] += 1
    else:
        seen.add(value)
        return value
    return None


def _count_lines(lines: LineCounter, counts: Counter[str], *, table: str) -> None:
    counts[f"{table}_in"] += lines.n
    counts[f"{table}_dropped_malformed_line"] += lines.n_bad


def _book(
    book_id: int,
    row: dict[str, Any],
    genres: Genres,
    *,
    genre_shelves: Collection[str],
    counts: Counter[str],
) -> tuple[object, ...]:
    """Return a row of `reduced_books`."""
    title = clean_text(row.get("title")) or clean_text(row.get("title_without_series"))
    counts["books_without_title"] += not title
    shelves = _shelves(row.get("popular_shelves"))
    if not any(shelf["name"] in genre_shelves for shelf in shelves):
        added = genres.shelves(book_id)
        counts["books_given_genres"] += bool(added)
        shelves += added
    description = clean_description(row.get("description"))
    authors = _authors(row.get("authors"))
    return book_id, title or None, description or None, shelves, authors


def _shelves(value: object) -> Shelves:
    return [
        {"count": str(parse_integer(shelf.get("count")) or 0), "name": name}
        for shelf in (value if isinstance(value, list) else [])
        if isinstance(shelf, dict)
        and isinstance(shelf.get("name"), str)
        and (name := _shelf_name(shelf["name"]))
    ]


@lru_cache(maxsize=1 << 16)  # most books have the same few shelf names
def _shelf_name(name: str) -> str:
    return clean_text(name)


def _authors(value: object) -> list[str]:
    """Return distinct author ids; writers, who have no role, come before translators and others."""
    people = [a for a in value if isinstance(a, dict)] if isinstance(value, list) else []
    found = [
        (bool(clean_text(person.get("role"))), str(author_id))
        for person in people
        if (author_id := parse_integer(person.get("author_id"))) is not None
    ]
    return list(dict.fromkeys(author_id for _, author_id in sorted(found, key=lambda f: f[0])))
