"""Published files are streamed; malformed lines are counted, and too many are an error."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from reranker.data.sources import published_files
from reranker.data.sources.csv_ratings import parse_integers
from reranker.data.sources.published_files import LineCounter
from reranker.errors import DataError
from tests.helpers.published import write


def read_csv(path: Path, data: bytes) -> tuple[list[dict[str, str]], LineCounter]:
    """Write a CSV file and return its columns b and a, read in batches."""
    path.write_bytes(data)
    lines = LineCounter(path)
    batches = published_files.csv_batches(path, ["b", "a"], lines, batch_rows=1000)
    return [row for batch in batches for row in batch.to_pylist()], lines


def test_csv_columns_are_read_by_name_without_byte_order_mark_and_null_words(
    tmp_path: Path,
) -> None:
    rows, lines = read_csv(tmp_path / "x.csv", b"\xef\xbb\xbfa,c,b\r\n1,9,2\r\nNaN,9,\r\n")
    assert rows == [{"b": "2", "a": "1"}, {"b": None, "a": None}]
    assert (lines.n, lines.n_bad) == (2, 0)


def test_a_wrong_number_of_fields_is_counted_and_an_unclosed_quote_affects_one_row(
    tmp_path: Path,
) -> None:
    rows, lines = read_csv(tmp_path / "x.csv", b"a,b\n" + b'1,"2\n' + b"3\n" + b"4,5\n" * 200)
    assert [rows[0], len(rows)] == [{"b": '"2', "a": "1"}, 201]
    assert (lines.n, lines.n_bad) == (202, 1)
    assert lines.first == "line 3: 1 fields instead of 2"


def test_more_than_one_percent_of_malformed_lines_is_an_error(tmp_path: Path) -> None:
    read_csv(tmp_path / "x.csv", b"a,b\n" + b"3\n" + b"4,5\n" * 99)
    with pytest.raises(
        DataError, match=r"1 of 99 lines are malformed, more than 1 % \(first: line 2: 1 fields"
    ):
        read_csv(tmp_path / "x.csv", b"a,b\n" + b"3\n" + b"4,5\n" * 98)


@pytest.mark.parametrize("data", [b"", b"a,c\n1,2\n"])
def test_a_missing_column_is_an_error(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(DataError, match="missing column b"):
        read_csv(tmp_path / "x.csv", data)


def test_memory_depends_on_batch_rows_and_not_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(published_files, "MIN_BLOCK", 1 << 12)
    n = 400_000
    path = write(tmp_path / "x.csv", "user_id,book_id,rating\n" + "10,20,5\n" * n, gz=False)
    before, peak, n_rows = pa.total_allocated_bytes(), 0, 0
    columns = ["user_id", "book_id", "rating"]
    for batch in published_files.csv_batches(path, columns, LineCounter(path), batch_rows=1000):
        assert batch.num_rows <= 1000
        n_rows += batch.num_rows
        peak = max(peak, pa.total_allocated_bytes() - before)
    assert n_rows == n
    # pyarrow reads up to 32 blocks of 4 kB ahead: .13 MB. The number depends on the timing of its
    # threads, and the bound holds for any timing.
    assert peak < 500_000 < path.stat().st_size / 6


def test_integers_do_not_depend_on_the_other_values_of_the_column() -> None:
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
    value, missing = parse_integers(pa.array(texts))
    assert value.tolist() == [5, 5, 5, 5, -5, -1, -1, -1, -1, 10**18 - 1, -1, -1, -1, -1, -1, -1]
    assert missing.tolist() == [False] * 11 + [True] * 5
    for text, v, m in zip(texts, value, missing, strict=True):
        single = parse_integers(pa.array([text], pa.string()))
        assert (single[0][0], single[1][0]) == (v, m), text


def test_bytes_that_are_not_utf8_are_not_integers(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_bytes(b"a,b\n\xff1,2\n3,4\n")
    batches = published_files.csv_batches(path, ["a", "b"], LineCounter(path), batch_rows=1000)
    batch = next(iter(batches))
    assert parse_integers(batch["a"])[0].tolist() == [-1, 3]


def test_json_lines_may_have_blank_lines_a_byte_order_mark_and_invalid_utf8(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(
        b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xff\xf0\x9f\x93\x9a"}\n' + b'{"a": 2}\n' * 98 + b"{}"
    )
    lines = LineCounter(path)
    rows = list(published_files.json_rows(path, lines))
    assert [row["a"] for row in rows[:3]] == [1, "\ufffd📚", 2]
    assert (lines.n, lines.n_bad) == (101, 1)
    assert lines.first == "line 102: not a JSON object with fields"
