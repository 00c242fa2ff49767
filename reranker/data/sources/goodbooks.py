"""Convert goodbooks-10k as published into the four raw tables."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa

from reranker.data.sources import csv_ratings, published_files, raw_tables
from reranker.data.sources.cleaning import clean_text, parse_integer
from reranker.data.sources.csv_ratings import MAX_ID, IntArray, parse_integers, position_table
from reranker.data.sources.published_files import LineCounter, csv_batches, csv_rows

# Version of the output of `convert`; increase it if the same files give other tables.
VERSION = 1

FILES = ("books.csv", "ratings.csv", "tags.csv", "book_tags.csv")
BOOK_COLUMNS = ["book_id", "goodreads_book_id", "authors", "original_title", "title"]

# "A, B" names two authors; "Martin Luther King, Jr." names one.
_BETWEEN_AUTHORS = re.compile(r",\s+(?!(?:Jr|Sr|II|III|IV|Esq|M\.?D|Ph\.?\s?D)\b)")

Shelves = list[dict[str, str]]


def files(root: Path) -> list[Path]:
    """Return the files of FILES in a folder, each plain or gzipped, in this order.

    to_read.csv is not used because it has no ratings.

    Raises:
        DataError: A file is missing, or exists both plain and gzipped.
    """
    found = {name: published_files.find_file(root, name) for name in FILES}
    if missing := [name for name, path in found.items() if path is None]:
        raise published_files.missing_files_error(root, missing, "goodbooks")
    return [path for path in found.values() if path]


def convert(root: Path, folder: Path, *, batch_rows: int) -> dict[str, int]:
    """Write the four raw tables into `folder`; return the rows read, written and dropped by reason.

    Book ids are the numbers 1..10000 of ratings.csv; user ids become strings. Tags become shelves,
    most frequent first. If a book has a tag twice, the larger count is used; counts below 1 are
    dropped. The name of an author is also the id. There are no descriptions, texts or timestamps.
    The bytes of the files do not depend on `batch_rows`.

    Args:
        root: Folder with the published files, see `files`.
        folder: Existing folder for reduced_books, reduced_interactions, new_authors and
            book_texts_reduced (.parquet).
        batch_rows: Rows of ratings.csv and book_tags.csv in memory at a time, in addition to one
            row group, the books, and the ids of all tags.

    Raises:
        DataError: A file is missing, damaged or mostly malformed, or no books or no ratings are
            left.
    """
    books_csv, ratings_csv, tags_csv, book_tags_csv = files(root)
    counts: Counter[str] = Counter()
    books = _read_books(books_csv, counts)
    tags = _read_tags(tags_csv, counts)
    shelves = _read_shelves(book_tags_csv, tags, books, counts=counts, batch_rows=batch_rows)
    _write_books(books, shelves, folder, counts=counts, batch_rows=batch_rows)
    raw_tables.write_empty_texts(folder)
    ids = np.array(sorted(books), np.int64)
    row = position_table(ids)
    known = np.where(row >= 0, ids[row], -1)
    ratings = csv_ratings.read_ratings(
        ratings_csv, user_ids=_user_ids, book_ids=known, counts=counts, batch_rows=batch_rows
    )
    file = folder / "reduced_interactions.parquet"
    with raw_tables.RowGroupWriter(file, raw_tables.RATINGS, batch_rows=batch_rows) as out:
        for table in ratings:
            out.write(table)
    counts["ratings"] = out.n
    raw_tables.check_not_empty(root, counts)
    return dict(sorted(counts.items()))


def _user_ids(ids: IntArray) -> pa.Array:
    return pa.array(ids).cast(pa.string())


def _read_books(path: Path, counts: Counter[str]) -> dict[int, dict[str, str]]:
    """Return book_id -> row of books.csv; the first row of an id is kept."""
    books: dict[int, dict[str, str]] = {}
    lines = LineCounter(path)
    for row in csv_rows(path, BOOK_COLUMNS, lines):
        book_id = parse_integer(row["book_id"])
        if book_id is None or book_id >= MAX_ID:
            counts["books_dropped_no_id"] += 1
        elif book_id in books:
            counts["books_dropped_duplicate_id"] += 1
        else:
            books[book_id] = row
    counts["books_dropped_malformed_line"] = lines.n_bad
    n_dropped = sum(n for reason, n in counts.items() if reason.startswith("books_dropped"))
    counts["books_in"] = len(books) + n_dropped
    counts["books"] = len(books)
    return books


def _write_books(
    books: dict[int, dict[str, str]],
    shelves: dict[int, Shelves],
    folder: Path,
    *,
    counts: Counter[str],
    batch_rows: int,
) -> None:
    """Write `reduced_books` and `new_authors`."""
    names: dict[str, None] = {}
    file = folder / "reduced_books.parquet"
    with raw_tables.RowGroupWriter(
        file, raw_tables.BOOKS, batch_rows=batch_rows, rows=raw_tables.BOOK_ROWS
    ) as out:
        for book_id, row in books.items():
            title = clean_text(row["title"]) or clean_text(row["original_title"])
            authors = _authors(row["authors"])
            names |= dict.fromkeys(authors)
            counts["books_without_title"] += not title
            out.append((book_id, title or None, None, shelves.get(book_id, []), authors))
    file = folder / "new_authors.parquet"
    with raw_tables.RowGroupWriter(file, raw_tables.AUTHORS, batch_rows=batch_rows) as out:
        for name in names:
            out.append((name, name))
    counts["authors"] = out.n


def _authors(value: str) -> list[str]:
    """Return the distinct author names of an `authors` field."""
    parts = _BETWEEN_AUTHORS.split(clean_text(value))
    return list(dict.fromkeys(name for part in parts if (name := clean_text(part))))


def _read_tags(path: Path, counts: Counter[str]) -> dict[int, str]:
    """Return tag id -> name."""
    lines = LineCounter(path)
    tags: dict[int, str] = {}
    for row in csv_rows(path, ["tag_id", "tag_name"], lines):
        tag, name = parse_integer(row["tag_id"]), clean_text(row["tag_name"])
        if tag is not None and name:
            tags.setdefault(tag, name)
    counts["tags_dropped_malformed_line"] += lines.n_bad
    return tags


def _read_shelves(
    path: Path,
    tags: dict[int, str],
    books: dict[int, dict[str, str]],
    *,
    counts: Counter[str],
    batch_rows: int,
) -> dict[int, Shelves]:
    """Return book_id -> shelves, sorted by count, then by their order in the file."""
    lines = LineCounter(path)
    columns = ["goodreads_book_id", "tag_id", "count"]
    batches = csv_batches(path, columns, lines, batch_rows=batch_rows)
    parts = [np.stack([parse_integers(batch[c])[0] for c in columns]) for batch in batches]
    goodreads_id, tag, count = np.concatenate([np.empty((3, 0), np.int64), *parts], axis=1)
    counts["book_tags_in"] = lines.n
    counts["book_tags_dropped_malformed_line"] = lines.n_bad

    book_of = {
        g: b
        for b, row in reversed(books.items())
        if (g := parse_integer(row["goodreads_book_id"])) is not None
    }
    book = np.array([book_of.get(g, -1) for g in goodreads_id.tolist()], np.int64)
    named = np.array([t in tags for t in tag.tolist()], bool)
    drops = {"unknown_book": book < 0, "unknown_tag": ~named, "wrong_count": count < 1}
    row = csv_ratings.keep_rows(drops, counts, table="book_tags")
    row = row[np.lexsort((row, -count[row], book[row]))]
    shelves: dict[int, dict[str, str]] = {}
    for b, t, n in zip(book[row].tolist(), tag[row].tolist(), count[row].tolist(), strict=True):
        shelves.setdefault(b, {}).setdefault(tags[t], str(n))
    n_shelves = sum(map(len, shelves.values()))
    counts["book_tags_dropped_duplicate"] = len(row) - n_shelves
    counts["book_tags"] = n_shelves
    return {
        b: [{"count": n, "name": name} for name, n in names.items()] for b, names in shelves.items()
    }
