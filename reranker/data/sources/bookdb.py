"""Read the four raw parquet tables of bookdb from a local folder and check them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.errors import DataError

RATING_RANGE = (1, 5)  # Goodreads stars

Check = Callable[[pa.DataType], bool]


def _is_text(t: pa.DataType) -> bool:
    return pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_null(t)


def _is_list(t: pa.DataType) -> bool:
    return pa.types.is_list(t) or pa.types.is_large_list(t)


def _is_id_list(t: pa.DataType) -> bool:
    return _is_list(t) and (_is_text(t.value_type) or pa.types.is_integer(t.value_type))


def _is_shelf_list(t: pa.DataType) -> bool:
    return (
        _is_list(t)
        and pa.types.is_struct(t.value_type)
        and t.value_type.get_field_index("name") >= 0
    )


def _is_number(t: pa.DataType) -> bool:
    return pa.types.is_integer(t) or pa.types.is_floating(t)


_INTEGER = ("an integer", pa.types.is_integer)
_TEXT = ("a string", _is_text)

# The bookdb schema: file -> column -> (required type, check). Columns in OPTIONAL may be missing.
SCHEMA: dict[str, dict[str, tuple[str, Check]]] = {
    "reduced_books.parquet": {
        "book_id": _INTEGER,
        "title": _TEXT,
        "description": _TEXT,
        "popular_shelves": ("a list of structs with a field `name`", _is_shelf_list),
        "authors": ("a list of author ids", _is_id_list),
    },
    "reduced_interactions.parquet": {
        "user_id": _TEXT,
        "book_id": _INTEGER,
        "rating": ("a number", _is_number),
        "timestamp": ("an integer (Unix seconds)", pa.types.is_integer),
    },
    "new_authors.parquet": {"author_id": _TEXT, "name": _TEXT},
    "book_texts_reduced.parquet": {"book_id": _INTEGER, "text": _TEXT},
}
OPTIONAL = {"timestamp"}

# The schema of the tables that `ratings` yields; the file may have other integer and float types.
RATINGS = pa.schema(
    [
        ("user_id", pa.large_string()),
        ("book_id", pa.int64()),
        ("rating", pa.float32()),
        ("timestamp", pa.int64()),
    ]
)
# Rows decoded in one step; tables of `batch_rows` rows are concatenated from these.
READ_ROWS = 1 << 16
# Bytes. Without a buffer Arrow loads the complete column of a row group into memory.
READ_BUFFER = 1 << 20


@dataclass(frozen=True)
class RawTables:
    """The raw tables except ratings, with the columns of SCHEMA and without null ids."""

    books: pa.Table
    authors: pa.Table
    texts: pa.Table


def files(root: Path) -> list[Path]:
    """Return the four files of `root`, in the order of SCHEMA.

    Raises:
        DataError: The folder or one of its files is missing.
    """
    if not root.is_dir():
        raise DataError(
            f"data.root={str(root)!r} is not a folder; it must hold {', '.join(SCHEMA)}."
        )
    missing = [name for name in SCHEMA if not (root / name).is_file()]
    if missing:
        found = sorted(p.name for p in root.glob("*.parquet"))
        raise DataError(
            f"{root}: missing {', '.join(missing)}; found {', '.join(found) or 'no parquet file'}."
        )
    return [root / name for name in SCHEMA]


def read(root: Path) -> RawTables:
    """Return the books, authors and texts of a folder.

    Raises:
        DataError: A file is missing or corrupt, a column is missing or has a wrong type, an id is
            null or repeated, or there are no books.
    """
    paths = {path.name: path for path in files(root)}
    books = _read(paths["reduced_books.parquet"], "book_id")
    if not books.num_rows:
        raise DataError("reduced_books.parquet: no rows; at least one is needed.")
    authors = _read(paths["new_authors.parquet"], "author_id")
    return RawTables(books, authors, _read(paths["book_texts_reduced.parquet"], "book_id"))


def ratings(root: Path, batch_rows: int) -> Iterator[pa.Table]:
    """Yield the ratings of a folder in the order of the file, in tables of about `batch_rows` rows.

    The tables have the schema RATINGS and no nulls; a missing timestamp is 0. Invalid rows are
    counted over the complete file, so the error for them is raised at the end.

    Raises:
        DataError: The file is missing or corrupt, a column is missing or has a wrong type, an id is
            null, a rating is outside RATING_RANGE, a number exceeds 64 bits, or there are no
            ratings.
    """
    path = next(path for path in files(root) if path.name == "reduced_interactions.parquet")
    with _open(path) as file:
        batches = _batches(file, path, min(READ_ROWS, batch_rows))
        for table in _check_ratings(_concatenate(batches, batch_rows)):
            yield _canonical(table)


def _open(path: Path) -> pq.ParquetFile:
    try:
        file = pq.ParquetFile(path, buffer_size=READ_BUFFER, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        message = f"{path}: not a readable parquet file ({error}). Download or write it again."
        raise DataError(message) from error
    _check_schema(path.name, file.schema_arrow, SCHEMA[path.name])
    return file


def _batches(file: pq.ParquetFile, path: Path, n_rows: int = READ_ROWS) -> Iterator[pa.RecordBatch]:
    """Yield the columns of SCHEMA; every string is valid UTF-8."""
    columns = [c for c in SCHEMA[path.name] if c in file.schema_arrow.names]
    for group in range(file.num_row_groups):
        try:
            for batch in file.iter_batches(n_rows, row_groups=[group], columns=columns):
                batch.validate(full=True)
                yield batch
        except (pa.ArrowException, OSError) as error:
            where = f"row group {group} of {file.num_row_groups}, counted from 0"
            raise DataError(
                f"{path}: not a readable parquet file, {where} ({error}). Download or write it "
                "again."
            ) from error


def _concatenate(batches: Iterable[pa.RecordBatch], batch_rows: int) -> Iterator[pa.Table]:
    """Yield tables of at least `batch_rows` rows; the last one may be shorter."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        pending.append(batch)
        if sum(b.num_rows for b in pending) >= batch_rows:
            yield pa.Table.from_batches(pending)
            pending = []
    if pending:
        yield pa.Table.from_batches(pending)


def _read(path: Path, key: str) -> pa.Table:
    with _open(path) as file:
        names = [c for c in SCHEMA[path.name] if c in file.schema_arrow.names]
        schema = pa.schema([file.schema_arrow.field(c) for c in names])
        table = pa.Table.from_batches(list(_batches(file, path)), schema)
    _check_nulls(path.name, key, table[key].null_count)
    _check_repeats(table, path.name, key)
    return table


def _check_schema(name: str, found: pa.Schema, expected: dict[str, tuple[str, Check]]) -> None:
    missing = [c for c in expected if c not in found.names and c not in OPTIONAL]
    if missing:
        raise DataError(
            f"{name}: missing column {', '.join(missing)}; found {', '.join(found.names)}."
        )
    for column, (required, check) in expected.items():
        if column in found.names and not check(found.field(column).type):
            raise DataError(
                f"{name}: column {column} must be {required}, but is {found.field(column).type}."
            )


def _check_nulls(name: str, column: str, n_null: int) -> None:
    if n_null:
        raise DataError(f"{name}: {n_null} rows have no {column}. Remove them at the source.")


def _check_repeats(table: pa.Table, name: str, key: str) -> None:
    counts = table[key].combine_chunks().value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0]["values"].as_py()
        raise DataError(
            f"{name}: {len(repeated)} values of {key} are in several rows (first: {first}). Keep "
            "one row for each."
        )


def _check_ratings(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """Yield the tables up to the first invalid row, and raise at the end if there are any.

    Invalid rows of all tables are counted, so the message does not depend on the batch size.
    """
    name, (low, high) = "reduced_interactions.parquet", RATING_RANGE
    n_rows, n_bad = 0, 0
    first: dict[str, object] = {}
    n_null = {"user_id": 0, "book_id": 0}
    for table in tables:
        bad = table.filter(pc.invert(_in_range(table["rating"])))
        n_rows, n_bad = n_rows + table.num_rows, n_bad + bad.num_rows
        n_null = {column: n + table[column].null_count for column, n in n_null.items()}
        first = first or next(iter(bad.slice(0, 1).to_pylist()), {})
        if not n_bad and not any(n_null.values()):
            yield table
    if not n_rows:
        raise DataError(f"{name}: no rows; at least one is needed.")
    for column, n in n_null.items():
        _check_nulls(name, column, n)
    if n_bad:
        raise DataError(
            f"{name}: {n_bad} rows have a rating outside {low}..{high} (first: "
            f"user_id={first['user_id']}, book_id={first['book_id']}, rating={first['rating']}). "
            "Fix the source."
        )


def _in_range(rating: pa.ChunkedArray) -> pa.ChunkedArray:
    low, high = RATING_RANGE
    value = rating.cast(pa.float64())
    return pc.fill_null(pc.and_(pc.greater_equal(value, low), pc.less_equal(value, high)), False)


def _canonical(table: pa.Table) -> pa.Table:
    if "timestamp" not in table.column_names:
        zeros = pa.repeat(pa.scalar(0, pa.int64()), table.num_rows)
        table = table.append_column("timestamp", zeros)
    at = table.schema.get_field_index("timestamp")
    table = table.set_column(at, "timestamp", pc.fill_null(table["timestamp"], 0))
    try:
        return table.select(RATINGS.names).cast(RATINGS)
    except pa.ArrowInvalid as error:
        raise DataError(
            f"reduced_interactions.parquet: {error}; numbers must fit in a signed 64-bit integer."
        ) from error
