"""Read the ratings of published CSV files in batches, and count dropped rows by reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.sources.cleaning import NULL_WORDS
from reranker.data.sources.published_files import LineCounter, csv_batches
from reranker.data.sources.rating_rules import RATING_RANGE
from reranker.data.sources.raw_tables import RATINGS

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Ids of CSV files are used as array indices, so they must be below this limit. The largest id of
# Goodreads was 37 million when the data sets were published. 1e6 look-ups take 0.1 s; with a binary
# search among two million ids they take 2.8 s.
MAX_ID = 1 << 26


def parse_integers(column: pa.Array) -> tuple[IntArray, BoolArray]:
    """Parse the integers of a string column.

    Returns:
        (n,) values, -1 for missing values and for text that is not an integer: "5", "5.0" and " 5"
        are 5, "5.5" and "x" are not integers. (n,) True where the field is null, blank or a word
        of NULL_WORDS.
    """
    try:
        has_x = pc.any(pc.match_substring(column, "x")).as_py()  # Arrow would read 0x1F as 31
        value = None if has_x else column.cast(pa.int64())
    except pa.ArrowInvalid:
        value = None
    if value is None:
        column = _trim(column)
        is_number = pc.match_substring_regex(column, r"^-?[0-9]{1,18}(\.0*)?$")
        digits = pc.replace_substring_regex(column, r"\.0*$", "")
        value = pc.if_else(is_number, digits, pa.scalar(None, pa.string())).cast(pa.int64())
    found = pc.fill_null(value, -1).to_numpy(zero_copy_only=False)
    missing = column.is_null().to_numpy(zero_copy_only=False)
    return np.where(np.abs(found) < 10**18, found, -1), missing


def _trim(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:  # not UTF-8
        fields = column.cast(pa.binary()).to_pylist()
        texts = [f if f is None else f.decode("utf-8", "replace") for f in fields]
        column = pa.array(texts, pa.string())
    column = pc.utf8_trim(column, " \t\r\"'")
    missing = pc.is_in(pc.utf8_lower(column), pa.array(sorted(NULL_WORDS)))
    return pc.if_else(missing, pa.scalar(None, pa.string()), column)


def position_table(keys: IntArray) -> IntArray:
    """Return an array that maps each of the distinct keys below MAX_ID to its position, else -1."""
    table = np.full(int(keys.max(initial=-1)) + 1, -1, np.int64)
    table[keys] = np.arange(len(keys))
    return table


def look_up(table: IntArray, keys: IntArray) -> IntArray:
    """Return the table's value for every key; -1 for keys outside the table."""
    inside = (keys >= 0) & (keys < len(table))
    found = np.full(len(keys), -1, np.int64)
    found[inside] = table[keys[inside]]
    return found


def read_ratings(
    path: Path,
    *,
    user_ids: Callable[[IntArray], pa.Array],
    book_ids: IntArray,
    counts: Counter[str],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """Yield the ratings of a file with the columns user_id, book_id and rating.

    The tables have the schema `raw_tables.RATINGS`.

    Args:
        path: Plain or gzipped; its ids are integers.
        user_ids: Maps the file's user ids to strings, null if unknown.
        book_ids: (n,) maps the file's book ids to ids of the books table, -1 if unknown.
        counts: ratings_in and ratings_dropped_* are added. A dropped row is counted once, under the
            first reason that applies.
        batch_rows: Rows in memory at a time.

    Raises:
        DataError: The file is damaged, lacks a column, or has too many malformed lines.
    """
    lines = LineCounter(path)
    for batch in csv_batches(path, ["user_id", "book_id", "rating"], lines, batch_rows=batch_rows):
        user, _ = parse_integers(batch["user_id"])
        book, _ = parse_integers(batch["book_id"])
        stars, unrated = parse_integers(batch["rating"])
        low, high = RATING_RANGE
        book_id = look_up(book_ids, book)
        drops = {
            "no_user_id": user < 0,
            "no_book_id": book < 0,
            "no_rating": unrated | (stars == 0),
            "wrong_rating": (stars < low) | (stars > high),
            "unknown_book": book_id < 0,
        }
        row = keep_rows(drops, counts, table="ratings")
        names = user_ids(user[row])
        columns = [names, pa.array(book_id[row]), pa.array(stars[row].astype(np.int8))]
        table = pa.Table.from_arrays(columns, schema=RATINGS)
        counts["ratings_dropped_unknown_user"] += names.null_count
        yield table.filter(names.is_valid()) if names.null_count else table
    counts["ratings_in"] += lines.n
    counts["ratings_dropped_malformed_line"] += lines.n_bad


def keep_rows(drops: dict[str, BoolArray], counts: Counter[str], *, table: str) -> IntArray:
    """Return the indices of the rows that no reason drops.

    TABLE_dropped_REASON is added to `counts`; a row is counted under its first reason.
    """
    left = np.ones(len(next(iter(drops.values()))), bool)
    for reason, dropped in drops.items():
        counts[f"{table}_dropped_{reason}"] += int((left & dropped).sum())
        left &= ~dropped
    return np.flatnonzero(left)
