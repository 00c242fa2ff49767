"""Ratings of published CSV files, a batch at a time, every dropped row counted by its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.sources.bookdb import RATING_RANGE
from reranker.data.sources.cleaning import NOTHING
from reranker.data.sources.published_files import Lines, csv_batches
from reranker.data.sources.raw_tables import RATINGS

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

# Ids of CSV files index tables, 20 times faster than a search among two million ids: 1e6 look-ups in 0.1 s, not 2.8.
MAX_ID = 1 << 26  # Goodreads' ids ended at 37 million when the sets were published


def numbers(column: pa.Array) -> tuple[IntArray, BoolArray]:
    """The whole numbers of a string column, and where it says nothing.

    Returns:
        (n,) values, -1 where there is none or it is none ("5", "5.0" and " 5" are 5; "5.5" and "x" are none), and
        (n,) True where the field is null, blank or a word of NOTHING.
    """
    try:
        plain = not pc.any(pc.match_substring(column, "x")).as_py()  # Arrow would read 0x1F as 31
        value = column.cast(pa.int64()) if plain else None
    except pa.ArrowInvalid:
        value = None
    if value is None:
        column = _trimmed(column)
        is_number = pc.match_substring_regex(column, r"^-?[0-9]{1,18}(\.0*)?$")
        digits = pc.replace_substring_regex(column, r"\.0*$", "")
        value = pc.if_else(is_number, digits, pa.scalar(None, pa.string())).cast(pa.int64())
    found = pc.fill_null(value, -1).to_numpy(zero_copy_only=False)
    return np.where(np.abs(found) < 10**18, found, -1), column.is_null().to_numpy(
        zero_copy_only=False
    )


def _trimmed(column: pa.Array) -> pa.Array:
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:  # not UTF-8
        fields = column.cast(pa.binary()).to_pylist()
        column = pa.array(
            [f if f is None else f.decode("utf-8", "replace") for f in fields], pa.string()
        )
    column = pc.utf8_trim(column, " \t\r\"'")
    nothing = pc.is_in(pc.utf8_lower(column), pa.array(sorted(NOTHING)))
    return pc.if_else(nothing, pa.scalar(None, pa.string()), column)


def index(keys: IntArray) -> IntArray:
    """A table of the positions of distinct keys, each from 0 to below MAX_ID; -1 where no key is."""
    table = np.full(int(keys.max(initial=-1)) + 1, -1, np.int64)
    table[keys] = np.arange(len(keys))
    return table


def look_up(table: IntArray, keys: IntArray) -> IntArray:
    """The table's value for every key; -1 for a key outside it."""
    inside = (keys >= 0) & (keys < len(table))
    found = np.full(len(keys), -1, np.int64)
    found[inside] = table[keys[inside]]
    return found


def read(
    path: Path,
    *,
    user_ids: Callable[[IntArray], pa.Array],
    book_ids: IntArray,
    counts: Counter[str],
    batch_rows: int,
) -> Iterator[pa.Table]:
    """Ratings of a file with the columns user_id, book_id and rating, in the schema of `raw.RATINGS`.

    Args:
        path: Plain or gzipped; its ids are whole numbers.
        user_ids: The strings that the file's user ids stand for, null where unknown.
        book_ids: For each of the file's book ids the book_id of the books table, -1 where unknown.
        counts: Gets ratings_in and ratings_dropped_*; a row counts with the first reason that applies.
        batch_rows: Rows in memory at a time.

    Raises:
        DataError: The file is damaged, lacks a column, or has too many malformed lines.
    """
    lines = Lines(path)
    for batch in csv_batches(path, ["user_id", "book_id", "rating"], lines, batch_rows=batch_rows):
        user, book = numbers(batch["user_id"])[0], numbers(batch["book_id"])[0]
        stars, unrated = numbers(batch["rating"])
        low, high = RATING_RANGE
        book_id = look_up(book_ids, book)
        drops = {
            "no_user_id": user < 0,
            "no_book_id": book < 0,
            "no_rating": unrated | (stars == 0),
            "wrong_rating": (stars < low) | (stars > high),
            "unknown_book": book_id < 0,
        }
        row = kept(drops, counts, table="ratings")
        names = user_ids(user[row])
        table = pa.Table.from_arrays(
            [names, pa.array(book_id[row]), pa.array(stars[row].astype(np.int8))], schema=RATINGS
        )
        counts["ratings_dropped_unknown_user"] += names.null_count
        yield table.filter(names.is_valid()) if names.null_count else table
    counts["ratings_in"] += lines.n
    counts["ratings_dropped_malformed_line"] += lines.n_bad


def kept(drops: dict[str, BoolArray], counts: Counter[str], *, table: str) -> IntArray:
    """The rows that no reason drops; `counts` gets TABLE_dropped_REASON, a row with its first reason."""
    left = np.ones(len(next(iter(drops.values()))), bool)
    for reason, dropped in drops.items():
        counts[f"{table}_dropped_{reason}"] += int((left & dropped).sum())
        left &= ~dropped
    return np.flatnonzero(left)
