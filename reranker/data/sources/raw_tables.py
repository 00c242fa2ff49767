"""Write the raw tables of `bookdb.SCHEMA` in row groups of a fixed size."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION
from reranker.errors import DataError

SHELF = pa.struct([("count", pa.string()), ("name", pa.string())])
BOOKS = pa.schema(
    [
        ("book_id", pa.int64()),
        ("title", pa.string()),
        ("description", pa.string()),
        ("popular_shelves", pa.list_(SHELF)),
        ("authors", pa.list_(pa.string())),
    ]
)
RATINGS = pa.schema([("user_id", pa.string()), ("book_id", pa.int64()), ("rating", pa.int8())])
DATED_RATINGS = RATINGS.append(pa.field("timestamp", pa.int64()))
AUTHORS = pa.schema([("author_id", pa.string()), ("name", pa.string())])
TEXTS = pa.schema([("book_id", pa.int64()), ("text", pa.string())])

# Rows in a row group of books: about 90 MB as Python objects with 41 shelves each (measured).
BOOK_ROWS = 1 << 12
# Rows in a row group of ids and stars: about 7 MB.
ROWS = 1 << 17


class RowGroupWriter:
    """Writes a parquet file in row groups of `rows` rows.

    The bytes of the file do not depend on how the rows arrive. Use it as a context manager; after
    exit `n` is the number of rows. In memory are one row group and, in addition, at most
    `batch_rows` rows added as tuples or one added table.
    """

    def __init__(self, path: Path, schema: pa.Schema, *, batch_rows: int, rows: int = ROWS) -> None:
        self._writer = pq.ParquetWriter(path, schema, compression=COMPRESSION)
        self._schema, self._rows, self._batch = schema, rows, min(batch_rows, rows)
        self._tuples: list[tuple[object, ...]] = []
        self._waiting = [schema.empty_table()]
        self._n_waiting = 0
        self.n = 0

    def append(self, row: tuple[object, ...]) -> None:
        """Append a row; its values are in the order of the schema."""
        self._tuples.append(row)
        if len(self._tuples) == self._batch:
            self._write_tuples()

    def write(self, table: pa.Table) -> None:
        """Append the rows of a table that has the schema."""
        self._waiting.append(table)
        self._n_waiting += table.num_rows
        self.n += table.num_rows
        if self._n_waiting >= self._rows:
            self._flush(self._n_waiting // self._rows * self._rows)

    def _write_tuples(self) -> None:
        columns = list(zip(*self._tuples, strict=True)) or [()] * len(self._schema)
        fields = zip(columns, self._schema, strict=True)
        arrays = [pa.array(values, field.type) for values, field in fields]
        self._tuples = []
        self.write(pa.Table.from_arrays(arrays, schema=self._schema))

    def _flush(self, n: int) -> None:
        table = pa.concat_tables(self._waiting)
        for first in range(0, n, self._rows):
            # One chunk per column, because chunk borders would change the pages.
            group = table.slice(first, min(self._rows, n - first)).combine_chunks()
            self._writer.write_table(group, row_group_size=self._rows)
        self._waiting = [table.slice(n)]
        self._n_waiting = table.num_rows - n

    def __enter__(self) -> RowGroupWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if kind is None:
            self._write_tuples()
            self._flush(self._n_waiting)
        self._writer.close()


def write_empty_texts(folder: Path) -> None:
    """Write `book_texts_reduced` without rows; texts are then rendered from the books table."""
    with RowGroupWriter(folder / "book_texts_reduced.parquet", TEXTS, batch_rows=1):
        pass


def check_not_empty(root: Path, counts: Mapping[str, int]) -> None:
    """Raise if no books or no ratings are left.

    Raises:
        DataError: A table is empty; the message lists the reasons why rows were dropped.
    """
    for table in ("books", "ratings"):
        if not counts[table]:
            dropped = {k: n for k, n in counts.items() if k.startswith(f"{table}_dropped") and n}
            reasons = ", ".join(f"{k}={n}" for k, n in dropped.items()) or "the file has none"
            raise DataError(
                f"{root}: none of {counts[f'{table}_in']} {table} can be used ({reasons}). Check "
                "that all files belong to one data set."
            )
