"""The four raw parquet tables of BookDB, read from a local folder and checked at the door."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.errors import DataError

RATING_RANGE = (1, 5)  # Goodreads stars

Check = Callable[[pa.DataType], bool]


def _text(t: pa.DataType) -> bool:
    return pa.types.is_string(t) or pa.types.is_large_string(t) or pa.types.is_null(t)


def _is_list(t: pa.DataType) -> bool:
    return pa.types.is_list(t) or pa.types.is_large_list(t)


def _ids(t: pa.DataType) -> bool:
    return _is_list(t) and (_text(t.value_type) or pa.types.is_integer(t.value_type))


def _shelves(t: pa.DataType) -> bool:
    return _is_list(t) and pa.types.is_struct(t.value_type) and t.value_type.get_field_index("name") >= 0


def _number(t: pa.DataType) -> bool:
    return pa.types.is_integer(t) or pa.types.is_floating(t)


_INTEGER = ("an integer", pa.types.is_integer)
_TEXT = ("a string", _text)

# file -> column -> (what it must be, check); a column in OPTIONAL may be absent.
SCHEMA: dict[str, dict[str, tuple[str, Check]]] = {
    "reduced_books.parquet": {
        "book_id": _INTEGER,
        "title": _TEXT,
        "description": _TEXT,
        "popular_shelves": ("a list of structs with a field `name`", _shelves),
        "authors": ("a list of author ids", _ids),
    },
    "reduced_interactions.parquet": {
        "user_id": _TEXT,
        "book_id": _INTEGER,
        "rating": ("a number", _number),
        "timestamp": ("an integer (Unix seconds)", pa.types.is_integer),
    },
    "new_authors.parquet": {"author_id": _TEXT, "name": _TEXT},
    "book_texts_reduced.parquet": {"book_id": _INTEGER, "text": _TEXT},
}
OPTIONAL = {"timestamp"}


@dataclass(frozen=True)
class RawTables:
    """The raw tables as Arrow tables with the columns of SCHEMA, ids never null, ratings in RATING_RANGE."""

    books: pa.Table
    ratings: pa.Table
    authors: pa.Table
    texts: pa.Table


def files(root: Path) -> list[Path]:
    """The four files of `root`, in the order of SCHEMA.

    Raises:
        DataError: The folder or one of its files is missing.
    """
    if not root.is_dir():
        raise DataError(f"data.root={str(root)!r} is not a folder; it must hold {', '.join(SCHEMA)}.")
    missing = [name for name in SCHEMA if not (root / name).is_file()]
    if missing:
        found = sorted(p.name for p in root.glob("*.parquet"))
        raise DataError(f"{root}: missing {', '.join(missing)}; found {', '.join(found) or 'no parquet file'}.")
    return [root / name for name in SCHEMA]


def read(root: Path) -> RawTables:
    """The four tables of a folder.

    Raises:
        DataError: A file is missing or corrupt, a column is missing or of another type, an id is null, a rating is
            outside RATING_RANGE, book ids repeat, or there are no books or ratings.
    """
    books, ratings, authors, texts = (_read(path) for path in files(root))
    _refuse_empty(books, "reduced_books.parquet")
    _refuse_empty(ratings, "reduced_interactions.parquet")
    _check_ratings(ratings)
    for table, name, key in (
        (books, "reduced_books.parquet", "book_id"),
        (authors, "new_authors.parquet", "author_id"),
        (texts, "book_texts_reduced.parquet", "book_id"),
    ):
        _refuse_repeats(table, name, key)
    return RawTables(books, ratings, authors, texts)


def _read(path: Path) -> pa.Table:
    expected = SCHEMA[path.name]
    try:
        found = pq.read_schema(path)
        _check_schema(path.name, found, expected)
        table = pq.read_table(path, columns=[c for c in expected if c in found.names])
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable parquet file ({error}). Fetch or write it again.") from error
    for column in ("user_id", "book_id", "author_id"):
        if column in table.column_names and table[column].null_count:
            raise DataError(
                f"{path.name}: {table[column].null_count} rows have no {column}. Remove them at the source."
            )
    return table


def _check_schema(name: str, found: pa.Schema, expected: dict[str, tuple[str, Check]]) -> None:
    missing = [c for c in expected if c not in found.names and c not in OPTIONAL]
    if missing:
        raise DataError(f"{name}: missing column {', '.join(missing)}; found {', '.join(found.names)}.")
    for column, (what, check) in expected.items():
        if column in found.names and not check(found.field(column).type):
            raise DataError(f"{name}: column {column} must be {what}, but is {found.field(column).type}.")


def _refuse_empty(table: pa.Table, name: str) -> None:
    if not table.num_rows:
        raise DataError(f"{name}: no rows; at least one is needed.")


def _refuse_repeats(table: pa.Table, name: str, key: str) -> None:
    counts = table[key].combine_chunks().value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0]["values"].as_py()
        raise DataError(
            f"{name}: {len(repeated)} values of {key} stand in several rows (first: {first}). Keep one row each."
        )


def _check_ratings(ratings: pa.Table) -> None:
    low, high = RATING_RANGE
    value = ratings["rating"].cast(pa.float64())
    inside = pc.fill_null(pc.and_(pc.greater_equal(value, low), pc.less_equal(value, high)), False)
    bad = pc.invert(inside)
    if n_bad := pc.sum(bad).as_py():
        first = ratings.filter(bad).slice(0, 1).to_pylist()[0]
        raise DataError(
            f"reduced_interactions.parquet: {n_bad} rows have a rating outside {low}..{high} (first: "
            f"user_id={first['user_id']}, book_id={first['book_id']}, rating={first['rating']}). Fix the source."
        )
