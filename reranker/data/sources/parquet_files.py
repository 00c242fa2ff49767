"""Open a parquet file, or a folder of part files as Dask and Spark write it, in place of a file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import digest, digest_file
from reranker.errors import DataError

# Bytes. Without a buffer Arrow loads the complete column of a row group into memory.
READ_BUFFER = 1 << 20


def parts(path: Path) -> list[Path]:
    """Return the parquet files of a table: the file itself, or the part files of a folder.

    Part files are in natural order, `part.2` before `part.10`. Other files, and names that begin
    with `_` or `.`, are left out.

    Raises:
        DataError: The folder has no part file, or a subfolder.
    """
    if not path.is_dir():
        return [path]
    visible = [p for p in path.iterdir() if not p.name.startswith(("_", "."))]
    if folders := sorted(p.name for p in visible if p.is_dir()):
        raise DataError(
            f"{path}: expected part files, found the subfolder {folders[0]}. Write the table "
            "without partitions."
        )
    found = [p for p in visible if p.suffix == ".parquet"]
    if not found:
        raise DataError(f"{path}: expected part files (*.parquet), found none.")
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that compares digits as numbers."""
    pieces = re.findall(r"[0-9]+|[^0-9]+", path.name)
    return [(int(p), "") if p[0] in "0123456789" else (-1, p) for p in pieces], path.name


def digest_table(path: Path) -> str:
    """Return the SHA-256 of a file, or of the digests of all part files in order."""
    if path.is_dir():
        return digest([digest_file(part) for part in parts(path)])
    return digest_file(path)


def open_parquet(path: Path) -> pq.ParquetFile:
    """Open a file whose pages are verified.

    Raises:
        DataError: It is not a parquet file.
    """
    try:
        return pq.ParquetFile(path, buffer_size=READ_BUFFER, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        message = f"{path}: not a readable parquet file ({error}). Download or write it again."
        raise DataError(message) from error


def batches(
    file: pq.ParquetFile, path: Path, columns: list[str], n_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield columns in batches of at most `n_rows` rows; every string is valid UTF-8.

    Raises:
        DataError: A row group is damaged.
    """
    for group in range(file.num_row_groups):
        try:
            for batch in file.iter_batches(n_rows, row_groups=[group], columns=columns):
                batch.validate(full=True)
                yield batch
        except (pa.ArrowException, OSError) as error:
            where = f"row group {group} of {file.num_row_groups}, counted from 0"
            raise DataError(
                f"{path}: not a readable parquet file, {where} ({error}). Download or write it "
                "again."
            ) from error
