"""What a source holds, as plain numbers: files, funnel, splits, texts, ratings, positives, timestamps."""

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

from reranker.data.splits import SPLITS
from reranker.data.tables import Tables
from reranker.errors import DataError

QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1.0}
COLUMNS = ("description", "genres", "authors", "series")  # of books: how many are not blank
BLOCK_BYTES = 4 * 2**20  # of a text file, read at a time


def describe(tables: Tables, files: Sequence[Path], texts: Path) -> dict[str, Any]:
    """Plain facts of a source, ready for JSON.

    Args:
        tables: What the source ends in.
        files: The source's own files: parquet, or CSV or JSON lines, plain or gzipped; the latter are read through.
        texts: `book_texts_reduced.parquet` of the raw tables.

    Returns:
        files: (name, rows, columns, bytes) of each; funnel: rows in, out and dropped by reason; users per split; books
        in all and with a text of their own (others have one rendered from their columns), description, …; ratings by
        value and how many have a time, from when to when; quantiles over users of their positives (whole histories).

    Raises:
        DataError: A file cannot be read.
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
    kind = path.name.removesuffix(".gz").rsplit(".", 1)[-1]
    try:
        rows, columns = {"parquet": _parquet, "csv": _csv, "json": _json_lines}[kind](path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Fetch or write it again.") from error
    return {"name": path.name, "rows": rows, "columns": columns, "bytes": path.stat().st_size}


def _parquet(path: Path) -> tuple[int, list[str]]:
    with pq.ParquetFile(path) as file:
        return file.metadata.num_rows, file.schema_arrow.names


def _csv(path: Path) -> tuple[int, list[str]]:
    """Rows that have another number of values than the header count too."""
    n_odd = 0

    def count(row: pa_csv.InvalidRow) -> str:
        nonlocal n_odd
        n_odd += 1
        return "skip"

    with pa.input_stream(str(path)) as stream:
        options = pa_csv.ReadOptions(
            block_size=BLOCK_BYTES, use_threads=False
        )  # one thread: `count` is not locked
        parse = pa_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=count)
        columns = _header(path)
        convert = pa_csv.ConvertOptions(
            include_columns=columns[:1], column_types={columns[0]: pa.binary()}
        )
        with pa_csv.open_csv(stream, options, parse, convert) as reader:
            rows = sum(batch.num_rows for batch in reader)
    return rows + n_odd, columns


def _header(path: Path) -> list[str]:
    with pa.input_stream(str(path)) as stream:
        first = pa.py_buffer(stream.read(BLOCK_BYTES).split(b"\n", 1)[0] + b"\n")
    return pa_csv.read_csv(pa.BufferReader(first)).column_names


def _json_lines(path: Path) -> tuple[int, list[str]]:
    rows, last, first = 0, b"", b""
    with pa.input_stream(str(path)) as stream:
        while block := stream.read(BLOCK_BYTES):
            if not rows:
                first += block.split(b"\n", 1)[0]
            rows, last = rows + block.count(b"\n"), block[-1:]
    return rows + (last not in (b"", b"\n")), list(json.loads(first)) if first else []


def _books(tables: Tables, texts: Path) -> dict[str, int]:
    ids: list[np.ndarray] = []
    with pq.ParquetFile(texts) as file:
        for batch in file.iter_batches(columns=["book_id", "text"]):
            blank = pc.equal(
                pc.utf8_length(
                    pc.utf8_trim_whitespace(pc.fill_null(batch["text"].cast(pa.large_string()), ""))
                ),
                0,
            )
            ids.append(batch["book_id"].filter(pc.invert(blank)).to_numpy(zero_copy_only=False))
    books = tables.books
    own = np.isin(books["book_id"].to_numpy(), np.concatenate([*ids, []]).astype(np.int64))
    return {"n": len(books), "own_text": int(own.sum())} | {
        c: int((books[c].str.strip() != "").sum()) for c in COLUMNS
    }


def _ratings(tables: Tables) -> dict[str, Any]:
    h = tables.histories
    timed = h.loc[h["timestamp"] != 0, "timestamp"]
    first, last = (
        (str(np.datetime64(int(t), "s")) for t in (timed.min(), timed.max()))
        if len(timed)
        else (None, None)
    )
    by_value = h["rating"].value_counts().sort_index()
    return {
        "n": len(h),
        "by_value": {f"{value:g}": int(n) for value, n in by_value.items()},
        "timestamps": {"n": len(timed), "first": first, "last": last},
    }


def _positives(tables: Tables) -> dict[str, float]:
    h = tables.histories
    liked = h.loc[h["rating"] >= tables.positive_rating, "user"]
    per_user = np.bincount(liked, minlength=len(tables.users))
    quantiles = np.quantile(
        per_user, list(QUANTILES.values()), method="lower"
    )  # a number of books, not between two
    return {name: int(q) for name, q in zip(QUANTILES, quantiles, strict=True)} | {
        "mean": round(float(per_user.mean()), 3),
        "users_without": int((per_user == 0).sum()),
    }
