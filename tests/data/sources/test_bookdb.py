"""Raw tables are checked when they are read; errors name the file, the column or the row."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import load_tables
from reranker.data.sources import bookdb
from reranker.errors import DataError

Raw = Callable[..., Path]


def check_error(root: Path, cache: Cache, *texts: str) -> None:
    """Check that loading raises a DataError with these texts and leaves no file in the cache."""
    with pytest.raises(DataError) as error:
        load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert all(text in str(error.value) for text in texts), str(error.value)
    assert not [p for p in cache.root.rglob("*") if p.is_file() and p.suffix != ".lock"]


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def test_all_rows_of_valid_tables_are_read(raw: Raw) -> None:
    tables = bookdb.read(raw())
    assert (tables.books.num_rows, tables.authors.num_rows, tables.texts.num_rows) == (40, 7, 0)


def test_a_missing_folder(tmp_path: Path, cache: Cache) -> None:
    check_error(tmp_path / "nowhere", cache, "nowhere", "is not a folder")


def test_the_error_for_a_missing_table_names_it_and_the_files_found(raw: Raw, cache: Cache) -> None:
    root = raw()
    (root / "new_authors.parquet").unlink()
    check_error(root, cache, "missing new_authors.parquet", "reduced_books.parquet")


def test_a_missing_column(raw: Raw, cache: Cache) -> None:
    root = raw()
    rewrite(root / "reduced_interactions.parquet", lambda t: t.drop(["rating"]))
    check_error(
        root, cache, "reduced_interactions.parquet: missing column rating", "user_id, book_id"
    )


@pytest.mark.parametrize("dtype", [pa.string(), pa.float64()])
def test_a_wrong_id_dtype_is_an_error(raw: Raw, cache: Cache, dtype: pa.DataType) -> None:
    root = raw()
    rewrite(
        root / "reduced_interactions.parquet",
        lambda t: t.set_column(
            t.schema.get_field_index("book_id"), "book_id", t["book_id"].cast(dtype)
        ),
    )
    message = "reduced_interactions.parquet: column book_id must be an integer, but is"
    check_error(root, cache, message, str(dtype))


def test_empty_ratings(raw: Raw, cache: Cache) -> None:
    check_error(raw([]), cache, "reduced_interactions.parquet: no rows")


def test_batches_of_ratings_have_one_schema_for_all_types_of_the_file(raw: Raw) -> None:
    root = raw([("a", 1, 4, 7), ("b", 2, 5, None), ("c", 3, 1, 9)])
    types = pa.schema(
        [
            ("user_id", pa.string()),
            ("book_id", pa.uint16()),
            ("rating", pa.float64()),
            ("timestamp", pa.int32()),
        ]
    )
    rewrite(root / "reduced_interactions.parquet", lambda t: t.cast(types))
    tables = list(bookdb.ratings(root, 2))
    assert [t.to_pydict() for t in tables] == [
        {"user_id": ["a", "b"], "book_id": [1, 2], "rating": [4.0, 5.0], "timestamp": [7, 0]},
        {"user_id": ["c"], "book_id": [3], "rating": [1.0], "timestamp": [9]},
    ]
    assert all(t.schema == bookdb.RATINGS for t in tables)


def test_small_row_groups_are_concatenated(raw: Raw) -> None:
    root = raw()
    file = root / "reduced_interactions.parquet"
    pq.write_table(pq.read_table(file), file, row_group_size=7)
    sizes = [t.num_rows for t in bookdb.ratings(root, 100)]
    assert sizes == [105, 105, 105, 105, 105, 75]  # 15 row groups each


def test_a_timestamp_of_another_dtype_is_an_error(raw: Raw, cache: Cache) -> None:
    root = raw([("a", 1, 4, 7)])
    rewrite(
        root / "reduced_interactions.parquet",
        lambda t: t.set_column(3, "timestamp", t["timestamp"].cast(pa.timestamp("ms"))),
    )
    check_error(
        root, cache, "column timestamp must be an integer (Unix seconds), but is timestamp[ms]"
    )


def test_an_id_beyond_64_bits(raw: Raw, cache: Cache) -> None:
    root = raw([("a", 1, 4)])
    rewrite(
        root / "reduced_interactions.parquet",
        lambda t: t.set_column(1, "book_id", pa.array([2**63], pa.uint64())),
    )
    check_error(root, cache, "reduced_interactions.parquet", "9223372036854775808", "64-bit")


def test_text_that_is_not_utf8_is_an_error(raw: Raw, cache: Cache) -> None:
    root = raw([("a", 1, 4)])
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"]).buffers())
    rewrite(root / "reduced_interactions.parquet", lambda t: t.set_column(0, "user_id", bad))
    check_error(root, cache, "reduced_interactions.parquet", "row group 0 of 1", "UTF8")


@pytest.mark.parametrize("batch_rows", [1, 2, 100])
def test_invalid_ratings_are_counted_over_all_batches(raw: Raw, batch_rows: int) -> None:
    root = raw([("a", 1, 4), ("b", 2, 9), ("c", 3, 4), ("d", 4, 0), ("e", 5, 4)])
    with pytest.raises(DataError, match=r"2 rows have a rating .*user_id=b, book_id=2, rating=9"):
        list(bookdb.ratings(root, batch_rows))


@pytest.mark.parametrize("rating", [0, 6, None])
def test_a_rating_out_of_range_names_the_first_row(
    raw: Raw, cache: Cache, rating: int | None
) -> None:
    root = raw([("u1", 1, 4), ("u2", 2, rating), ("u3", 3, rating)])
    check_error(
        root, cache, "2 rows have a rating outside 1..5", f"user_id=u2, book_id=2, rating={rating}"
    )


def test_a_null_id(raw: Raw, cache: Cache) -> None:
    check_error(raw([("u1", 1, 4), (None, 2, 4)]), cache, "1 rows have no user_id")


def test_a_repeated_book_id(raw: Raw, cache: Cache) -> None:
    root = raw()
    rewrite(
        root / "reduced_books.parquet",
        lambda t: pa.concat_tables([t, t.filter(pc.equal(t["book_id"], 5))]),
    )
    check_error(
        root, cache, "reduced_books.parquet: 1 values of book_id are in several rows (first: 5)"
    )


@pytest.mark.parametrize("damage", ["truncated", "not parquet", "flipped"])
def test_a_corrupt_file(raw: Raw, cache: Cache, damage: str) -> None:
    root = raw()
    file = root / "reduced_books.parquet"
    data = bytearray(file.read_bytes())
    if damage == "flipped":  # the footer's length
        data[-8] ^= 0xFF
    file.write_bytes(
        {"truncated": data[: len(data) // 2], "not parquet": b"hello", "flipped": data}[damage]
    )
    check_error(root, cache, "reduced_books.parquet: not a readable parquet file")


def test_a_flipped_byte_in_a_later_row_group_is_detected(raw: Raw, cache: Cache) -> None:
    root = raw()
    file = root / "reduced_interactions.parquet"
    pq.write_table(pq.read_table(file), file, row_group_size=200, write_page_checksum=True)
    column = pq.read_metadata(file).row_group(2).column(1)
    data = bytearray(file.read_bytes())
    data[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    file.write_bytes(data)
    assert len(next(bookdb.ratings(root, 200))) == 200  # the first row group is valid
    check_error(
        root, cache, "reduced_interactions.parquet: not a readable parquet file, row group 2 of 3"
    )


def test_too_few_ratings_per_user(raw: Raw, cache: Cache) -> None:
    root = raw([("u1", 1, 4), ("u2", 2, 4)])
    check_error(root, cache, "none of 2 users has 4 rated books", "data.min_ratings")


def test_ratings_of_unknown_books_only(raw: Raw, cache: Cache) -> None:
    check_error(raw([("u1", 999, 4)]), cache, "none of 0 users has 4 rated books of the catalogue")


def test_too_few_users_for_three_splits(raw: Raw, cache: Cache) -> None:
    check_error(
        raw([("u1", b, 4) for b in range(1, 9)]), cache, "1 users leave no", "data.dev_fraction"
    )
