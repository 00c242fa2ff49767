"""Raw tables are checked when they are read; errors name the file, the column or the row."""

from __future__ import annotations

import dataclasses
from collections import Counter
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
from reranker.data.sources.parquet_files import digest_table, parts
from reranker.data.sources.rating_rules import RatingRules
from reranker.errors import DataError
from tests.conftest import some_ratings

Raw = Callable[..., Path]


def check_error(root: Path, cache: Cache, *texts: str) -> None:
    """Check that loading raises a DataError with these texts and leaves no file in the cache."""
    with pytest.raises(DataError) as error:
        load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert all(text in str(error.value) for text in texts), str(error.value)
    assert not [p for p in cache.root.rglob("*") if p.is_file() and p.suffix != ".lock"]


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(file)), file)


def replace(file: Path, column: str, values: pa.Array) -> None:
    """Replace a column of a file, or add it at the end."""
    table = pq.read_table(file)
    at = table.schema.get_field_index(column)
    changed = table.set_column(at, column, values) if at >= 0 else None
    pq.write_table(changed or table.append_column(column, values), file)


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


def test_a_wrong_id_dtype_is_an_error(raw: Raw, cache: Cache) -> None:
    root = raw()
    replace(root / "reduced_interactions.parquet", "book_id", pa.array([True] * 600))
    message = "reduced_interactions.parquet: column book_id must be an integer"
    check_error(root, cache, message, "but is bool")


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


def test_an_id_beyond_64_bits(raw: Raw, cache: Cache) -> None:
    root = raw([("a", 1, 4)])
    ids = pa.array([2**63], pa.uint64())
    replace(root / "reduced_interactions.parquet", "book_id", ids)
    check_error(root, cache, "column book_id must be an integer (64-bit)", "9223372036854775808")


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


def test_a_column_name_twice_is_an_error(raw: Raw, cache: Cache) -> None:
    root = raw()
    table = pq.read_table(root / "reduced_interactions.parquet")
    twice = table.append_column("rating", table["rating"])
    pq.write_table(twice, root / "reduced_interactions.parquet")
    check_error(root, cache, "reduced_interactions.parquet: 2 columns are named rating")


def test_rows_without_user_or_book_are_dropped_and_counted(raw: Raw, cache: Cache) -> None:
    rows = [*some_ratings(), (None, 2, 4), ("", 3, 4), ("u", None, 4), (None, None, 9)]
    tables = load_tables(DataConfig(name="bookdb", root=str(raw(rows))), cache)
    assert (tables.counts["ratings_in"], tables.counts["ratings"]) == (604, 600)
    assert tables.counts["ratings_dropped_no_user_id"] == 3
    assert tables.counts["ratings_dropped_no_book_id"] == 1
    clean = load_tables(DataConfig(name="bookdb", root=str(raw())), cache)
    assert "ratings_dropped_no_user_id" not in clean.counts
    assert tables.digest == clean.digest


def test_a_file_without_usable_rows_is_an_error_with_the_reasons(raw: Raw, cache: Cache) -> None:
    message = "none of 2 rows can be used (ratings_dropped_no_user_id=2)"
    check_error(raw([("", 1, 4), (None, 2, 4)]), cache, message)


def test_a_null_book_id_of_a_book_is_an_error(raw: Raw, cache: Cache) -> None:
    root = raw()
    replace(root / "reduced_books.parquet", "book_id", pa.array([None, *range(2, 41)]))
    check_error(root, cache, "reduced_books.parquet: 1 rows have no book_id")


@pytest.mark.parametrize(
    ("factor", "unit"),
    [(10**3, "milliseconds"), (10**6, "microseconds"), (10**9, "nanoseconds")],
)
def test_times_in_another_unit_are_refused_with_a_hint(
    raw: Raw, cache: Cache, factor: int, unit: str
) -> None:
    root = raw([("a", 1, 4, 0), ("b", 2, 4, 1_509_662_491 * factor)])
    texts = (
        f"user_id=b, book_id=2, timestamp={1_509_662_491 * factor}",
        f"divide them by {factor}",
    )
    check_error(root, cache, "1 rows have a timestamp after the year 2100", unit, *texts)


@pytest.mark.parametrize(
    "times", [pa.nulls(600), pa.nulls(600, pa.int64()), pa.nulls(600, pa.timestamp("ns"))]
)
def test_null_timestamps_are_missing_timestamps(raw: Raw, cache: Cache, times: pa.Array) -> None:
    root = raw()
    clean = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    replace(root / "reduced_interactions.parquet", "timestamp", times)
    again = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert not again.hit
    assert again.digest == clean.digest


def test_ids_of_other_types_are_read_as_one_type_and_counted(raw: Raw, cache: Cache) -> None:
    """Integer users, books as texts in one file and doubles in another, unsigned authors."""
    rows = [(str(10_000 + i % 60), b, r) for i, (_, b, r) in enumerate(some_ratings())]
    root = raw(rows, texts={1: "given"})
    expected = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    types = {
        "reduced_interactions.parquet": {"user_id": pa.int64(), "book_id": pa.string()},
        "reduced_books.parquet": {"book_id": pa.float64(), "authors": pa.list_(pa.uint16())},
        "new_authors.parquet": {"author_id": pa.int8()},
        "book_texts_reduced.parquet": {"book_id": pa.uint64()},
    }
    for file, changes in types.items():
        for column, dtype in changes.items():
            values = pq.read_table(root / file)[column].cast(dtype)
            replace(root / file, column, values)
    found = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert not found.hit
    assert found.digest == expected.digest
    assert {k: n for k, n in found.counts.items() if "_from_" in k} == {
        "books_book_id_from_float": 40,
        "books_authors_from_integer_list": 40,
        "authors_author_id_from_integer": 7,
        "ratings_user_id_from_integer": 600,
        "ratings_book_id_from_text": 600,
    }


def test_without_descriptions_and_texts_all_texts_are_rendered(raw: Raw, cache: Cache) -> None:
    root = raw(texts={1: "given"})
    rewrite(root / "reduced_books.parquet", lambda t: t.drop(["description"]))
    (root / "book_texts_reduced.parquet").unlink()
    tables = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert tables.books["book_text"][2] == "Title: Book 3 | Authors: Author 3"
    assert (tables.books["description"] == "").all()
    assert (tables.counts["books"], tables.counts["books_with_given_text"]) == (40, 0)


def write_parts(file: Path, names: list[str]) -> None:
    """Replace a file by a folder with its rows in part files, in the order of the names."""
    table = pq.read_table(file)
    file.unlink()
    file.mkdir()
    size = -(-len(table) // len(names))
    for i, name in enumerate(names):
        pq.write_table(table.slice(i * size, size), file / name)


def test_a_folder_of_part_files_is_read_as_one_file(raw: Raw, cache: Cache) -> None:
    root = raw([(u, b, r, i) for i, (u, b, r) in enumerate(some_ratings())], texts={1: "given"})
    expected = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    rows = pa.concat_tables(bookdb.ratings(root, 1000))
    dask = [f"part.{i}.parquet" for i in range(12)]
    spark = [f"part-{i:05}-8b2f.c000.snappy.parquet" for i in range(3)]
    write_parts(root / "reduced_interactions.parquet", dask)
    for name in ("reduced_books", "new_authors", "book_texts_reduced"):
        write_parts(root / f"{name}.parquet", spark)
        for other in ("_SUCCESS", "_metadata", ".part-0.parquet.crc", "_common_metadata"):
            (root / f"{name}.parquet" / other).write_bytes(b"not parquet")
    assert pa.concat_tables(bookdb.ratings(root, 1000)).equals(rows)
    found = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert not found.hit
    assert found.digest == expected.digest


def test_every_part_belongs_to_the_digest(raw: Raw, cache: Cache) -> None:
    root = raw()
    file = root / "reduced_interactions.parquet"
    write_parts(file, [f"part.{i}.parquet" for i in range(11)])
    digests = [digest_table(file)]
    for part in parts(file):
        rewrite(part, lambda t: t.slice(1))
        digests.append(digest_table(file))
    assert len(set(digests)) == 12


def test_parts_may_have_other_types_and_lack_optional_columns(raw: Raw) -> None:
    root = raw([("7", b, 4, b) for b in range(1, 5)])
    file = root / "reduced_interactions.parquet"
    write_parts(file, ["part.2.parquet", "part.10.parquet"])
    replace(file / "part.2.parquet", "user_id", pa.array([7, 7]))
    rewrite(file / "part.10.parquet", lambda t: t.drop(["timestamp"]))
    table = pa.concat_tables(bookdb.ratings(root, 1000))
    assert table["user_id"].to_pylist() == ["7"] * 4
    assert table["timestamp"].to_pylist() == [1, 2, 0, 0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "expected part files (*.parquet), found none"),
        (["lang=en/part.0.parquet"], "found the subfolder lang=en"),
        (["part.0.parquet"], "reduced_books.parquet/part.0.parquet: missing column title"),
    ],
)
def test_errors_of_part_files_name_the_part(
    raw: Raw, cache: Cache, names: list[str], message: str
) -> None:
    root = raw()
    (root / "reduced_books.parquet").unlink()
    for name in names:
        part = root / "reduced_books.parquet" / name
        part.parent.mkdir(parents=True)
        pq.write_table(pa.table({"book_id": [1]}), part)
    (root / "reduced_books.parquet").mkdir(exist_ok=True)
    check_error(root, cache, message)


def read_ratings(root: Path, rules: RatingRules) -> tuple[list[float], dict[str, int]]:
    counts: Counter[str] = Counter()
    table = pa.concat_tables(bookdb.ratings(root, 1000, rules, counts))
    return table["rating"].to_pylist(), dict(counts)


@pytest.mark.parametrize(
    ("rules", "ratings", "out", "counts"),
    [
        (RatingRules((0.5, 5)), [0.5, 4.5], [0.5, 4.5], {}),
        (RatingRules((1, 10)), [1, 10], [1, 10], {}),
        (RatingRules((0, 10), "rating"), [0, 10], [0, 10], {}),
        (RatingRules((0, 10), "unrated"), [0, 10, None], [10], {"ratings_dropped_no_rating": 2}),
        (RatingRules((1, 5), "unrated"), [0, 3], [3], {"ratings_dropped_no_rating": 1}),
        (RatingRules(None, implicit=4), [0, None, 9], [4, 4, 4], {"ratings_implicit": 3}),
    ],
)
def test_rating_rules(
    raw: Raw, rules: RatingRules, ratings: list[object], out: list[float], counts: dict[str, int]
) -> None:
    root = raw([("a", 1, 4)] * len(ratings))
    replace(root / "reduced_interactions.parquet", "rating", pa.array(ratings, pa.float64()))
    assert read_ratings(root, rules) == (out, counts)


@pytest.mark.parametrize(
    ("rules", "rating", "message"),
    [
        (RatingRules((1, 10)), 11, "outside 1..10 .*rating=11.*set data.rating_range"),
        (RatingRules((0.5, 5)), 0.25, r"outside 0.5..5 .*rating=0.25"),
        (RatingRules((1, 5)), 0, r"outside 1..5 .*data.zero_rating=unrated\.$"),
        (RatingRules((0, 10)), 0, r"a rating of 0 .*unrated\. .*data.zero_rating=rating\.$"),
        (RatingRules((0, 10), "rating"), None, "outside 0..10 .*rating=None"),
    ],
)
def test_a_rating_that_the_rules_exclude(
    raw: Raw, rules: RatingRules, rating: float | None, message: str
) -> None:
    root = raw([("a", 1, 4), ("b", 2, 4)])
    values = pa.array([4, rating], pa.float64())
    replace(root / "reduced_interactions.parquet", "rating", values)
    with pytest.raises(DataError, match=message):
        read_ratings(root, rules)


def test_without_ratings_every_book_of_a_user_is_a_positive(raw: Raw, cache: Cache) -> None:
    root = raw()
    cfg = DataConfig(name="bookdb", root=str(root), rating_range=None)
    ignored = load_tables(cfg, cache)
    rewrite(root / "reduced_interactions.parquet", lambda t: t.drop(["rating"]))
    tables = load_tables(cfg, cache)
    assert (tables.histories["rating"] == 4).all()
    assert sum(len(tables.positives(split)) for split in ("train", "dev", "test")) == 300
    assert tables.digest == ignored.digest
    assert tables.counts["ratings_implicit"] == 600


def test_other_rating_rules_are_other_tables(raw: Raw, cache: Cache) -> None:
    cfg = DataConfig(name="bookdb", root=str(raw()))
    changes = (
        {},
        {"rating_range": [1.0, 10.0]},
        {"rating_range": None},
        {"zero_rating": "unrated"},
    )
    digests = {load_tables(dataclasses.replace(cfg, **c), cache).digest for c in changes}
    assert len(digests) == len(changes)
