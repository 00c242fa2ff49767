"""Raw tables are written in full row groups, and the bytes do not depend on the batches."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.data.sources import bookdb, raw_tables
from reranker.data.sources.columns import check_type
from reranker.errors import DataError


def test_row_groups_are_full_and_bytes_are_equal_for_all_batch_sizes(tmp_path: Path) -> None:
    files = []
    schema = raw_tables.AUTHORS
    for batch_rows in (7, 100, 10**6):
        files.append(tmp_path / f"{batch_rows}.parquet")
        with raw_tables.RowGroupWriter(files[-1], schema, batch_rows=batch_rows, rows=64) as out:
            for i in range(0, 1000, batch_rows):
                rows = [(str(j), f"Author {j % 9}") for j in range(i, min(1000, i + batch_rows))]
                if batch_rows == 100:
                    out.write(pa.table(list(zip(*rows, strict=True)), schema))
                else:
                    for row in rows:
                        out.append(row)
    found = pq.ParquetFile(files[0]).metadata
    assert [found.row_group(g).num_rows for g in range(found.num_row_groups)] == [64] * 15 + [40]
    assert files[0].read_bytes() == files[1].read_bytes() == files[2].read_bytes()


def test_a_table_without_rows_keeps_its_schema(tmp_path: Path) -> None:
    raw_tables.write_empty_texts(tmp_path)
    found = pq.read_table(tmp_path / "book_texts_reduced.parquet")
    assert (found.num_rows, found.schema) == (0, raw_tables.TEXTS)


def test_the_written_schemas_pass_the_checks_of_bookdb() -> None:
    schemas = (raw_tables.BOOKS, raw_tables.DATED_RATINGS, raw_tables.AUTHORS, raw_tables.TEXTS)
    for schema, name in zip(schemas, bookdb.SCHEMA, strict=True):
        assert schema.names == list(bookdb.SCHEMA[name])
        for column, kind in bookdb.SCHEMA[name].items():
            check_type(schema.field(column).type, kind, file=name, column=column)


def test_an_empty_table_is_an_error_that_lists_the_reasons(tmp_path: Path) -> None:
    counts = Counter(
        books=3, ratings=0, ratings_in=7, ratings_dropped_no_rating=7, ratings_dropped_no_user_id=0
    )
    message = r"none of 7 ratings can be used \(ratings_dropped_no_rating=7\)"
    with pytest.raises(DataError, match=message):
        raw_tables.check_not_empty(tmp_path, counts)
