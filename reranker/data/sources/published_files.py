"""Find and stream published files, plain or gzipped, and count their malformed lines."""

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

# A file with a larger share of malformed lines is the wrong file or damaged.
MAX_BAD_FRACTION = 0.01
# Fields that the CSV reader reads as null; `parse_integers` handles other spellings.
NULL_FIELDS = ["", "NaN", "nan", "NULL", "null", "None"]
# Average size of a CSV row of ids and stars.
ROW_BYTES = 16
# Number of blocks that pyarrow reads ahead; together they hold `batch_rows` rows.
N_BLOCKS = 32
# Bytes; a row must fit into one block.
MIN_BLOCK = 1 << 18


def find_file(root: Path, name: str) -> Path | None:
    """Return the file `name` or `name.gz` of a folder, or None if neither exists.

    Raises:
        DataError: Both exist.
    """
    found = [p for p in (root / name, root / f"{name}.gz") if p.is_file()]
    if len(found) > 1:
        raise DataError(f"{root}: {name} and {name}.gz both exist; keep one of them.")
    return found[0] if found else None


def find_files(root: Path, pattern: str) -> list[Path]:
    """Return the files that match `pattern` or `pattern.gz`, sorted by name.

    Raises:
        DataError: A file exists both plain and gzipped.
    """
    paths = (*root.glob(pattern), *root.glob(f"{pattern}.gz"))
    names = {path.name.removesuffix(".gz") for path in paths if path.is_file()}
    return [path for name in sorted(names) if (path := find_file(root, name))]


def missing_files_error(root: Path, names: list[str], source: str) -> DataError:
    """Return the error for a folder without these files of a source; it lists the files found."""
    if not root.is_dir():
        return DataError(
            f"data.root={str(root)!r} is not a folder; it must hold the published files of "
            f"data={source}."
        )
    found = ", ".join(sorted(p.name for p in root.iterdir() if p.is_file())[:20])
    return DataError(
        f"{root}: missing {', '.join(names)} (or .gz) of data={source}; found {found or 'no file'}."
    )


@dataclass
class LineCounter:
    """Counts the lines of a file and its malformed lines, and remembers the first of these."""

    path: Path
    n: int = 0
    n_bad: int = 0
    first: str = ""

    def reject(self, number: int | None, reason: str, *, n: int = 1) -> None:
        """Count `n` malformed lines; `number` is the number of the first one, from 1."""
        self.first = self.first or f"line {number}: {reason}"
        self.n_bad += n

    def check(self) -> None:
        """Raise if more than MAX_BAD_FRACTION of the lines are malformed.

        Raises:
            DataError: Too many lines are malformed; the message names the first.
        """
        if self.n_bad > MAX_BAD_FRACTION * self.n:
            raise DataError(
                f"{self.path}: {self.n_bad} of {self.n} lines are malformed, more than "
                f"{100 * MAX_BAD_FRACTION:g} % (first: {self.first}). Download the file again, or "
                "correct these lines."
            )


def _open(path: Path) -> io.BufferedReader:
    # The buffer splits lines in C; GzipFile does it in Python.
    return io.BufferedReader(gzip.open(path), 1 << 20) if path.suffix == ".gz" else path.open("rb")


def _damaged_file_error(path: Path, error: BaseException) -> DataError:
    gzipped = path.suffix == ".gz"
    fault = "the gzip file is truncated or damaged" if gzipped else "the file cannot be read"
    return DataError(f"{path}: {fault} ({error}). Download it again.")


def json_rows(path: Path, lines: LineCounter) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects of a file with one object per line.

    Blank lines are skipped. Bytes that are not UTF-8 are replaced.

    Raises:
        DataError: The file is damaged, or, after the last row, too many lines are malformed.
    """
    try:
        with _open(path) as file:
            for number, line in enumerate(file, 1):
                if row := _parse_object(line, number, lines):
                    yield row
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged_file_error(path, error) from error
    lines.check()


def _parse_object(line: bytes, number: int, lines: LineCounter) -> dict[str, Any] | None:
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


def csv_rows(path: Path, columns: list[str], lines: LineCounter) -> Iterator[dict[str, str]]:
    """Yield these columns of a small CSV file; quoted fields may hold commas and line ends.

    A row with a wrong number of fields is malformed. All its lines are counted; after an unclosed
    quote a row has many lines.

    Raises:
        DataError: The file is damaged, lacks a column, or, after the last row, too many lines are
            malformed.
    """
    try:
        with io.TextIOWrapper(_open(path), "utf-8-sig", "replace", newline="") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            _check_header(path, header, columns)
            at = [header.index(c) for c in columns]
            for row in _read_fields(reader, len(header), lines):
                yield {c: row[i] for c, i in zip(columns, at, strict=True)}
    except (EOFError, OSError, zlib.error) as error:
        raise _damaged_file_error(path, error) from error
    lines.check()


def _read_fields(reader: Any, n_fields: int, lines: LineCounter) -> Iterator[list[str]]:
    while True:
        before, reason = reader.line_num, ""
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            row, reason = [], str(error)
        if not row and not reason:  # a blank line
            continue
        n = reader.line_num - before
        lines.n += n
        if len(row) == n_fields:
            yield row
        else:
            reason = reason or f"{len(row)} fields instead of {n_fields}"
            lines.reject(before + 1, reason, n=n)


def csv_batches(
    path: Path, columns: list[str], lines: LineCounter, *, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield these columns of a large CSV file of ids and numbers, as batches of strings.

    A batch has at most `batch_rows` rows. Quotes are ordinary characters, so that an unclosed quote
    cannot swallow the rows after it. The words of NULL_FIELDS are null. Rows with a wrong number of
    fields are malformed. The encoding is not checked.

    Raises:
        DataError: The file is damaged, lacks a column, or, after the last batch, too many rows are
            malformed.
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
        raise _damaged_file_error(path, error) from error
    lines.n += lines.n_bad
    lines.check()


def _open_csv(
    path: Path, header: list[str], columns: list[str], *, lines: LineCounter, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    def skip(row: Any) -> str:
        reason = f"{row.actual_columns} fields instead of {row.expected_columns}"
        lines.reject(row.number, reason)
        return "skip"

    read = pyarrow.csv.ReadOptions(
        use_threads=False,  # with threads rows have no numbers
        block_size=max(MIN_BLOCK, ROW_BYTES * batch_rows // N_BLOCKS),
        column_names=header,
        skip_rows=1,
    )
    convert = pyarrow.csv.ConvertOptions(
        include_columns=columns,
        column_types=dict.fromkeys(columns, pa.string()),
        check_utf8=False,
        null_values=NULL_FIELDS,
        strings_can_be_null=True,
    )
    parse = pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=skip)
    return pyarrow.csv.open_csv(path, read, parse, convert)


def _check_header(path: Path, header: list[str], columns: list[str]) -> None:
    missing = [c for c in columns if c not in header]
    if missing:
        found = ", ".join(header) or "an empty file"
        raise DataError(f"{path}: missing column {', '.join(missing)}; found {found}.")
