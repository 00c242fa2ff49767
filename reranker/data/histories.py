"""Sort ratings on disk, block by block, and keep one per user and book."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.draws import IntArray

# One rating on disk. Records are not encoded, because they are written and read only once.
ROW = np.dtype([("user", "<i4"), ("book", "<i4"), ("rating", "<f4"), ("timestamp", "<i8")])
Rows = npt.NDArray[np.void]


@dataclass(frozen=True)
class Ratings:
    """Ratings in a file of ROW records; `user` is a position in `user_ids`.

    Attributes:
        user_ids: (n_users,) large_string.
        n_of_user: (n_users,) the number of rows of each user, at least 1.
    """

    path: Path
    user_ids: pa.Array
    n_of_user: IntArray

    def blocks(self, users: IntArray, n_rows: int) -> Iterator[Rows]:
        """Yield the rows of some users in blocks of about `n_rows` rows, without splitting a user.

        The file has to be sorted by user.

        Args:
            users: Positions in `user_ids`, ascending. `user` of a yielded row is a position in
                this array.
        """
        size = self.n_of_user[users]
        first = (np.cumsum(self.n_of_user) - self.n_of_user)[users]
        bounds = _bounds(size, n_rows)
        for a, b in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            n = size[a:b]
            row = np.arange(n.sum()) + np.repeat(first[a:b] - (np.cumsum(n) - n), n)
            # The file is opened for each block, so that the pages of the last one are released.
            rows = np.memmap(self.path, ROW, "r")[row]
            rows["user"] = np.repeat(np.arange(a, b), n)
            yield rows


@dataclass(frozen=True)
class Spool:
    """Ratings in the order of the source.

    Attributes:
        ratings: Users are numbered by first appearance; `book` is a position in the catalogue.
        n_of_book: (n_books,) the number of ratings of each book.
        n_in: Number of ratings read.
        n_unknown: Number of ratings left out because their book is not in the catalogue.
    """

    ratings: Ratings
    n_of_book: IntArray
    n_in: int
    n_unknown: int


def spool(tables: Iterable[pa.Table], book_ids: IntArray, path: Path) -> Spool:
    """Write ratings to `path` as codes, one table at a time.

    Args:
        tables: Tables with the schema bookdb.RATINGS.
        book_ids: (n_books,) distinct ids of the catalogue.
    """
    catalogue = pa.array(book_ids, pa.int64())
    user_ids, n_of_user = pa.array([], pa.large_string()), np.zeros(0, np.int64)
    n_of_book = np.zeros(len(book_ids), np.int64)
    n_in = 0
    with path.open("wb") as out:
        for table in tables:
            n_in += table.num_rows
            position = pc.index_in(table["book_id"], catalogue)
            table, position = table.filter(position.is_valid()), position.drop_null()
            user, user_ids = _codes(table["user_id"], user_ids)
            rows = np.empty(table.num_rows, ROW)
            rows["user"], rows["book"] = user, position.to_numpy()
            rows["rating"] = table["rating"].to_numpy()
            rows["timestamp"] = table["timestamp"].to_numpy()
            out.write(rows.tobytes())
            n_of_book += np.bincount(rows["book"], minlength=len(book_ids))
            n_more = np.bincount(user, minlength=len(user_ids))
            n_more[: len(n_of_user)] += n_of_user
            n_of_user = n_more
    return Spool(Ratings(path, user_ids, n_of_user), n_of_book, n_in, n_in - int(n_of_book.sum()))


def _codes(ids: pa.ChunkedArray, known: pa.Array) -> tuple[IntArray, pa.Array]:
    """Return the position of every id in the known ids, and the known ids followed by new ones."""
    encoded = ids.combine_chunks().dictionary_encode()
    position = pc.index_in(encoded.dictionary, known)
    new = encoded.dictionary.filter(position.is_null())
    code = pc.fill_null(position, -1).to_numpy().copy()
    code[code < 0] = len(known) + np.arange(len(new))
    return code[encoded.indices.to_numpy()], pa.concat_arrays([known, new])


def merge(spooled: Ratings, book: IntArray, path: Path, n_rows: int) -> Ratings:
    """Write one rating for each (user, book) to `path`, sorted by (user, book).

    Users are numbered by ascending id. If a user rated a book several times, the latest rating is
    kept, or the highest of the latest ones. This is a bucket sort on disk: a bucket holds about
    `n_rows` rows, those of a range of users, and is sorted in memory. The result depends neither
    on the order of the rows nor on n_rows.

    Args:
        spooled: The ratings to merge; their file is removed once the rows are in buckets.
        book: (n_books,) book code of each position in the catalogue.
    """
    # Arrow sorts by UTF-8 bytes, which is the order of Python's str.
    order = pc.array_sort_indices(spooled.user_ids).to_numpy()
    size = spooled.n_of_user[order]
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    bounds = _bounds(size, n_rows)
    buckets = path.with_suffix(".buckets")
    _fill_buckets(
        spooled.path, buckets, rank=rank, book=book, size=size, bounds=bounds, n_rows=n_rows
    )
    spooled.path.unlink()
    n_of_user = np.zeros(len(order), np.int64)
    with path.open("wb") as out:
        blocks = _read(buckets, np.add.reduceat(size, bounds[:-1]))
        for a, rows in zip(bounds.tolist(), blocks, strict=False):
            unique = _deduplicated(rows)
            n = np.bincount(unique["user"] - a)
            n_of_user[a : a + len(n)] = n
            out.write(unique.tobytes())
    buckets.unlink()
    return Ratings(path, spooled.user_ids.take(pa.array(order)), n_of_user)


def _fill_buckets(
    source: Path,
    buckets: Path,
    *,
    rank: IntArray,
    book: IntArray,
    size: IntArray,
    bounds: IntArray,
    n_rows: int,
) -> None:
    """Write the rows of `source` to their buckets, with new user and book codes.

    Bucket i holds the users bounds[i]:bounds[i + 1].
    """
    bucket_of = np.repeat(np.arange(len(bounds) - 1, dtype=np.int32), np.diff(bounds))
    filled = (np.cumsum(size) - size)[bounds[:-1]]
    total = int(size.sum())
    with buckets.open("wb") as out:
        for rows in _read(source, [min(n_rows, total - a) for a in range(0, total, n_rows)]):
            rows["user"], rows["book"] = rank[rows["user"]], book[rows["book"]]
            bucket = bucket_of[rows["user"]]
            rows = rows[np.argsort(bucket, kind="stable")]
            n_each = np.bincount(bucket, minlength=len(filled))
            part = np.cumsum(n_each) - n_each
            for i in np.flatnonzero(n_each).tolist():
                out.seek(int(filled[i]) * ROW.itemsize)
                out.write(rows[part[i] : part[i] + n_each[i]].tobytes())
            filled += n_each


def _read(path: Path, sizes: Iterable[int]) -> Iterator[Rows]:
    """Yield consecutive blocks of a file, with `sizes` as their numbers of rows."""
    with path.open("rb") as file:
        for n in sizes:
            yield np.fromfile(file, ROW, n)


def _deduplicated(rows: Rows) -> Rows:
    """Return the latest, then highest, rating of each (user, book), sorted by these."""
    key = rows["user"].astype(np.int64) << 32 | rows["book"]
    order = argsort_by(key, rows["rating"], rows["timestamp"])
    key = key[order]
    return rows[order[np.append(key[1:] != key[:-1], True)]]


def argsort_by(key: IntArray, *ties: np.ndarray) -> IntArray:
    """Return np.lexsort((*ties, key)); it is three times as fast if few keys repeat.

    All rows are sorted by `key`; then only rows with a repeated key are sorted by `ties`.
    """
    order = np.argsort(key)
    sorted_key = key[order]
    same = sorted_key[1:] == sorted_key[:-1]
    tied = np.zeros(len(key), dtype=bool)
    tied[1:] |= same
    tied[:-1] |= same
    some = order[tied]
    order[tied] = some[np.lexsort((*(tie[some] for tie in ties), sorted_key[tied]))]
    return order


def _bounds(size: IntArray, n_rows: int) -> IntArray:
    """Return the first user of each block of about `n_rows` rows, then the number of users.

    A block ends with the user who fills it, so it has at most n_rows rows plus those of one user.
    """
    block = (np.cumsum(size) - size) // n_rows
    return np.append(np.flatnonzero(np.diff(block, prepend=-1)), len(size))
