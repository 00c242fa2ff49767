"""Published files stream, plain or gzipped; bad lines are counted, and too many of them stop the reading."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from reranker.data.sources import published_files
from reranker.data.sources.csv_ratings import numbers
from reranker.data.sources.published_files import Lines
from reranker.errors import DataError
from tests.helpers.published import write


def csv_of(
    path: Path, data: bytes, *, batch_rows: int = 1000
) -> tuple[list[dict[str, str]], Lines]:
    path.write_bytes(data)
    lines = Lines(path)
    rows = [
        row
        for b in published_files.csv_batches(path, ["b", "a"], lines, batch_rows=batch_rows)
        for row in b.to_pylist()
    ]
    return rows, lines


def test_a_large_csv_gives_its_columns_by_name_without_byte_order_mark_or_empty_words(
    tmp_path: Path,
) -> None:
    rows, lines = csv_of(tmp_path / "x.csv", b"\xef\xbb\xbfa,c,b\r\n1,9,2\r\nNaN,9,\r\n")
    assert rows == [{"b": "2", "a": "1"}, {"b": None, "a": None}]
    assert (lines.n, lines.n_bad) == (2, 0)


def test_a_row_with_other_fields_is_counted_and_an_open_quote_takes_one_row_alone(
    tmp_path: Path,
) -> None:
    rows, lines = csv_of(tmp_path / "x.csv", b"a,b\n" + b'1,"2\n' + b"3\n" + b"4,5\n" * 200)
    assert [rows[0], len(rows)] == [{"b": '"2', "a": "1"}, 201]
    assert (lines.n, lines.n_bad) == (202, 1)
    assert lines.first == "line 3: 1 fields in place of 2"


def test_more_than_one_bad_line_in_a_hundred_stops_the_reading(tmp_path: Path) -> None:
    csv_of(tmp_path / "x.csv", b"a,b\n" + b"3\n" + b"4,5\n" * 99)
    with pytest.raises(
        DataError, match=r"1 of 99 lines are malformed, more than 1 % \(first: line 2: 1 fields"
    ):
        csv_of(tmp_path / "x.csv", b"a,b\n" + b"3\n" + b"4,5\n" * 98)


@pytest.mark.parametrize("data", [b"", b"a,c\n1,2\n"])
def test_a_missing_column_names_what_was_found(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="missing column b"):
        csv_of(tmp_path / "x.csv", data)


def test_memory_of_a_csv_follows_batch_rows_and_not_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_files, "MIN_BLOCK", 1 << 12)
    n = 400_000
    path = write(tmp_path / "x.csv", "user_id,book_id,rating\n" + "10,20,5\n" * n, gz=False)
    before, peak, n_rows = pa.total_allocated_bytes(), 0, 0
    for batch in published_files.csv_batches(
        path, ["user_id", "book_id", "rating"], Lines(path), batch_rows=1000
    ):
        assert batch.num_rows <= 1000
        n_rows += batch.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert n_rows == n
    # pyarrow reads up to 32 blocks ahead, .13 MB of 4 kB; how far depends on its threads, so one bound for any timing
    assert peak < 500_000 < path.stat().st_size / 6


def test_numbers_do_not_depend_on_what_stands_beside_them() -> None:
    texts = [
        "5",
        "5.0",
        " 5 ",
        '"5"',
        "-5",
        "0x1F",
        "5.5",
        "x",
        "1e3",
        "9" * 18,
        "9" * 19,
        "",
        " ",
        "NaN",
        "null",
        None,
    ]
    value, nothing = numbers(pa.array(texts))
    assert value.tolist() == [5, 5, 5, 5, -5, -1, -1, -1, -1, 10**18 - 1, -1, -1, -1, -1, -1, -1]
    assert nothing.tolist() == [False] * 11 + [True] * 5
    for text, v, n in zip(texts, value, nothing, strict=True):
        alone = numbers(pa.array([text], pa.string()))
        assert (alone[0][0], alone[1][0]) == (v, n), text


def test_bytes_that_are_not_utf_8_are_no_numbers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n\xff1,2\n3,4\n")
    batch = next(iter(published_files.csv_batches(path, ["a", "b"], Lines(path), batch_rows=1000)))
    assert numbers(batch["a"])[0].tolist() == [-1, 3]


def test_json_lines_survive_blank_lines_a_byte_order_mark_and_bytes_that_are_not_utf_8(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xff\xf0\x9f\x93\x9a"}\n' + b'{"a": 2}\n' * 98 + b"{}"
    )
    lines = Lines(path)
    rows = list(published_files.json_rows(path, lines))
    assert [row["a"] for row in rows[:3]] == [1, "\ufffd📚", 2]
    assert (lines.n, lines.n_bad, lines.first) == (
        101,
        1,
        "line 102: not a JSON object with fields",
    )
