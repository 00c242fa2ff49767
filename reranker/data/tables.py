"""The tables that every later stage reads: books, users with splits, histories with context and target sides."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache, digest, digest_file
from reranker.config import DataConfig, StorageConfig, WorldConfig
from reranker.data import features, histories, splits
from reranker.data.draws import IntArray, KeyArray, bits, text_keys
from reranker.data.sources import bookdb, fetch
from reranker.errors import DataError

VERSION = 5  # of what this file writes; raise it when the same inputs give other tables

# Seed's column -> ours
_SEED_BOOKS = {
    "book_id": "book_id",
    "title": "title",
    "description": "description",
    "genres": "genre",
    "authors": "authors",
}
_SPLIT_ON_DISK = (
    "fold"  # the column's first name in users.parquet; another name would change its digest
)
_HISTORIES = pa.schema(
    [
        ("user", pa.int32()),
        ("book", pa.int32()),
        ("rating", pa.float32()),
        ("timestamp", pa.int64()),
        ("is_target", pa.bool_()),
    ]
)
# Users and a user's times lie close together: against plain dictionaries this halves the time to write and to read.
_ENCODING = {"user": "DELTA_BINARY_PACKED", "timestamp": "DELTA_BINARY_PACKED"}
_BOOKS_READ = pa.schema([("user_id", pa.string()), ("books_read", pa.list_(pa.int64()))])
# About so many rows make a row group, whole users: 5 MB, small enough to deal out users by row groups. A constant, for
# batch_rows must not change the bytes.
ROW_GROUP = 1 << 18


@dataclass(frozen=True)
class Tables:
    """All that is known of books and readers; a code is a row number.

    Attributes:
        books: Row i is book code i, ascending book_id: book_id int64, title, series, authors, genres, description,
            book_text (str, never null).
        users: Row u is user code u, ascending user_id: user_id str, split str ("train", "dev", "test"), key
            uint64 (a hash of the id, of which draws are functions).
        histories: A rating, sorted by (user, book): user int32, book int32, rating float32, timestamp int64 (0 where
            unknown), is_target bool. A (user, book) stands once.
        editions: Every raw book_id int64 -> book int32, the code of the edition that was kept.
        positive_rating: A rating of at least this much is a positive.
        digest: SHA-256 of the data settings and of the folder `path`, which holds all of these as parquet.
        counts: Rows in, out and dropped, by reason.
        hit: They came from the cache.
    """

    books: pd.DataFrame
    users: pd.DataFrame
    histories: pd.DataFrame
    editions: pd.DataFrame
    positive_rating: float
    digest: str
    counts: dict[str, int]
    path: Path
    hit: bool = False

    def known(self) -> pd.DataFrame:
        """The ratings that statistics may see: all of train users, the context side of dev and test users."""
        train = (self.users["split"] == "train").to_numpy()[self.histories["user"]]
        return self.histories[train | ~self.histories["is_target"].to_numpy()]

    def user_ids(self, codes: IntArray) -> np.ndarray:
        """(n,) the user_id, str, of each user code."""
        return self.users["user_id"].to_numpy()[codes]

    def book_ids(self, codes: IntArray) -> np.ndarray:
        """(n,) the book_id, int64, of each book code."""
        return self.books["book_id"].to_numpy()[codes]

    def with_ids(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The frame with its columns `user` and `book` (codes) replaced by user_id and book_id."""
        ids = frame.assign(user=self.user_ids(frame["user"]), book=self.book_ids(frame["book"]))
        return ids.rename(columns={"user": "user_id", "book": "book_id"})

    def positives(self, split: str) -> pd.DataFrame:
        """The target ratings of a split's users that are positives, sorted by (user, book)."""
        h = self.histories
        in_split = (self.users["split"] == split).to_numpy()[h["user"]]
        return h[
            in_split & h["is_target"].to_numpy() & (h["rating"] >= self.positive_rating).to_numpy()
        ]


def load_tables(cfg: DataConfig, cache: Cache) -> Tables:
    """Tables of the source that `cfg` names, from the cache when files and settings are the same.

    The cache folder also holds the seed's feature tables, `reduce_books_df.parquet` and `sampled_users_book.parquet`.
    The row groups of `histories.parquet` hold whole users. Building them takes memory for the users, the books and
    `cfg.batch_rows` ratings, however many there are.

    Raises:
        DataError: The source is missing, corrupt, of another schema, or too small for three splits.
    """
    source = fetch.fetch(cfg, cache)
    key = {
        "version": VERSION,
        "files": {path.name: digest_file(path) for path in bookdb.files(source.folder)},
        "data": dataclasses.replace(
            cfg,
            root=None,
            world=WorldConfig(),
            storage=StorageConfig(),
            batch_rows=DataConfig.batch_rows,
        ),
    }
    entry = cache.fetch("tables", key, lambda folder: _build(source.folder, cfg, folder))
    books, users, editions = (
        pd.read_parquet(entry.path / f"{name}.parquet") for name in ("books", "users", "editions")
    )
    users = users.rename(columns={_SPLIT_ON_DISK: "split"})
    # Column by column, each given back as soon as it is copied: 10 million ratings are 210 MB, and once is enough.
    rated = pq.read_table(entry.path / "histories.parquet").to_pandas(
        split_blocks=True, self_destruct=True
    )
    counts = {f"source_{k}": v for k, v in source.counts.items()} | {
        k: int(str(v)) for k, v in entry.info.items()
    }
    # Settings too: positive_rating and the context sizes decide pairs and lists, and leave no trace in the files.
    identity = digest({"files": entry.digest, "data": key["data"]})
    return Tables(
        books, users, rated, editions, cfg.positive_rating, identity, counts, entry.path, entry.hit
    )


def _build(root: Path, cfg: DataConfig, folder: Path) -> dict[str, object]:
    raw_tables = bookdb.read(root)
    all_books, given = features.build_books(raw_tables, cfg), features.given_ids(raw_tables)
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        raw = bookdb.ratings(root, cfg.batch_rows)
        spool = histories.spool(raw, all_books["book_id"].to_numpy(), Path(temp) / "spool")
        books, editions = features.merge_editions(all_books, spool.n_of_book)
        rated = histories.merge(
            spool.ratings, editions["book"].to_numpy(), Path(temp) / "rated", cfg.batch_rows
        )
        counts: dict[str, object] = {
            "books_in": len(all_books),
            "books": len(books),
            "books_with_given_text": int(np.isin(books["book_id"], given).sum())
            if cfg.text == "given"
            else 0,
            "ratings_in": spool.n_in,
            "ratings_dropped_unknown_book": spool.n_unknown,
            "ratings_dropped_same_work": spool.n_in - spool.n_unknown - int(rated.n_of_user.sum()),
        }
        kept, keys = _keep_users(rated, cfg, counts)
        users = splits.build_users(rated.user_ids.take(pa.array(kept)), keys, cfg)
        n_targets = _write_histories(folder, books, users, _split(rated, kept, keys, cfg))
        if cfg.shows_readers:
            n_readers = _n_readers(folder / "histories.parquet", len(books))
            books = books.assign(book_text=features.with_readers(books["book_text"], n_readers))
        _write(folder, books, users, editions)
    counts |= {
        "users": len(users),
        "ratings": int(rated.n_of_user[kept].sum()),
        "targets": n_targets,
    }
    return counts | {
        f"users_{split}": int((users["split"] == split).sum()) for split in splits.SPLITS
    }


def _keep_users(
    rated: histories.Ratings, cfg: DataConfig, counts: dict[str, object]
) -> tuple[IntArray, KeyArray]:
    """Places of the users that stay, ascending, and the keys of their ids."""
    kept = np.flatnonzero(rated.n_of_user >= cfg.min_ratings)
    keys = text_keys(rated.user_ids.take(pa.array(kept)).to_pylist())
    counts["users_in"] = len(rated.n_of_user)
    counts["users_dropped_few_ratings"] = len(rated.n_of_user) - len(kept)
    if cfg.max_users is not None and len(kept) > cfg.max_users:
        counts["users_dropped_by_max_users"] = len(kept) - cfg.max_users
        sample = np.sort(
            np.argsort(bits(cfg.seed, "sample users", keys), kind="stable")[: cfg.max_users]
        )
        kept, keys = kept[sample], keys[sample]
    if len(kept) == 0:
        raise DataError(
            f"reduced_interactions.parquet: none of {len(rated.n_of_user)} users has {cfg.min_ratings} rated books of "
            "the catalogue. Lower data.min_ratings (at least 2) or give more ratings."
        )
    return kept, keys


def _split(
    rated: histories.Ratings, kept: IntArray, keys: KeyArray, cfg: DataConfig
) -> Iterator[pa.Table]:
    """The histories of the users that stay, with both sides, a row group at a time."""
    for rows in rated.blocks(kept, ROW_GROUP):
        columns = {name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()}
        first = int(columns["user"][0])
        user = columns["user"] - first
        columns["is_target"] = splits.is_target(
            user,
            columns["book"],
            columns["timestamp"],
            keys=keys[first : first + int(user[-1]) + 1],
            cfg=cfg,
        )
        yield pa.table(columns, _HISTORIES)


def _write(folder: Path, books: pd.DataFrame, users: pd.DataFrame, editions: pd.DataFrame) -> None:
    stored_users = users.rename(columns={"split": _SPLIT_ON_DISK})
    for name, frame in {"books": books, "users": stored_users, "editions": editions}.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False, compression=COMPRESSION)
    seed_books = books.rename(columns=_SEED_BOOKS)[list(_SEED_BOOKS.values())]
    seed_books.to_parquet(folder / "reduce_books_df.parquet", index=False, compression=COMPRESSION)


def _write_histories(
    folder: Path, books: pd.DataFrame, users: pd.DataFrame, blocks: Iterator[pa.Table]
) -> int:
    """Write both tables of ratings, ours and the seed's, and count the targets."""
    book_ids, user_ids = books["book_id"].to_numpy(), pa.array(users["user_id"])
    n_targets = 0
    with (
        pq.ParquetWriter(
            folder / "histories.parquet",
            _HISTORIES,
            compression=COMPRESSION,
            use_dictionary=["book", "rating"],
            column_encoding=_ENCODING,
        ) as ours,
        pq.ParquetWriter(
            folder / "sampled_users_book.parquet", _BOOKS_READ, compression=COMPRESSION
        ) as seeds,
    ):
        for block in blocks:
            ours.write_table(block)
            seeds.write_table(_books_read(block, book_ids, user_ids))
            n_targets += pc.sum(block["is_target"]).as_py()
    return n_targets


def _n_readers(histories_path: Path, n_books: int) -> IntArray:
    """(n_books,) context sides that hold each book, of users of all splits.

    No target counts, of train users neither: else a book's own positive pair would stand in its number.
    """
    with pq.ParquetFile(histories_path) as file:
        blocks = file.iter_batches(columns=["book", "is_target"])
        counts = (
            np.bincount(b["book"].filter(pc.invert(b["is_target"])), minlength=n_books)
            for b in blocks
        )
        return np.sum(list(counts), axis=0)


def _books_read(block: pa.Table, book_ids: IntArray, user_ids: pa.Array) -> pa.Table:
    """The seed's `user_id, books_read` of a block of users: book ids, best rated first, then ascending id."""
    user, book, rating = (block[name].to_numpy() for name in ("user", "book", "rating"))
    order = np.lexsort((-rating, user))  # stable, and a user's books ascend
    size = np.bincount(user - user[0])
    offsets = pa.array(np.append(0, np.cumsum(size)), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(book_ids[book[order]]))
    return pa.table(
        [user_ids.slice(int(user[0]), len(size)).cast(pa.string()), lists], schema=_BOOKS_READ
    )
