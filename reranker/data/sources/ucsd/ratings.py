"""Ratings of the UCSD Book Graph: dated JSON lines, or CSV with the two maps of its ids."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.sources import csv_ratings, raw_tables
from reranker.data.sources.cleaning import identifier, plain, stars, unix_seconds, whole
from reranker.data.sources.csv_ratings import MAX_ID, IntArray, index, look_up, numbers
from reranker.data.sources.published_files import Lines, csv_batches, json_rows

DATES = ("read_at", "date_updated", "date_added")  # the first that can be true is a rating's time
DAY = 86_400  # read_at is a midnight, in a time zone of its own


def write_json(
    paths: list[Path], folder: Path, *, books: set[int], counts: Counter[str], batch_rows: int
) -> None:
    """Write `reduced_interactions` with `timestamp` (Unix seconds, null where no date can be true)."""
    file = folder / "reduced_interactions.parquet"
    with raw_tables.RowGroups(file, raw_tables.DATED_RATINGS, batch_rows=batch_rows) as out:
        for path in paths:
            lines = Lines(path)
            for row in json_rows(path, lines):
                rating = _rating(row, books)
                if isinstance(rating, str):
                    counts[f"ratings_dropped_{rating}"] += 1
                else:
                    out.append((*rating, _time(row, counts)))
            counts["ratings_in"] += lines.n
            counts["ratings_dropped_malformed_line"] += lines.n_bad
    counts["ratings"] = out.n


def _rating(row: dict[str, Any], books: set[int]) -> tuple[str, int, int] | str:
    """User, book and stars, or the first reason to drop the row."""
    user_id = row.get("user_id")
    user = identifier(user_id) if isinstance(user_id, str | int | float) else None
    book, rating = whole(row.get("book_id")), stars(row.get("rating"))
    if user is None:
        return "no_user_id"
    if book is None:
        return "no_book_id"
    if rating < 1:
        return "no_rating" if rating == 0 else "wrong_rating"
    return (user, book, rating) if book in books else "unknown_book"


def _time(row: dict[str, Any], counts: Counter[str]) -> int | None:
    for name in DATES:
        text = row.get(name)
        if not text:
            continue
        time = unix_seconds(text)
        if time is None:
            counts["dates_dropped_unreadable"] += bool(plain(text))
        elif name == "read_at" and time > (unix_seconds(row.get("date_updated")) or time) + DAY:
            counts["dates_dropped_after_update"] += 1
        else:
            return time
    counts["ratings_without_date"] += 1
    return None


def write_csv(
    paths: list[Path],
    maps: tuple[Path, Path],
    folder: Path,
    *,
    books: set[int],
    counts: Counter[str],
    batch_rows: int,
) -> None:
    """Write `reduced_interactions` without times; `maps` are book_id_map and user_id_map."""
    book_ids = _book_ids(maps[0], books, batch_rows)
    user_at, user_ids = _user_ids(maps[1], batch_rows)

    def names(numbers: IntArray) -> pa.Array:
        at = look_up(user_at, numbers)
        return user_ids.take(pa.array(at, mask=at < 0))

    file = folder / "reduced_interactions.parquet"
    with raw_tables.RowGroups(file, raw_tables.RATINGS, batch_rows=batch_rows) as out:
        for path in paths:
            for table in csv_ratings.read(
                path, user_ids=names, book_ids=book_ids, counts=counts, batch_rows=batch_rows
            ):
                out.write(table)
    counts["ratings"] = out.n


def _book_ids(path: Path, books: set[int], batch_rows: int) -> IntArray:
    """For each number of the CSV the book_id, -1 where the map or the books table has none."""
    keys, values = [], []
    for number, column in _map_rows(path, ("book_id_csv", "book_id"), batch_rows):
        keys.append(number)
        values.append(numbers(column)[0])
    key, value = (
        np.concatenate([[], *keys]).astype(np.int64),
        np.concatenate([[], *values]).astype(np.int64),
    )
    value[~np.isin(value, np.fromiter(books, np.int64, len(books)))] = -1
    first = np.unique(key, return_index=True)[1]
    at = index(key[first])
    return np.where(at >= 0, value[first][at], -1)


def _user_ids(path: Path, batch_rows: int) -> tuple[IntArray, pa.Array]:
    """For each number of the CSV the row of its user, and the users' ids (null where the map has none)."""
    keys, values = [], []
    for number, column in _map_rows(path, ("user_id_csv", "user_id"), batch_rows):
        keys.append(number)
        values.append(
            pa.array([v if v is None else identifier(v) for v in column.to_pylist()], pa.string())
        )
    key = np.concatenate([[], *keys]).astype(np.int64)
    first = np.unique(key, return_index=True)[1]
    ids = pa.concat_arrays([pa.array([], pa.string()), *values])
    return index(key[first]), ids.take(pa.array(first))


def _map_rows(path: Path, columns: tuple[str, str], batch_rows: int) -> Any:
    """Numbers of the CSV from 0 to below MAX_ID, and beside them the strings that they stand for."""
    lines = Lines(path)
    for batch in csv_batches(path, list(columns), lines, batch_rows=batch_rows):
        number = numbers(batch[columns[0]])[0]
        sound = (number >= 0) & (number < MAX_ID)
        if n_bad := int((~sound).sum()):
            lines.reject(None, f"{columns[0]} is not a number from 0 to {MAX_ID - 1}", n=n_bad)
            lines.n -= n_bad  # counted once, with the bad lines
        yield number[sound], pc.filter(batch[columns[1]], pa.array(sound))
