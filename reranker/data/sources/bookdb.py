"""Read the four raw parquet tables of bookdb from a local folder and check them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.sources import parquet_files
from reranker.data.sources.columns import (
    ID,
    KEY,
    NUMBER,
    STRING,
    TEXT,
    TIME,
    Kind,
    check_type,
    list_kind,
    read_column,
)
from reranker.data.sources.rating_rules import STARS, RatingRules, check_ratings, usable_rows
from reranker.errors import DataError

_SHELVES = list_kind(
    "a list of structs with a field `name`, or of strings", "name", usual="struct_list"
)
_AUTHORS = list_kind("a list of author ids", "author_id", usual="text_list", takes_single=True)

# The bookdb schema: file -> column -> how it is read. Columns in OPTIONAL may be missing.
SCHEMA: dict[str, dict[str, Kind]] = {
    "reduced_books.parquet": {
        "book_id": ID,
        "title": STRING,
        "description": STRING,
        "popular_shelves": _SHELVES,
        "authors": _AUTHORS,
    },
    "reduced_interactions.parquet": {
        "user_id": KEY,
        "book_id": ID,
        "rating": NUMBER,
        "timestamp": TIME,
    },
    "new_authors.parquet": {"author_id": KEY, "name": STRING},
    "book_texts_reduced.parquet": {"book_id": ID, "text": STRING},
}
OPTIONAL = frozenset({"timestamp", "description"})
OPTIONAL_FILES = {"book_texts_reduced.parquet"}
# Table in the names of counts, such as ratings_user_id_from_integer.
_COUNTED_AS = dict(zip(SCHEMA, ("books", "ratings", "authors", "texts"), strict=True))

# The schema of the tables that `ratings` yields; the file may have other types.
RATINGS = pa.schema(
    [
        ("user_id", TEXT),
        ("book_id", pa.int64()),
        ("rating", pa.float32()),
        ("timestamp", pa.int64()),
    ]
)
# Rows decoded in one step; tables of `batch_rows` rows are concatenated from these.
READ_ROWS = 1 << 16


@dataclass(frozen=True)
class RawTables:
    """The raw tables except ratings, with the columns of SCHEMA and without null ids.

    Ids of books are int64, other ids and texts large_string, shelves and authors lists of texts.

    Attributes:
        counts: Values that were converted, by table, column and spelling.
    """

    books: pa.Table
    authors: pa.Table
    texts: pa.Table
    counts: Counter[str] = field(default_factory=Counter)


def files(root: Path) -> list[Path]:
    """Return the files of `root` in the order of SCHEMA; each may be a folder of part files.

    Raises:
        DataError: The folder or one of its required files is missing.
    """
    if not root.is_dir():
        raise DataError(
            f"data.root={str(root)!r} is not a folder; it must hold {', '.join(SCHEMA)}."
        )
    missing = [name for name in SCHEMA if not (root / name).exists()]
    if set(missing) - OPTIONAL_FILES:
        found = sorted(p.name for p in root.glob("*.parquet"))
        raise DataError(
            f"{root}: missing {', '.join(missing)}; found {', '.join(found) or 'no parquet file'}."
        )
    return [root / name for name in SCHEMA if name not in missing]


def read(root: Path) -> RawTables:
    """Return the books, authors and texts of a folder.

    Raises:
        DataError: A file is missing or corrupt, a column is missing, repeated or of a type that
            cannot be read, an id is null or repeated, or there are no books.
    """
    paths = {path.name: path for path in files(root)}
    counts: Counter[str] = Counter()
    books = _read(paths["reduced_books.parquet"], "book_id", counts)
    if not books.num_rows:
        raise DataError("reduced_books.parquet: no rows; at least one is needed.")
    authors = _read(paths["new_authors.parquet"], "author_id", counts)
    return RawTables(books, authors, _read_texts(paths, counts), counts)


def read_texts(root: Path) -> pa.Table:
    """Return book_id (int64) and text of the texts of a folder; no rows without the file.

    Raises:
        DataError: As `read`.
    """
    return _read_texts({path.name: path for path in files(root)}, Counter())


def ratings(
    root: Path,
    batch_rows: int,
    rules: RatingRules = STARS,
    counts: Counter[str] | None = None,
) -> Iterator[pa.Table]:
    """Yield the ratings of a folder in the order of the file, in tables of about `batch_rows` rows.

    The tables have the schema RATINGS and no nulls; a missing timestamp is 0. Rows without a user
    or a book are left out. Invalid rows are counted over the complete file, so the error for them
    is raised at the end.

    Args:
        counts: Receives the rows that were left out, `ratings_dropped_REASON`, the rows without a
            rating, and the values that were converted.

    Raises:
        DataError: The file is missing or corrupt, a column is missing, repeated or of a type that
            cannot be read, a rating is outside the range, a timestamp is later than LATEST, or
            there are no ratings.
    """
    counts = Counter() if counts is None else counts
    path = next(path for path in files(root) if path.name == "reduced_interactions.parquet")
    optional = OPTIONAL if rules.range else OPTIONAL | {"rating"}
    batches = _batches(path, counts, min(READ_ROWS, batch_rows), optional=optional)
    tables = _concatenate(path, batches, batch_rows)
    usable = (usable_rows(table, rules, counts) for table in tables)
    for table in check_ratings(usable, rules, counts):
        yield _canonical(table)


def _batches(
    path: Path,
    counts: Counter[str],
    n_rows: int = READ_ROWS,
    *,
    optional: frozenset[str] = OPTIONAL,
) -> Iterator[pa.RecordBatch]:
    """Yield the columns of SCHEMA that a file or its parts have, in the types of their kinds."""
    kinds = SCHEMA[path.name]
    for part in parquet_files.parts(path):
        name = path.name if part == path else f"{path.name}/{part.name}"
        with parquet_files.open_parquet(part) as file:
            _check_schema(name, file.schema_arrow, kinds, optional)
            columns = [c for c in kinds if c in file.schema_arrow.names]
            row = 0
            for batch in parquet_files.batches(file, part, columns, n_rows):
                arrays = {}
                for column in columns:
                    arrays[column], converted = read_column(
                        batch[column], kinds[column], file=name, column=column, first_row=row
                    )
                    for spelling, n in converted.items():
                        counts[f"{_COUNTED_AS[path.name]}_{column}_from_{spelling}"] += n
                row += len(batch)
                yield pa.record_batch(arrays)


def _concatenate(
    path: Path, batches: Iterable[pa.RecordBatch], batch_rows: int
) -> Iterator[pa.Table]:
    """Yield tables of at least `batch_rows` rows; the last one may be shorter."""
    pending: list[pa.RecordBatch] = []
    for batch in batches:
        pending.append(batch)
        if sum(b.num_rows for b in pending) >= batch_rows:
            yield _table(path, pending)
            pending = []
    if pending:
        yield _table(path, pending)


def _table(path: Path, batches: Iterable[pa.RecordBatch]) -> pa.Table:
    """Return the batches as one table; a column that a file lacks is null in its rows."""
    empty = pa.table({column: kind.read(pa.nulls(0)) for column, kind in SCHEMA[path.name].items()})
    tables = (pa.Table.from_batches([batch]) for batch in batches)
    return pa.concat_tables([empty, *tables], promote_options="default")


def _read(path: Path, key: str, counts: Counter[str]) -> pa.Table:
    table = _table(path, _batches(path, counts))
    if n_null := table[key].null_count:
        raise DataError(f"{path.name}: {n_null} rows have no {key}. Remove them at the source.")
    _check_repeats(table, path.name, key)
    return table


def _read_texts(paths: dict[str, Path], counts: Counter[str]) -> pa.Table:
    path = paths.get("book_texts_reduced.parquet")
    if path is None:
        return _table(Path("book_texts_reduced.parquet"), [])
    return _read(path, "book_id", counts)


def _check_schema(
    name: str, found: pa.Schema, kinds: dict[str, Kind], optional: frozenset[str]
) -> None:
    missing = [c for c in kinds if c not in found.names and c not in optional]
    if missing:
        hint = "; if every row is a positive, set data.rating_range=null" * ("rating" in missing)
        raise DataError(
            f"{name}: missing column {', '.join(missing)}; found {', '.join(found.names)}{hint}."
        )
    for column, kind in kinds.items():
        n = found.names.count(column)
        if n > 1:
            raise DataError(
                f"{name}: {n} columns are named {column}; expected one. Remove or rename the "
                "others."
            )
        if n:
            check_type(found.field(column).type, kind, file=name, column=column)


def _check_repeats(table: pa.Table, name: str, key: str) -> None:
    counts = table[key].combine_chunks().value_counts()
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        first = repeated[0]["values"].as_py()
        raise DataError(
            f"{name}: {len(repeated)} values of {key} are in several rows (first: {first}). Keep "
            "one row for each."
        )


def _canonical(table: pa.Table) -> pa.Table:
    at = table.schema.get_field_index("timestamp")
    table = table.set_column(at, "timestamp", pc.fill_null(table["timestamp"], 0))
    return table.select(RATINGS.names).cast(RATINGS)
