"""Convert ratings of the UCSD Book Graph: JSON lines with dates, or CSV with two id maps."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.sources import csv_ratings, raw_tables
from reranker.data.sources.cleaning import (
    clean_text,
    parse_integer,
    parse_stars,
    parse_user_id,
    unix_seconds,
)
from reranker.data.sources.csv_ratings import (
    MAX_ID,
    IntArray,
    look_up,
    parse_integers,
    position_table,
)
from reranker.data.sources.published_files import LineCounter, csv_batches, json_rows

# The time of a rating is the first valid one of these fields.
DATES = ("read_at", "date_updated", "date_added")
# Tolerance for read_at, which is a midnight in its own time zone.
DAY = 86_400


def write_json(
    paths: list[Path], folder: Path, *, books: set[int], counts: Counter[str], batch_rows: int
) -> None:
    """Write `reduced_interactions` with `timestamp` (Unix seconds, null without a valid date)."""
    file = folder / "reduced_interactions.parquet"
    with raw_tables.RowGroupWriter(file, raw_tables.DATED_RATINGS, batch_rows=batch_rows) as out:
        for path in paths:
            lines = LineCounter(path)
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
    """Return user, book and stars, or the first reason to drop the row."""
    user_id = row.get("user_id")
    user = parse_user_id(user_id) if isinstance(user_id, str | int | float) else None
    book, rating = parse_integer(row.get("book_id")), parse_stars(row.get("rating"))
    if user is None:
        return "no_user_id"
    if book is None:
        return "no_book_id"
    if rating < 1:
        return "no_rating" if rating == 0 else "wrong_rating"
    return (user, book, rating) if book in books else "unknown_book"


def _time(row: dict[str, Any], counts: Counter[str]) -> int | None:
    """Return the Unix time of a rating, or None if it has no valid date."""
    for name in DATES:
        text = row.get(name)
        if not text:
            continue
        time = unix_seconds(text)
        if time is None:
            counts["dates_dropped_unreadable"] += bool(clean_text(text))
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
    """Write `reduced_interactions` without timestamps; `maps` are book_id_map and user_id_map."""
    book_ids = _book_ids(maps[0], books, batch_rows)
    user_row, user_ids = _user_ids(maps[1], batch_rows)

    def ids_of(numbers: IntArray) -> pa.Array:
        row = look_up(user_row, numbers)
        return user_ids.take(pa.array(row, mask=row < 0))

    file = folder / "reduced_interactions.parquet"
    with raw_tables.RowGroupWriter(file, raw_tables.RATINGS, batch_rows=batch_rows) as out:
        for path in paths:
            for table in csv_ratings.read_ratings(
                path, user_ids=ids_of, book_ids=book_ids, counts=counts, batch_rows=batch_rows
            ):
                out.write(table)
    counts["ratings"] = out.n


def _book_ids(path: Path, books: set[int], batch_rows: int) -> IntArray:
    """Return an array from CSV number to book_id, -1 if the map or the books table lacks it."""
    keys, values = [], []
    for number, column in _map_rows(path, ("book_id_csv", "book_id"), batch_rows):
        keys.append(number)
        values.append(parse_integers(column)[0])
    key = np.concatenate([[], *keys]).astype(np.int64)
    value = np.concatenate([[], *values]).astype(np.int64)
    value[~np.isin(value, np.fromiter(books, np.int64, len(books)))] = -1
    first = np.unique(key, return_index=True)[1]
    row = position_table(key[first])
    return np.where(row >= 0, value[first][row], -1)


def _user_ids(path: Path, batch_rows: int) -> tuple[IntArray, pa.Array]:
    """Return an array: CSV number -> user row, and the id of each row (null if it is missing)."""
    keys, values = [], []
    for number, column in _map_rows(path, ("user_id_csv", "user_id"), batch_rows):
        keys.append(number)
        ids = [v if v is None else parse_user_id(v) for v in column.to_pylist()]
        values.append(pa.array(ids, pa.string()))
    key = np.concatenate([[], *keys]).astype(np.int64)
    first = np.unique(key, return_index=True)[1]
    user_ids = pa.concat_arrays([pa.array([], pa.string()), *values])
    return position_table(key[first]), user_ids.take(pa.array(first))


def _map_rows(path: Path, columns: tuple[str, str], batch_rows: int) -> Any:
    """Yield CSV numbers from 0 to MAX_ID - 1 and the strings that the map gives them."""
    lines = LineCounter(path)
    for batch in csv_batches(path, list(columns), lines, batch_rows=batch_rows):
        number = parse_integers(batch[columns[0]])[0]
        valid = (number >= 0) & (number < MAX_ID)
        if n_bad := int((~valid).sum()):
            lines.reject(None, f"{columns[0]} is not a number from 0 to {MAX_ID - 1}", n=n_bad)
            lines.n -= n_bad  # csv_batches adds n_bad to n at the end
        yield number[valid], pc.filter(batch[columns[1]], pa.array(valid))
