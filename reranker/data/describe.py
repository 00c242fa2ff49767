"""Summarise a source in numbers: files, funnel, splits, texts, ratings, positives, timestamps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from reranker.data.sources import bookdb, parquet_files
from reranker.data.splits import SPLITS
from reranker.data.tables import Tables
from reranker.errors import DataError

QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
COLUMNS = (
    "description",
    "genres",
    "authors",
    "series",
)  # columns whose non-blank values are counted
BLOCK_BYTES = 4 * 2**20  # bytes read from a text file at a time


def describe(tables: Tables, files: Sequence[Path], texts: Path) -> dict[str, Any]:
    """Return a summary of a source, ready for JSON.

    Args:
        tables: The tables that were built from the source.
        files: The source's files: parquet, CSV or JSON lines. The latter two may be gzipped; they
            are read completely.
        texts: `book_texts_reduced.parquet` of the raw tables.

    Returns:
        files: name, rows, columns and bytes of each file. funnel: rows read, written and
        dropped, by reason. users: the number in each split. books: the number of all books, of
        books with a text in the source (other texts are rendered), and of books with a value in
        each of COLUMNS. ratings: the number by value, and the number and range of timestamps.
        positives_per_user: quantiles over users, targets included.

    Raises:
        DataError: A file cannot be read.

    Example:
        >>> describe(tables, files, folder / "book_texts_reduced.parquet")["users"]
        {'train': 225, 'dev': 30, 'test': 45}
    """
    return {
        "digest": tables.digest,
        "files": [_file(path) for path in files],
        "funnel": dict(tables.counts),
        "users": {split: int((tables.users["split"] == split).sum()) for split in SPLITS},
        "books": _books(tables, texts),
        "ratings": _ratings(tables),
        "positives_per_user": _positives(tables),
    }


def _file(path: Path) -> dict[str, Any]:
    """Return name, number of rows, columns and bytes of a file."""
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        rows, columns = {"parquet": _parquet, "csv": _csv, "json": _json_lines}[kind](path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch or write it again.") from error
    n_bytes = sum(part.stat().st_size for part in parquet_files.parts(path))
    return {"name": path.name, "rows": rows, "columns": columns, "bytes": n_bytes}


def _parquet(path: Path) -> tuple[int, list[str]]:
    files = [pq.ParquetFile(part) for part in parquet_files.parts(path)]
    return sum(file.metadata.num_rows for file in files), files[0].schema_arrow.names


def _csv(path: Path) -> tuple[int, list[str]]:
    """Return the number of rows, malformed ones included, and the columns of the header."""
    n_malformed = 0

    def count(row: pa_csv.InvalidRow) -> str:
        nonlocal n_malformed
        n_malformed += 1
        return "skip"

    with pa.input_stream(str(path)) as stream:
        # One thread, because `count` is not locked.
        options = pa_csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False)
        parse = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=count)
        columns = _header(path)
        convert = pa_csv.ConvertOptions(
            include_columns=columns[:1], column_types={columns[0]: pa.binary()}
        )
        with pa_csv.open_csv(stream, options, parse, convert) as reader:
            rows = sum(batch.num_rows for batch in reader)
    return rows + n_malformed, columns


def _header(path: Path) -> list[str]:
    """Return the column names in the first line of a CSV file."""
    with pa.input_stream(str(path)) as stream:
        first = pa.py_buffer(stream.read(BLOCK_BYTES).split(b"\n", 1)[0] + b"\n")
    return pa_csv.read_csv(pa.BufferReader(first)).column_names


def _json_lines(path: Path) -> tuple[int, list[str]]:
    """Return the number of lines and the keys of the first object."""
    rows, last, first = 0, b"", b""
    with pa.input_stream(str(path)) as stream:
        while block := stream.read(BLOCK_BYTES):
            if not rows:
                first += block.split(b"\n", 1)[0]
            rows, last = rows + block.count(b"\n"), block[-1:]
    return rows + (last not in (b"", b"\n")), list(json.loads(first)) if first else []


def _books(tables: Tables, texts: Path) -> dict[str, int]:
    """Return the number of books, of books with a text in the source, and with each column."""
    table = bookdb.read_texts(texts.parent)
    has_own = pc.not_equal(pc.utf8_trim_whitespace(pc.fill_null(table["text"], "")), "")
    ids = table["book_id"].filter(has_own).to_numpy()
    books = tables.books
    has_text = np.isin(books["book_id"].to_numpy(), ids)
    not_blank = {column: int((books[column].str.strip() != "").sum()) for column in COLUMNS}
    return {"n": len(books), "own_text": int(has_text.sum())} | not_blank


def _ratings(tables: Tables) -> dict[str, Any]:
    h = tables.histories
    timed = h.loc[h["timestamp"] != 0, "timestamp"]
    first, last = (_date(timed.min()), _date(timed.max())) if len(timed) else (None, None)
    by_value = h["rating"].value_counts().sort_index()
    return {
        "n": len(h),
        "by_value": {f"{value:g}": int(n) for value, n in by_value.items()},
        "timestamps": {"n": len(timed), "first": first, "last": last},
    }


def _date(unix_seconds: int) -> str:
    return str(np.datetime64(int(unix_seconds), "s"))


def _positives(tables: Tables) -> dict[str, float]:
    """Return quantiles and mean of the number of positives per user."""
    h = tables.histories
    liked = h.loc[h["rating"] >= tables.positive_rating, "user"]
    per_user = np.bincount(liked, minlength=len(tables.users))
    # "lower" gives a number of books, not a value between two.
    values = np.quantile(per_user, list(QUANTILES.values()), method="lower")
    quantiles = {name: int(value) for name, value in zip(QUANTILES, values, strict=True)}
    n_without = int((per_user == 0).sum())
    return {**quantiles, "mean": round(float(per_user.mean()), 3), "users_without": n_without}
