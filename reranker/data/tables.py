"""The tables that later stages read: books, users with splits, and histories with targets."""

from __future__ import annotations

import dataclasses
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache, digest
from reranker.config import DataConfig, StorageConfig, WorldConfig
from reranker.data import features, histories, splits
from reranker.data.draws import IntArray, KeyArray, bits, text_keys
from reranker.data.sources import bookdb, fetch
from reranker.data.sources.parquet_files import digest_table
from reranker.data.sources.rating_rules import RatingRules
from reranker.errors import DataError

VERSION = 6  # of the written files; increase it if the same inputs give other tables

# Column of the original system -> our column
_BOOKDB_BOOKS = {
    "book_id": "book_id",
    "title": "title",
    "description": "description",
    "genres": "genre",
    "authors": "authors",
}
# Name of the split column in users.parquet. Another name would change the tables' digest.
_SPLIT_ON_DISK = "fold"
_HISTORIES = pa.schema(
    [
        ("user", pa.int32()),
        ("book", pa.int32()),
        ("rating", pa.float32()),
        ("timestamp", pa.int64()),
        ("is_target", pa.bool_()),
    ]
)
# Consecutive users, and the timestamps of one user, differ little: delta encoding halves the time
# to write and to read, compared with dictionaries.
_ENCODING = {"user": "DELTA_BINARY_PACKED", "timestamp": "DELTA_BINARY_PACKED"}
_BOOKS_READ = pa.schema([("user_id", pa.string()), ("books_read", pa.list_(pa.int64()))])
# Approximate number of rows in a row group, which holds complete users. These 5 MB are small enough
# to distribute users by row groups. The number is a constant because batch_rows must not change the
# bytes.
ROW_GROUP = 1 << 18


@dataclass(frozen=True)
class Tables:
    """Books, users and histories of a source; a code is a row number.

    Attributes:
        books: Row i is book code i; sorted by book_id. Columns: book_id int64; title, series,
            authors, genres, description, book_text (str, never null).
        users: Row u is user code u; sorted by user_id. Columns: user_id str; split str ("train",
            "dev", "test"); key uint64 (a hash of the id, which keys the random draws).
        histories: One row per rating, sorted by (user, book), each pair once: user int32, book
            int32, rating float32, timestamp int64 (0 if unknown), is_target bool.
        editions: Each raw book_id (int64) with `book` (int32), the code of the kept edition.
        positive_rating: Minimum rating of a positive.
        digest: SHA-256 of the data settings and of the folder `path`, which holds all tables as
            parquet.
        counts: Numbers of rows read, written and dropped, by reason.
        hit: Whether the tables came from the cache.
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
        """Return the ratings that statistics may use.

        These are all ratings of train users, and the context side of dev and test users.
        """
        train = (self.users["split"] == "train").to_numpy()[self.histories["user"]]
        return self.histories[train | ~self.histories["is_target"].to_numpy()]

    def n_readers(self) -> IntArray:
        """Return the (n_books,) numbers of users, of all splits, whose context side has each book.

        Targets are not counted, not even those of train users, because a target would count itself.
        """
        context = self.histories["book"].to_numpy()[~self.histories["is_target"].to_numpy()]
        return np.bincount(context, minlength=len(self.books))

    def user_ids(self, codes: IntArray) -> np.ndarray:
        """Return the (n,) user_ids (str) of user codes."""
        return self.users["user_id"].to_numpy()[codes]

    def book_ids(self, codes: IntArray) -> np.ndarray:
        """Return the (n,) book_ids (int64) of book codes."""
        return self.books["book_id"].to_numpy()[codes]

    def with_ids(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the frame with user_id and book_id in place of its codes `user` and `book`."""
        ids = frame.assign(user=self.user_ids(frame["user"]), book=self.book_ids(frame["book"]))
        return ids.rename(columns={"user": "user_id", "book": "book_id"})

    def positives(self, split: str) -> pd.DataFrame:
        """Return the positive target ratings of a split's users, sorted by (user, book)."""
        h = self.histories
        in_split = (self.users["split"] == split).to_numpy()[h["user"]]
        positive = (h["rating"] >= self.positive_rating).to_numpy()
        return h[in_split & h["is_target"].to_numpy() & positive]


def load_tables(cfg: DataConfig, cache: Cache) -> Tables:
    """Return the tables of the source in `cfg`, from the cache if files and settings are the same.

    The cache folder also holds the feature tables of the original system,
    `reduce_books_df.parquet` and `sampled_users_book.parquet`. The row groups of
    `histories.parquet` hold complete users. Building needs memory for the users, the books and
    `cfg.batch_rows` ratings, whatever the number of ratings.

    Raises:
        DataError: The source is missing, is corrupt, has another schema, or is too small for three
            splits.

    Example:
        >>> tables = load_tables(cfg.data, Cache(cfg.cache_dir))
        >>> tables.books["title"][0]
        'Dune'
    """
    source = fetch.fetch(cfg, cache)
    key = {
        "version": VERSION,
        "files": {path.name: digest_table(path) for path in bookdb.files(source.folder)},
        # Text features are rendered later, so tables with and without them share a folder.
        "data": _settings(dataclasses.replace(cfg, text_features=[])),
    }
    entry = cache.fetch("tables", key, lambda folder: _build(source.folder, cfg, folder))
    books, users, editions = (
        pd.read_parquet(entry.path / f"{name}.parquet") for name in ("books", "users", "editions")
    )
    users = users.rename(columns={_SPLIT_ON_DISK: "split"})
    # Each column is freed as soon as it is copied: 10 million ratings take 210 MB once, not twice.
    rated = pq.read_table(entry.path / "histories.parquet").to_pandas(
        split_blocks=True, self_destruct=True
    )
    counts = {f"source_{k}": v for k, v in source.counts.items()} | {
        k: int(str(v)) for k, v in entry.info.items()
    }
    # The settings are part of the digest, because positive_rating and the sizes of contexts decide
    # pairs and lists but do not change the files.
    identity = digest({"files": entry.digest, "data": _settings(cfg)})
    return Tables(
        books, users, rated, editions, cfg.positive_rating, identity, counts, entry.path, entry.hit
    )


def _settings(cfg: DataConfig) -> dict[str, object]:
    """Return the settings that identify tables; those for reaching the source are reset.

    Earlier versions had three flags in place of `text_features`. They are used wherever they can
    express the same features, so that digests of tables, pairs and lists stay the same.
    """
    settings = dataclasses.asdict(cfg) | {
        "root": None,
        "world": dataclasses.asdict(WorldConfig()),
        "storage": dataclasses.asdict(StorageConfig()),
        "batch_rows": DataConfig.batch_rows,
    }
    for name in ("rating_range", "zero_rating"):  # keys that earlier versions did not have
        if settings[name] == getattr(DataConfig(), name):
            settings.pop(name)
    names = set(settings.pop("text_features"))
    if ("authors" in names) != ("genres" in names):
        return settings | {"text_features": sorted(names)}
    flags = {"shows_match": "authors", "shows_ratings": "ease", "shows_readers": "readers"}
    return settings | {flag: name in names for flag, name in flags.items()}


def _rating_rules(cfg: DataConfig) -> RatingRules:
    if cfg.rating_range is None:
        return RatingRules(None, implicit=cfg.positive_rating)
    low, high = cfg.rating_range
    return RatingRules((low, high), cfg.zero_rating)


def _build(root: Path, cfg: DataConfig, folder: Path) -> dict[str, object]:
    """Write the tables of the source in `root` into `folder`; return the counts."""
    raw_tables = bookdb.read(root)
    all_books, given = features.build_books(raw_tables, cfg), features.given_ids(raw_tables)
    with tempfile.TemporaryDirectory(dir=folder) as temp:
        n_other: Counter[str] = Counter(raw_tables.counts)  # dropped or converted while reading
        raw = bookdb.ratings(root, cfg.batch_rows, _rating_rules(cfg), n_other)
        spool = histories.spool(raw, all_books["book_id"].to_numpy(), Path(temp) / "spool")
        books, editions = features.merge_editions(all_books, spool.n_of_book)
        rated = histories.merge(
            spool.ratings, editions["book"].to_numpy(), Path(temp) / "rated", cfg.batch_rows
        )
        n_given = int(np.isin(books["book_id"], given).sum()) if cfg.text == "given" else 0
        counts: dict[str, object] = {
            "books_in": len(all_books),
            "books": len(books),
            "books_with_given_text": n_given,
            "ratings_in": spool.n_in
            + sum(n for name, n in n_other.items() if name.startswith("ratings_dropped_")),
            "ratings_dropped_unknown_book": spool.n_unknown,
            **n_other,
            "ratings_dropped_same_work": spool.n_in - spool.n_unknown - int(rated.n_of_user.sum()),
        }
        kept_users, keys = _keep_users(rated, cfg, counts)
        users = splits.build_users(rated.user_ids.take(pa.array(kept_users)), keys, cfg)
        n_targets = _write_histories(folder, books, users, _split(rated, kept_users, keys, cfg))
        _write(folder, books, users, editions)
    counts |= {
        "users": len(users),
        "ratings": int(rated.n_of_user[kept_users].sum()),
        "targets": n_targets,
    }
    return counts | {
        f"users_{split}": int((users["split"] == split).sum()) for split in splits.SPLITS
    }


def _keep_users(
    rated: histories.Ratings, cfg: DataConfig, counts: dict[str, object]
) -> tuple[IntArray, KeyArray]:
    """Return the ascending positions in `rated` of the users to keep, and the keys of their ids."""
    kept_users = np.flatnonzero(rated.n_of_user >= cfg.min_ratings)
    keys = text_keys(rated.user_ids.take(pa.array(kept_users)).to_pylist())
    counts["users_in"] = len(rated.n_of_user)
    counts["users_dropped_few_ratings"] = len(rated.n_of_user) - len(kept_users)
    if cfg.max_users is not None and len(kept_users) > cfg.max_users:
        counts["users_dropped_by_max_users"] = len(kept_users) - cfg.max_users
        order = np.argsort(bits(cfg.seed, "sample users", keys), kind="stable")
        sample = np.sort(order[: cfg.max_users])
        kept_users, keys = kept_users[sample], keys[sample]
    if len(kept_users) == 0:
        raise DataError(
            f"reduced_interactions.parquet: none of {len(rated.n_of_user)} users has "
            f"{cfg.min_ratings} rated books of the catalogue. Lower data.min_ratings (at least 2) "
            "or give more ratings."
        )
    return kept_users, keys


def _split(
    rated: histories.Ratings, kept_users: IntArray, keys: KeyArray, cfg: DataConfig
) -> Iterator[pa.Table]:
    """Yield the histories of the kept users with is_target, one row group at a time."""
    for rows in rated.blocks(kept_users, ROW_GROUP):
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
    """Write books, users and editions, and the books table of the original system."""
    stored_users = users.rename(columns={"split": _SPLIT_ON_DISK})
    for name, frame in {"books": books, "users": stored_users, "editions": editions}.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False, compression=COMPRESSION)
    reduced = books.rename(columns=_BOOKDB_BOOKS)[list(_BOOKDB_BOOKS.values())]
    reduced.to_parquet(folder / "reduce_books_df.parquet", index=False, compression=COMPRESSION)


def _write_histories(
    folder: Path, books: pd.DataFrame, users: pd.DataFrame, blocks: Iterator[pa.Table]
) -> int:
    """Write our table of ratings and that of the original system; return the number of targets."""
    book_ids, user_ids = books["book_id"].to_numpy(), pa.array(users["user_id"])
    n_targets = 0
    with (
        pq.ParquetWriter(
            folder / "histories.parquet",
            _HISTORIES,
            compression=COMPRESSION,
            use_dictionary=["book", "rating"],
            column_encoding=_ENCODING,
        ) as histories_writer,
        pq.ParquetWriter(
            folder / "sampled_users_book.parquet", _BOOKS_READ, compression=COMPRESSION
        ) as bookdb_writer,
    ):
        for block in blocks:
            histories_writer.write_table(block)
            bookdb_writer.write_table(_books_read(block, book_ids, user_ids))
            n_targets += pc.sum(block["is_target"]).as_py()
    return n_targets


def _books_read(block: pa.Table, book_ids: IntArray, user_ids: pa.Array) -> pa.Table:
    """Return the original system's `user_id, books_read` for a block of users.

    A user's book ids come best rated first, then by ascending id.
    """
    user, book, rating = (block[name].to_numpy() for name in ("user", "book", "rating"))
    order = np.lexsort((-rating, user))  # stable, and a user's books ascend
    size = np.bincount(user - user[0])
    offsets = pa.array(np.append(0, np.cumsum(size)), pa.int32())
    lists = pa.ListArray.from_arrays(offsets, pa.array(book_ids[book[order]]))
    return pa.table(
        [user_ids.slice(int(user[0]), len(size)).cast(pa.string()), lists], schema=_BOOKS_READ
    )
