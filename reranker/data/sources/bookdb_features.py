"""Convert the feature tables of the original system into the four raw tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION
from reranker.data.sources import parquet_files, raw_tables
from reranker.data.sources.columns import ID, KEY, STRING, Kind, check_type, list_kind, read_column
from reranker.errors import DataError

# Version of the output of `convert`; increase it if the same files give other tables.
VERSION = 1
USERS, BOOKS, TEXTS = (
    "sampled_users_book.parquet",
    "reduce_books_df.parquet",
    "book_texts_reduced.parquet",
)
_READ = list_kind("a list of book ids", "book_id", usual="integer_list", takes_single=True)
SCHEMA: dict[str, dict[str, Kind]] = {
    USERS: {"user_id": KEY, "books_read": _READ},
    BOOKS: {
        "book_id": ID,
        "title": STRING,
        "description": STRING,
        "genre": STRING,
        "authors": STRING,
    },
    TEXTS: {"book_id": ID, "text": STRING},
}
OPTIONAL = {"description", "genre", "authors"}
ROWS = 1 << 16
LIKED = 5  # the rating of every book read; with data.rating_range=null it is not read


def files(root: Path) -> list[Path]:
    """Return the files of SCHEMA in a folder; each may be a folder of part files.

    Raises:
        DataError: The folder, the users or the books are missing. The texts may be missing.
    """
    if not root.is_dir():
        raise DataError(f"data.root={str(root)!r} is not a folder; it must hold {USERS}, {BOOKS}.")
    missing = [name for name in (USERS, BOOKS) if not (root / name).exists()]
    if missing:
        found = ", ".join(sorted(p.name for p in root.glob("*.parquet"))) or "no parquet file"
        raise DataError(f"{root}: missing {', '.join(missing)}; found {found}.")
    return [root / name for name in SCHEMA if (root / name).exists()]


def convert(root: Path, folder: Path, genres: Mapping[str, list[str]]) -> dict[str, int]:
    """Write the four raw tables into `folder`; return the rows read, written and dropped by reason.

    Every book that a user read becomes a row with the same rating: the source has no ratings and
    no timestamps. Genres and authors are texts separated by commas. A genre that is neither a genre
    nor a shelf of the vocabulary is dropped and counted.

    Args:
        root: Folder of the files, see `files`.
        folder: Existing folder for the raw tables.
        genres: The vocabulary `data.genres`: genre -> shelves.

    Raises:
        DataError: A file is damaged, a column is missing or of a type that cannot be read, or no
            books or no ratings are left.
    """
    counts: Counter[str] = Counter()
    _write_books(_table(root, BOOKS, counts), folder, genres, counts)
    if (root / TEXTS).exists():
        _write(_table(root, TEXTS, counts).cast(raw_tables.TEXTS), folder / TEXTS)
    else:
        raw_tables.write_empty_texts(folder)
    _write_ratings(_table(root, USERS, counts), folder, counts)
    raw_tables.check_not_empty(root, counts)
    return {name: n for name, n in sorted(counts.items()) if n}


def _table(root: Path, name: str, counts: Counter[str]) -> pa.Table:
    """Return the columns of a file in the types of their kinds; a missing optional one is null."""
    kinds, batches = SCHEMA[name], []
    for path in parquet_files.parts(root / name):
        with parquet_files.open_parquet(path) as file:
            found = _columns(path, file.schema_arrow, kinds)
            for batch in parquet_files.batches(file, path, list(found.values()), ROWS):
                arrays = {}
                for column, own in found.items():
                    arrays[column], converted = read_column(
                        batch[own], kinds[column], file=name, column=own
                    )
                    for spelling, n in converted.items():
                        counts[f"{name.removesuffix('.parquet')}_{own}_from_{spelling}"] += n
                batches.append(pa.table(arrays))
    empty = pa.table({column: kind.read(pa.nulls(0)) for column, kind in kinds.items()})
    return pa.concat_tables([empty, *batches], promote_options="default")


def _columns(path: Path, schema: pa.Schema, kinds: Mapping[str, Kind]) -> dict[str, str]:
    """Return our column -> the file's column; `genres` is read as `genre`."""
    found = {name: name for name in kinds if name in schema.names}
    if "genre" in kinds and "genre" not in found and "genres" in schema.names:
        found["genre"] = "genres"
    missing = [name for name in kinds if name not in found and name not in OPTIONAL]
    if missing:
        raise DataError(
            f"{path}: missing column {', '.join(missing)}; found {', '.join(schema.names)}."
        )
    for column, own in found.items():
        if schema.names.count(own) > 1:
            raise DataError(f"{path}: several columns are named {own}. Keep one of them.")
        check_type(schema.field(own).type, kinds[column], file=path.name, column=own)
    return found


def _write_books(
    table: pa.Table, folder: Path, genres: Mapping[str, list[str]], counts: Counter[str]
) -> None:
    shelf = {name: name for shelves in genres.values() for name in shelves}
    shelf |= {genre: shelves[0] for genre, shelves in genres.items() if shelves}
    names: dict[str, None] = {}
    rows: list[dict[str, Any]] = []
    counts["books_in"] = table.num_rows
    seen: set[int] = set()
    for row in table.to_pylist():
        if row["book_id"] is None or row["book_id"] in seen:
            reason = "no_id" if row["book_id"] is None else "duplicate_id"
            counts[f"books_dropped_{reason}"] += 1
            continue
        seen.add(row["book_id"])
        authors, own = _split(row.pop("authors")), _split(row.pop("genre"))
        names |= dict.fromkeys(authors)
        counts["genres_dropped_unknown"] += sum(genre not in shelf for genre in own)
        shelves = [{"count": "1", "name": shelf[genre]} for genre in own if genre in shelf]
        rows.append(row | {"popular_shelves": shelves, "authors": authors})
    counts["books"] = len(rows)
    _write(pa.Table.from_pylist(rows, schema=raw_tables.BOOKS), folder / "reduced_books.parquet")
    people = [{"author_id": name, "name": name} for name in names]
    authors_table = pa.Table.from_pylist(people, schema=raw_tables.AUTHORS)
    _write(authors_table, folder / "new_authors.parquet")


def _split(text: str | None) -> list[str]:
    """Return the distinct parts of a text that are separated by commas."""
    return list(dict.fromkeys(part for p in (text or "").split(",") if (part := p.strip())))


def _write_ratings(table: pa.Table, folder: Path, counts: Counter[str]) -> None:
    lists = table["books_read"].combine_chunks()
    row = np.asarray(pc.list_parent_indices(lists))
    book, _ = read_column(pc.list_flatten(lists), ID, file=USERS, column="books_read")
    user = table["user_id"].combine_chunks().take(pa.array(row))
    counts["ratings_in"] = len(book)
    counts["users_without_books"] = table.num_rows - len(np.unique(row))
    usable = pc.and_(book.is_valid(), pc.not_equal(pc.fill_null(user, ""), ""))
    counts["ratings_dropped_no_id"] = len(book) - int(pc.sum(usable).as_py() or 0)
    ratings = pa.table([user, book], names=["user_id", "book_id"]).filter(usable)
    n = ratings.num_rows
    ratings = ratings.group_by(["user_id", "book_id"], use_threads=False).aggregate([])
    counts["ratings_dropped_repeated"] = n - ratings.num_rows
    counts["ratings"] = ratings.num_rows
    stars = pa.repeat(pa.scalar(LIKED, pa.int8()), ratings.num_rows)
    ratings = ratings.append_column("rating", stars).cast(raw_tables.RATINGS)
    _write(ratings, folder / "reduced_interactions.parquet")


def _write(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path, compression=COMPRESSION, row_group_size=raw_tables.ROWS)
