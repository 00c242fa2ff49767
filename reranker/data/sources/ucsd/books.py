"""Books, authors and genres of the UCSD Book Graph, in the raw tables' schema."""

from __future__ import annotations

import bisect
from array import array
from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Any

from reranker.data.sources import raw_tables
from reranker.data.sources.cleaning import description, plain, whole
from reranker.data.sources.published_files import Lines, json_rows

Shelves = list[dict[str, str]]


class Genres:
    """What `goodreads_book_genres_initial` says of each book, in about 40 bytes a book."""

    def __init__(self) -> None:
        self._book, self._end = (
            array("q"),
            array("q"),
        )  # book i's genres end at _end[i] in the two arrays below
        self._name, self._count = array("q"), array("q")
        self._names: dict[str, int] = {}
        self._order: list[int] = []

    def add(self, book_id: int, genres: dict[str, object]) -> None:
        """Keep a book's genres and their counts."""
        for name, count in genres.items():
            self._name.append(self._names.setdefault(plain(name), len(self._names)))
            self._count.append(whole(count) or 0)
        self._book.append(book_id)
        self._end.append(len(self._name))

    def sort(self) -> None:
        """Make the books findable; to be called once, after the last `add`."""
        self._order = sorted(range(len(self._book)), key=self._book.__getitem__)

    def shelves(self, book_id: int) -> Shelves:
        """A book's genres as shelves, the most frequent first: `fantasy, paranormal` gives two of one count."""
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
    """The genres of a file; none without a file."""
    genres = Genres()
    if path is not None:
        lines = Lines(path)
        for row in json_rows(path, lines):
            book_id, given = whole(row.get("book_id")), row.get("genres")
            if book_id is not None and isinstance(given, dict):
                genres.add(book_id, given)
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
    """Write `reduced_books` and return the ids in it; of rows with one id the first is kept.

    Args:
        shelves: Those that mean a genre; a book on none of them gets its shelves from `genres` too.
    """
    ids: set[int] = set()
    file = folder / "reduced_books.parquet"
    with raw_tables.RowGroups(
        file, raw_tables.BOOKS, batch_rows=batch_rows, rows=raw_tables.BOOK_ROWS
    ) as out:
        for path in paths:
            lines = Lines(path)
            for row in json_rows(path, lines):
                book_id = _new_id(row, "book_id", ids, counts, table="books")
                if book_id is not None:
                    out.append(_book(book_id, row, genres, shelves, counts))
            _count_lines(lines, counts, table="books")
    counts["books"] = out.n
    return ids


def write_authors(path: Path, folder: Path, *, counts: Counter[str], batch_rows: int) -> None:
    """Write `new_authors`: authors with an id and a name; of rows with one id the first is kept."""
    ids: set[int] = set()
    lines = Lines(path)
    with raw_tables.RowGroups(
        folder / "new_authors.parquet", raw_tables.AUTHORS, batch_rows=batch_rows
    ) as out:
        for row in json_rows(path, lines):
            name = plain(row.get("name"))
            author_id = _new_id(row, "author_id", ids, counts, table="authors") if name else None
            counts["authors_dropped_no_name"] += not name
            if author_id is not None:
                out.append((str(author_id), name))
    counts["authors"] = out.n
    _count_lines(lines, counts, table="authors")


def _new_id(
    row: dict[str, Any], key: str, seen: set[int], counts: Counter[str], *, table: str
) -> int | None:
    value = whole(row.get(key))
    if value is None:
        counts[f"{table}_dropped_no_id"] += 1
    elif value in seen:
        counts[f"{table}_dropped_duplicate_id"] += 1
    else:
        seen.add(value)
        return value
    return None


def _count_lines(lines: Lines, counts: Counter[str], *, table: str) -> None:
    counts[f"{table}_in"] += lines.n
    counts[f"{table}_dropped_malformed_line"] += lines.n_bad


def _book(
    book_id: int, row: dict[str, Any], genres: Genres, known: Collection[str], counts: Counter[str]
) -> tuple[object, ...]:
    title = plain(row.get("title")) or plain(row.get("title_without_series"))
    counts["books_without_title"] += not title
    shelves = _shelves(row.get("popular_shelves"))
    if not any(shelf["name"] in known for shelf in shelves):
        given = genres.shelves(book_id)
        counts["books_given_genres"] += bool(given)
        shelves += given
    return (
        book_id,
        title or None,
        description(row.get("description")) or None,
        shelves,
        _authors(row.get("authors")),
    )


def _shelves(value: object) -> Shelves:
    return [
        {"count": str(whole(shelf.get("count")) or 0), "name": name}
        for shelf in (value if isinstance(value, list) else [])
        if isinstance(shelf, dict)
        and isinstance(shelf.get("name"), str)
        and (name := _shelf_name(shelf["name"]))
    ]


@lru_cache(maxsize=1 << 16)  # the same few names stand on most books
def _shelf_name(name: str) -> str:
    return plain(name)


def _authors(value: object) -> list[str]:
    """Author ids, those without a role (who wrote the book) before translators, illustrators and others."""
    found = [
        (bool(plain(author.get("role"))), str(author_id))
        for author in (value if isinstance(value, list) else [])
        if isinstance(author, dict) and (author_id := whole(author.get("author_id"))) is not None
    ]
    return list(dict.fromkeys(author_id for _, author_id in sorted(found, key=lambda f: f[0])))
