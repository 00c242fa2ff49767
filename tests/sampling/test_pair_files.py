"""Pairs files of any origin give the same rows; what cannot be read is named."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.errors import ConfigError, DataError
from reranker.sampling.pair_files import BATCH_ROWS, read_pairs

Columns = dict[str, Any]


def columns(n: int = 3, **changes: Any) -> Columns:
    """Return the columns of n pairs; a change of None removes a column."""
    all_columns = {
        "user_id": [f"u{i}" for i in range(n)],
        "user_ctx": [f"context {i}" for i in range(n)],
        "book_id": list(range(n)),
        "book_text": [f"book {i}" for i in range(n)],
        "label": [i % 2 for i in range(n)],
    }
    return {name: v for name, v in {**all_columns, **changes}.items() if v is not None}


def write(path: Path, n: int = 3, **changes: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns(n, **changes)), path)
    return path


def rows(place: str | Path, counts: Counter[str] | None = None, **options: Any) -> Columns:
    pairs = read_pairs(place, **options)
    tables = [pairs.schema.empty_table(), *pairs.tables(counts)]
    return pa.concat_tables(tables).to_pydict()


def values(path: Path, name: str, found: Any) -> list[Any]:
    return rows(write(path, len(found), **{name: found}))[name]


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    pa.binary(),
    pa.large_binary(),
    pa.dictionary(pa.int32(), pa.string()),
]
NUMBER_TYPES = [pa.int8(), pa.int64(), pa.uint32(), pa.float32(), pa.float64()]
LABEL_TYPES = [pa.bool_(), *NUMBER_TYPES, pa.decimal128(3, 1), *TEXT_TYPES]
TEXTS = st.sampled_from(["", " ", "\t\u00a0", "a", "Dune", "é", "0061120081", "nan"])
IDS = st.none() | st.integers(0, 100) | TEXTS
ROW = st.tuples(IDS, st.none() | TEXTS, IDS, st.none() | TEXTS, st.none() | st.integers(0, 1))


def stored(column: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_boolean(kind):
        return pa.array([v if v is None else bool(v) for v in column], kind)
    if pa.types.is_decimal(kind):
        return pa.array([v if v is None else Decimal(v) for v in column], kind)
    if kind in NUMBER_TYPES:
        return pa.array(column, kind)
    return pa.array([v if v is None else str(v) for v in column], pa.string()).cast(kind)


def is_missing(value: Any) -> bool:
    return value is None or not str(value).strip()


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_storage_types_and_parts_do_not_change_the_rows(data: st.DataObject) -> None:
    pairs = data.draw(st.lists(ROW, max_size=30))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(pairs)), max_size=3)))
    names = list(columns())
    with tempfile.TemporaryDirectory() as temp:
        for i, (low, high) in enumerate(zip([0, *cuts], [*cuts, len(pairs)], strict=True)):
            part = [[row[c] for row in pairs[low:high]] for c in range(5)]
            numeric = [all(v is None or isinstance(v, int) for v in column) for column in part]
            kinds = [data.draw(st.sampled_from(TEXT_TYPES)) for _ in names]
            for c in (0, 2):
                if numeric[c]:
                    kinds[c] = data.draw(st.sampled_from(NUMBER_TYPES + TEXT_TYPES))
            kinds[4] = data.draw(st.sampled_from(LABEL_TYPES))
            arrays = [stored(column, kind) for column, kind in zip(part, kinds, strict=True)]
            pq.write_table(pa.table(arrays, names=names), Path(temp, f"part.{i}.parquet"))
        counts: Counter[str] = Counter()
        found = rows(temp, counts)
    needed = [0, 1, 3, 4]
    first = [next((names[c] for c in needed if is_missing(row[c])), None) for row in pairs]
    kept = [row for row, reason in zip(pairs, first, strict=True) if reason is None]
    expected = [[row[c] if row[c] is None else str(row[c]) for row in kept] for c in range(4)]
    assert [found[name] for name in names[:4]] == expected
    assert found["label"] == [row[4] for row in kept]
    assert counts["pairs_in"] == len(pairs)
    for c in needed:
        assert counts[f"pairs_dropped_no_{names[c]}"] == first.count(names[c])
    for c, name in enumerate(names):
        assert counts[f"null_{name}"] == sum(row[c] is None for row in pairs)
        blank = sum(row[c] is not None and is_missing(row[c]) for row in pairs)
        assert counts[f"blank_{name}"] == blank


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ([7, 8], ["7", "8"]),
        ([-7.0, 8.0], ["-7", "8"]),
        (pa.array([2**64 - 1], pa.uint64()), [str(2**64 - 1)]),
        ([Decimal("7"), Decimal("123456789012345678901234567890")],
         ["7", "123456789012345678901234567890"]),
        (["0061120081", "7.0", " 7"], ["0061120081", "7.0", " 7"]),
        (pa.array([7, 7]).dictionary_encode(), ["7", "7"]),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["user_id", "book_id"])
def test_ids_are_text(name: str, found: Any, expected: list[str], tmp_path: Path) -> None:
    assert values(tmp_path / "a.parquet", name, found) == expected


def test_nan_is_null(tmp_path: Path) -> None:
    counts: Counter[str] = Counter()
    path = write(tmp_path / "a.parquet", user_id=[7.0, float("nan"), 9.0], label=[1.0, 0.0, None])
    assert rows(path, counts)["user_id"] == ["7"]
    assert counts["pairs_dropped_no_user_id"] == counts["pairs_dropped_no_label"] == 1


@pytest.mark.parametrize(
    ("name", "found", "message"),
    [
        ("label", [0, 1, 2], "label of row 2 is '2'; expected 0 or 1"),
        ("label", [0.0, 0.5, 1.0], "label of row 1 is '0.5'; expected 0 or 1"),
        ("label", ["1", "yes", "0"], "label of row 1 is 'yes'; expected '0' or '1'"),
        ("label", [float("inf"), 0.0, 1.0], "label of row 0 is 'inf'"),
        ("user_id", [1.0, 7.5, None], "user_id of row 1 is '7.5'; expected an integer or text"),
        ("book_id", [1.0, 1e300, None], r"book_id of row 1 is '1e\+300'"),
        ("user_id", [Decimal("1.0"), Decimal("7.5"), None], "user_id of row 1 is '7.5'"),
        ("book_text", [b"a", b"\xff\xfe", b"c"], "book_text of row 1 .* expected text in UTF-8"),
        ("user_ctx", [1, 2, 3], "column user_ctx is int64; expected text"),
        ("label", [[1], [0], [1]], "column label is list<.*int64>; expected 0 and 1"),
        ("book_text", [True, False, True], "column book_text is bool; expected text"),
        ("user_id", [True, False, True], "column user_id is bool; expected integers or text"),
    ],
)
def test_the_error_of_a_wrong_value_names_its_place(
    name: str, found: Any, message: str, tmp_path: Path
) -> None:
    write(tmp_path / "part.0.parquet")
    write(tmp_path / "part.1.parquet", **{name: found})
    with pytest.raises(DataError, match=rf"part\.1\.parquet: {message}"):
        rows(tmp_path)


def test_rows_of_errors_count_from_the_start_of_the_file(tmp_path: Path) -> None:
    label = [0] * BATCH_ROWS + [1, 1, 7]
    path = write(tmp_path / "a.parquet", len(label), label=label)
    with pytest.raises(DataError, match=f"label of row {BATCH_ROWS + 2} is '7'"):
        rows(path)


def test_large_files_are_read_in_batches(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", 2 * BATCH_ROWS + 1)
    assert max(table.num_rows for table in read_pairs(path).tables()) == BATCH_ROWS
    assert len(rows(path)["label"]) == 2 * BATCH_ROWS + 1


def test_parts_are_in_natural_order_and_bookkeeping_is_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "pairs"
    for i in (10, 2, 1):
        write(folder / f"part.{i}.parquet", 1, user_id=[f"u{i}"])
    for name in ("_SUCCESS", "_metadata", "_manifest.json", ".part.1.parquet.crc", ".hidden"):
        (folder / name).write_text("no parquet")
    write(folder / "_temporary" / "0" / "part.3.parquet")
    write(folder / "other" / "part.4.parquet")
    (folder / "README").write_text("notes")
    assert rows(folder)["user_id"] == ["u1", "u2", "u10"]
    assert read_pairs(folder).ignored == [folder / "README"]
    assert rows(folder, parts=[0, 2])["user_id"] == ["u1", "u10"]
    assert rows(folder, parts=[2, 0])["user_id"] == ["u10", "u1"]


def test_names_of_spark_dask_and_globs(tmp_path: Path) -> None:
    first = write(tmp_path / "a" / "part-00000-1c.c000.snappy.parquet", 1, user_id=["a"])
    write(tmp_path / "b" / "part-00000", 1, user_id=["b"])
    write(tmp_path / "c[1].parquet", 1, user_id=["c"])
    assert rows(tmp_path / "b")["user_id"] == ["b"]
    assert rows(tmp_path / "?")["user_id"] == ["a", "b"]
    assert rows(tmp_path / "*" / "part-*")["user_id"] == ["a", "b"]
    assert rows(tmp_path / "**")["user_id"] == ["a", "b", "c"]  # folders and their files: once
    assert rows(tmp_path / "c[1].parquet")["user_id"] == ["c"]  # a name, not a pattern
    both = read_pairs(tmp_path / "b", tmp_path / "a", tmp_path / "a")  # as a shell expands "?"
    assert [part.path.parent.name for part in both.parts] == ["a", "b"]
    (tmp_path / "link.parquet").symlink_to(first)
    assert rows(tmp_path / "**" / "*.parquet")["user_id"] == ["a", "c"]


def test_columns_in_the_names_of_folders(tmp_path: Path) -> None:
    table = pa.table(columns(4, user_id=["u/1", "u/1", None, "7"]))
    pa.dataset.write_dataset(
        table,
        tmp_path / "pairs",
        format="parquet",
        partitioning=["user_id", "label"],
        partitioning_flavor="hive",
    )
    counts: Counter[str] = Counter()
    found = rows(tmp_path / "pairs", counts)
    assert sorted(zip(found["user_id"], found["label"], found["book_text"], strict=True)) == [
        ("7", 1, "book 3"),
        ("u/1", 0, "book 0"),
        ("u/1", 1, "book 1"),
    ]
    assert counts["pairs_dropped_no_user_id"] == 1


def test_home_and_relative_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "pairs" / "a.parquet")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    for place in ("~/pairs", "~/pairs/*.parquet", "pairs", "pairs/a.parquet", "./p*"):
        assert len(rows(place)["label"]) == 3


@pytest.mark.parametrize("numbers", [[3], [0, -1], [0, 0], []])
def test_wrong_positions_of_parts_are_refused(numbers: list[int], tmp_path: Path) -> None:
    for i in range(3):
        write(tmp_path / f"part.{i}.parquet")
    with pytest.raises(ConfigError, match=r"has 3 parts \(0 to 2\)"):
        read_pairs(tmp_path, parts=numbers)


def test_book_id_is_optional_but_the_same_in_all_parts(tmp_path: Path) -> None:
    write(tmp_path / "part.0.parquet", book_id=None)
    assert list(rows(tmp_path)) == ["user_id", "user_ctx", "book_text", "label"]
    write(tmp_path / "part.1.parquet")
    with pytest.raises(DataError, match=r"part\.0\.parquet has no column book_id, but .*part\.1"):
        read_pairs(tmp_path)


@pytest.mark.parametrize("name", ["user_id", "user_ctx", "book_text", "label"])
def test_a_missing_column_is_named(name: str, tmp_path: Path) -> None:
    write(tmp_path / "part.0.parquet")
    write(tmp_path / "part.1.parquet", **{name: None})
    with pytest.raises(DataError, match=rf"part\.1\.parquet has no column {name}; it has "):
        read_pairs(tmp_path)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("missing", "does not exist"),
        ("", "does not exist"),
        ("*.csv", "does not exist"),
        ("empty", "has no parquet file; found no files"),
        ("texts", r"has no parquet file; found a\.txt"),
        ("cut.parquet", "cannot be read as parquet"),
        ("texts/a.txt", "cannot be read as parquet"),
        ("dead.parquet", r"dead\.parquet cannot be read as parquet"),
        ("dead*", r"dead\.parquet cannot be read"),
        ("late.parquet", "cannot be read as parquet"),
        ("double.parquet", "has several columns named label"),
        ("s3://bucket/pairs", "reranker data pull"),
    ],
)
def test_what_cannot_be_read_is_named(
    place: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    whole = write(tmp_path / "whole.parquet", 2_000)
    data = whole.read_bytes()
    Path("cut.parquet").write_bytes(data[:-100])
    Path("late.parquet").write_bytes(b"PAR1" + b"\xff" * 500 + data[504:])
    Path("empty").mkdir()
    Path("texts").mkdir()
    Path("texts/a.txt").write_text("user_id,label")
    Path("dead.parquet").symlink_to("nowhere")
    labels = pa.table([*columns().values(), [1, 0, 1]], names=[*columns(), "label"])
    pq.write_table(labels, "double.parquet")
    with pytest.raises(DataError, match=message) as caught:
        rows(place)
    assert "\n" not in str(caught.value)


def test_the_digest_depends_on_content_and_order_only(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for i in range(2):
            write(tmp_path / name / f"part.{i}.parquet", user_id=[f"u{i}", "v", "w"])
    os.rename(tmp_path / "b" / "part.1.parquet", tmp_path / "b" / "part.7.parquet")
    one, other = (read_pairs(tmp_path / name).digest for name in ("a", "b"))
    assert one == other
    assert read_pairs(tmp_path / "a", parts=[1, 0]).digest != one
    assert read_pairs(tmp_path / "a", parts=[0]).digest != one
    write(tmp_path / "b" / "part.7.parquet", user_id=["u1", "v", "x"])
    assert read_pairs(tmp_path / "b").digest != one
