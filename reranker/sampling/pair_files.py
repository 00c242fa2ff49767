"""Read pairs files of any origin as tables with one schema, and count the rows that they drop."""

from __future__ import annotations

import glob
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.cache import digest, digest_file
from reranker.data.sources.csv_ratings import keep_rows
from reranker.errors import ConfigError, DataError
from reranker.sampling import pair_values
from reranker.sampling.pair_values import EXPECTED, BadValueError, Kind

KINDS: dict[str, Kind] = {
    "user_id": "id",
    "user_ctx": "text",
    "book_id": "id",
    "book_text": "text",
    "label": "label",
}
SCHEMA = pa.schema(
    [(name, pa.int8() if kind == "label" else pa.string()) for name, kind in KINDS.items()]
)
OPTIONAL = "book_id"
NEEDED = [name for name in SCHEMA.names if name != OPTIONAL]
SUFFIXES = (".parquet", ".parq", ".pq")
MAGIC = b"PAR1"  # the first bytes of a parquet file
BATCH_ROWS = 8_192  # a few kB of text per row: tens of MB at a time
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


@dataclass(frozen=True)
class PartFile:
    """One parquet file of a place.

    Attributes:
        path: The file.
        rows, bytes: Its number of rows and its size.
        columns: Arrow type of every column, by name.
        folder_values: Values of columns that are in the names of folders (`label=1/`), as Spark and
            Dask write them; None is null.
    """

    path: Path
    rows: int
    bytes: int
    columns: dict[str, str]
    folder_values: dict[str, str | None]


@dataclass(frozen=True)
class PairFile:
    """The pairs of a file, a folder or a glob; rows are read by `tables`.

    Attributes:
        place: The places as they were given.
        parts: The chosen part files in natural order (part.2 before part.10).
        ignored: Visible files of the folder or glob that are not parquet.
    """

    place: str
    parts: list[PartFile]
    ignored: list[Path]

    @property
    def schema(self) -> pa.Schema:
        """SCHEMA, without book_id if the parts have none."""
        has_book = OPTIONAL in _names(self.parts[0])
        return SCHEMA if has_book else SCHEMA.remove(SCHEMA.get_field_index(OPTIONAL))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the parts' content in their order; names and places of files do not count."""
        return digest([(digest_file(part.path), part.folder_values) for part in self.parts])

    def tables(self, counts: Counter[str] | None = None) -> Iterator[pa.Table]:
        """Yield the kept rows in order, as tables of at most BATCH_ROWS rows with `schema`.

        Ids are text: 7 and 7.0 give "7", and text stays as it is ("0061120081"). Labels are 0 or 1.
        A row is dropped if its user_id, user_ctx or book_text is null or blank, or its label is
        null; NaN is null. A book_id may be null.

        Args:
            counts: pairs_in, pairs_dropped_no_COLUMN, null_COLUMN and blank_COLUMN are added. A
                dropped row is counted once, under the first column of the schema that applies.

        Raises:
            DataError: A file is damaged, a label is not 0 or 1, an id is a fraction, or a text is
                not UTF-8. The message has the file, the column and the row (from 0).
        """
        counts = Counter() if counts is None else counts
        for part in self.parts:
            yield from _tables(part, self.schema, counts)


def read_pairs(*places: str | Path, parts: Sequence[int] | None = None) -> PairFile:
    """Find the pairs of places and check the columns of every part; no rows are read yet.

    Args:
        places: Each is a parquet file, a folder of part files, or a glob; `~` is the home folder.
            Names that start with "." or "_" are ignored in folders and globs. Folders inside a
            folder are read only if they are named COLUMN=VALUE.
        parts: Positions of the parts to read, from 0 in natural order; None for all.

    Raises:
        ConfigError: A position is outside the parts or repeated, or there are no positions.
        DataError: Nothing is there, a file is not parquet, or a column is missing or has a wrong
            type.

    Example:
        >>> pairs = read_pairs("~/pairs/training_pairs.parquet", parts=[0, 1])
        >>> counts = Counter()
        >>> sum(table.num_rows for table in pairs.tables(counts))
        3456
    """
    found = [_find(str(place)) for place in places]
    files = {path: values for in_place, _ in found for path, values in in_place.items()}
    ignored = {path for _, others in found for path in others}
    names = {os.path.realpath(path): path for path in reversed(files)}  # keeps the first of a file
    place = ", ".join(map(str, places))
    chosen = _choose(place, sorted(names.values(), key=_natural), parts)
    opened = [_part(path, values=files[path]) for path in chosen]
    for part in opened:
        _check_columns(part, with_book=OPTIONAL in _names(opened[0]), first=opened[0])
    return PairFile(place, opened, sorted(ignored, key=_natural))


def _natural(path: Path) -> list[tuple[str, int]]:
    """Return a sort key by which part.2 is before part.10."""
    pieces = [*re.split(r"([0-9]+)", str(path)), "0", str(path), "0"]
    return [(text, int(number)) for text, number in zip(pieces[::2], pieces[1::2], strict=False)]


def _find(place: str) -> tuple[dict[Path, dict[str, str | None]], list[Path]]:
    """Return the parquet files of a place with their folders' values, and the other files."""
    expanded = os.path.expanduser(place)
    if place.startswith("s3://"):
        raise DataError(f"{place}: pairs are read from this machine. Run reranker data pull first.")
    if os.path.isfile(expanded):
        return {Path(expanded): {}}, []
    if place.strip() and os.path.isdir(expanded):
        candidates = dict(_folder_files(Path(expanded), {}))
    else:
        candidates = dict(_glob_files(expanded))
        if not candidates:
            raise DataError(
                f"{place!r} does not exist: expected a parquet file, a folder of part files, or a "
                "glob that matches some."
            )
    files = {path: values for path, values in candidates.items() if _is_parquet(path)}
    if not files:
        raise DataError(
            f"{place} has no parquet file; found {_list(p.name for p in candidates) or 'no files'}."
        )
    return files, [path for path in candidates if path not in files]


def _list(names: Iterable[object], limit: int = 10) -> str:
    shown = [str(name) for name in names]
    more = f" and {len(shown) - limit} more" if len(shown) > limit else ""
    return ", ".join(shown[:limit]) + more


def _glob_files(pattern: str) -> Iterator[tuple[Path, dict[str, str | None]]]:
    for match in sorted(glob.glob(pattern, recursive=True)):
        path = Path(match)
        if _is_hidden(path):
            continue
        if path.is_dir():
            yield from _folder_files(path, {})
        else:
            yield path, {}


def _folder_files(
    folder: Path, values: dict[str, str | None]
) -> Iterator[tuple[Path, dict[str, str | None]]]:
    for path in sorted(folder.iterdir()):
        name, is_value, value = path.name.partition("=")
        if _is_hidden(path):
            continue
        if not path.is_dir():
            yield path, values
        elif is_value:
            known = None if value == HIVE_NULL else unquote(value)
            yield from _folder_files(path, {**values, name: known})


def _is_hidden(path: Path) -> bool:
    return path.name.startswith((".", "_"))


def _is_parquet(path: Path) -> bool:
    if path.name.endswith(SUFFIXES):
        return True
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}). Remove it, or fix it."
        ) from error


def _choose(place: str, paths: list[Path], parts: Sequence[int] | None) -> list[Path]:
    if parts is None:
        return paths
    has = f"{place} has {len(paths)} parts (0 to {len(paths) - 1})"
    if not parts or len(set(parts)) < len(parts):
        raise ConfigError(f"parts={list(parts)}: expected different positions; {has}.")
    for number in parts:
        if not 0 <= number < len(paths):
            raise ConfigError(f"parts={list(parts)}: there is no part {number}; {has}.")
    return [paths[number] for number in parts]


def _part(path: Path, values: dict[str, str | None]) -> PartFile:
    try:
        metadata = pq.read_metadata(path)
        schema = metadata.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    if repeated := [name for name, n in Counter(schema.names).items() if n > 1]:
        raise DataError(f"{path} has several columns named {_list(repeated)}. Keep one of each.")
    types = {field.name: field.type for field in schema}
    for name, kind in KINDS.items():
        if name in types and not pair_values.is_accepted(kind, types[name]):
            raise DataError(
                f"{path}: column {name} is {types[name]}; expected {EXPECTED[kind]}. Write it "
                "with such a column."
            )
    columns = {name: _type_name(kind) for name, kind in types.items()}
    return PartFile(path, metadata.num_rows, path.stat().st_size, columns, values)


def _type_name(kind: pa.DataType) -> str:
    return f"{kind.value_type} (dictionary)" if pa.types.is_dictionary(kind) else str(kind)


def _damaged(path: Path, error: BaseException) -> DataError:
    reason = " ".join(str(error).split())
    return DataError(f"{path} cannot be read as parquet ({reason}). Write it again.")


def _names(part: PartFile) -> set[str]:
    return {*part.columns, *part.folder_values}


def _check_columns(part: PartFile, *, with_book: bool, first: PartFile) -> None:
    found = _names(part)
    if missing := [name for name in NEEDED if name not in found]:
        raise DataError(
            f"{part.path} has no column {', '.join(missing)}; it has {_list(part.columns)}. A "
            f"pairs file needs {', '.join(NEEDED)}; {OPTIONAL} is optional."
        )
    if (OPTIONAL in found) != with_book:
        has, lacks = (first.path, part.path) if with_book else (part.path, first.path)
        raise DataError(
            f"{lacks} has no column {OPTIONAL}, but {has} has one. All parts or none must have it."
        )


def _tables(part: PartFile, schema: pa.Schema, counts: Counter[str]) -> Iterator[pa.Table]:
    stored = [name for name in schema.names if name in part.columns]
    row = 0
    try:
        with pq.ParquetFile(part.path) as file:
            for batch in file.iter_batches(BATCH_ROWS, columns=stored):
                if batch.num_rows:
                    columns = _columns(part, batch, schema, row=row)
                    yield _keep(columns, schema, counts)
                    row += batch.num_rows
    except (pa.ArrowException, OSError) as error:
        raise _damaged(part.path, error) from error


def _columns(
    part: PartFile, batch: pa.RecordBatch, schema: pa.Schema, *, row: int
) -> dict[str, pa.Array]:
    """Return the columns of a batch in the schema's types; `row` is its first row in the file."""
    out = {}
    for name in schema.names:
        if name in part.columns:
            values = batch[name]
        else:
            values = pa.array([part.folder_values[name]] * batch.num_rows, pa.string())
        try:
            out[name] = pair_values.convert(KINDS[name], values)
        except BadValueError as bad:
            raise DataError(
                f"{part.path}: {name} of row {row + bad.row} is {bad.found!r}; expected "
                f"{bad.expected}."
            ) from bad
    return out


def _keep(columns: dict[str, pa.Array], schema: pa.Schema, counts: Counter[str]) -> pa.Table:
    """Return the rows without a missing value, and count the others."""
    drops = {}
    for name, values in columns.items():
        is_blank = pair_values.is_blank(values)
        counts[f"null_{name}"] += values.null_count
        counts[f"blank_{name}"] += int(pc.sum(is_blank).as_py() or 0)
        if name != OPTIONAL:
            is_missing = pc.or_(values.is_null(), is_blank)
            drops[f"no_{name}"] = is_missing.to_numpy(zero_copy_only=False)
    table = pa.Table.from_arrays(list(columns.values()), schema=schema)
    counts["pairs_in"] += table.num_rows
    kept = keep_rows(drops, counts, table="pairs")
    return table if len(kept) == table.num_rows else table.take(pa.array(kept))
