"""Published files as they lie in a folder: found, plain or gzipped, streamed, their bad lines counted."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv

from reranker.errors import DataError

BAD_FRACTION = 0.01  # of a file's lines; with more, the file is another or was damaged on its way
EMPTY = [
    "",
    "NaN",
    "nan",
    "NULL",
    "null",
    "None",
]  # fields that are null at once; `numbers` knows other spellings
ROW_BYTES = 16  # of a CSV row of ids and stars
N_BLOCKS = 32  # that pyarrow reads ahead: together they hold `batch_rows` rows
MIN_BLOCK = 1 << 18  # bytes; a row must fit into one block


def find(root: Path, name: str) -> Path | None:
    """The file `name` or `name.gz` of a folder; None where neither is there.

    Raises:
        DataError: Both are there.
    """
    found = [p for p in (root / name, root / f"{name}.gz") if p.is_file()]
    if len(found) > 1:
        raise DataError(f"{root}: {name} and {name}.gz are both there; keep one of them.")
    return found[0] if found else None


def find_all(root: Path, pattern: str) -> list[Path]:
    """The files that match `pattern` or `pattern.gz`, sorted by name.

    Raises:
        DataError: A file is there both plain and gzipped.
    """
    names = {
        p.name.removesuffix(".gz")
        for p in (*root.glob(pattern), *root.glob(f"{pattern}.gz"))
        if p.is_file()
    }
    return [path for name in sorted(names) if (path := find(root, name))]


def missing(root: Path, names: list[str], source: str) -> DataError:
    """The error of a folder that lacks these files of a source; it names what the folder holds."""
    if not root.is_dir():
        return DataError(
            f"data.root={str(root)!r} is not a folder; it must hold the published files of data={source}."
        )
    found = ", ".join(sorted(p.name for p in root.iterdir() if p.is_file())[:20])
    return DataError(
        f"{root}: missing {', '.join(names)} (or .gz) of data={source}; found {found or 'no file'}."
    )


@dataclass
class Lines:
    """How many lines of a file were read, how many of them were bad, and which was the first."""

    path: Path
    n: int = 0
    n_bad: int = 0
    first: str = ""

    def reject(self, number: int | None, why: str, *, n: int = 1) -> None:
        """Count bad lines; `number` is that of the first of them, from 1."""
        self.first = self.first or f"line {number}: {why}"
        self.n_bad += n

    def check(self) -> None:
        """Refuse the file when more than BAD_FRACTION of its lines are bad.

        Raises:
            DataError: They are; the first is named.
        """
        if self.n_bad > BAD_FRACTION * self.n:
            raise DataError(
                f"{self.path}: {self.n_bad} of {self.n} lines are malformed, more than {100 * BAD_FRACTION:g} % "
                f"(first: {self.first}). Fetch the file again, or mend these lines."
            )


def _open(path: Path) -> io.BufferedReader:
    # Lines of a GzipFile itself are cut in Python.
    return io.BufferedReader(gzip.open(path), 1 << 20) if path.suffix == ".gz" else path.open("rb")


def _damaged(path: Path, error: BaseException) -> DataError:
    what = (
        "the gzip file ends too early or is damaged"
        if path.suffix == ".gz"
        else "the file cannot be read"
    )
    return DataError(f"{path}: {what} ({error}). Fetch it again.")


def json_rows(path: Path, lines: Lines) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file with one a line; blank lines are skipped, bytes that are not UTF-8 replaced.

    Raises:
        DataError: The file is damaged, or too many lines are bad (after the last row).
    """
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if row := _object(line, number, lines):
                    yield row
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, error) from error
    lines.check()


def _object(line: bytes, number: int, lines: Lines) -> dict[str, Any] | None:
    text = line.decode("utf-8", "replace")
    if number == 1:
        text = text.removeprefix("\ufeff")
    if not text.strip():
        return None
    lines.n += 1
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        lines.reject(number, str(error))
        return None
    if not isinstance(value, dict) or not value:
        lines.reject(number, "not a JSON object with fields")
        return None
    return value


def csv_rows(path: Path, columns: list[str], lines: Lines) -> Iterator[dict[str, str]]:
    """The rows of a small CSV file, these columns alone; quoted fields may hold commas and line ends.

    A row with another number of fields is bad, and counts as many lines as it took: an open quote takes many.

    Raises:
        DataError: The file is damaged, lacks a column, or too many lines are bad (after the last row).
    """
    try:
        with io.TextIOWrapper(_open(path), "utf-8-sig", "replace", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            _check_header(path, header, columns)
            at = [header.index(c) for c in columns]
            for row in _fields(reader, len(header), lines):
                yield {c: row[i] for c, i in zip(columns, at, strict=True)}
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged(path, error) from error
    lines.check()


def _fields(reader: Any, n_fields: int, lines: Lines) -> Iterator[list[str]]:
    while True:
        before, why = reader.line_num, ""
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row, why = [], str(error)
        if not row and not why:
            continue  # a blank line
        n = reader.line_num - before
        lines.n += n
        if len(row) == n_fields:
            yield row
        else:
            lines.reject(before + 1, why or f"{len(row)} fields in place of {n_fields}", n=n)


def csv_batches(
    path: Path, columns: list[str], lines: Lines, *, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """A large CSV file of ids and numbers in batches of strings, of at most `batch_rows` rows, these columns alone.

    Quotes are kept as characters, so that an open one cannot take the rows that follow. Fields that say nothing are
    null. Rows with another number of fields are bad. Bytes are not checked to be UTF-8.

    Raises:
        DataError: The file is damaged, lacks a column, or too many rows are bad (after the last batch).
    """
    try:
        with io.TextIOWrapper(_open(path), "utf-8-sig", "replace", newline="") as file:
            header = next(csv.reader(file), [])
        _check_header(path, header, columns)
        for batch in _open_csv(path, header, columns, lines=lines, batch_rows=batch_rows):
            lines.n += batch.num_rows
            for first in range(0, batch.num_rows, batch_rows):
                yield batch.slice(first, batch_rows)
    except (EOFError, OSError, zlib.error, pa.ArrowException, csv.Error) as error:
        raise _damaged(path, error) from error
    lines.n += lines.n_bad
    lines.check()


def _open_csv(
    path: Path, header: list[str], columns: list[str], *, lines: Lines, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    def skip(row: Any) -> str:
        lines.reject(row.number, f"{row.actual_columns} fields in place of {row.expected_columns}")
        return "skip"

    read = pyarrow.csv.ReadOptions(
        use_threads=False,  # threads would not number the rows
        block_size=max(MIN_BLOCK, ROW_BYTES * batch_rows // N_BLOCKS),
        column_names=header,
        skip_rows=1,
    )
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        check_utf8=False,
        null_values=EMPTY,
        strings_can_be_null=True,
    )
    parse = pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=skip)
    return pyarrow.csv.open_csv(path, read, parse, convert)


def _check_header(path: Path, header: list[str], columns: list[str]) -> None:
    absent = [c for c in columns if c not in header]
    if absent:
        raise DataError(
            f"{path}: missing column {', '.join(absent)}; found {', '.join(header) or 'an empty file'}."
        )
