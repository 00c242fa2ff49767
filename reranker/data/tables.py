"""The tables that every later stage reads: books, users with folds, histories with context and target sides."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache, digest, digest_file
from reranker.config import DataConfig, WorldConfig
from reranker.data import bookdb, demo, features, folds
from reranker.data.draws import bits, text_keys
from reranker.errors import DataError

VERSION = 2  # of what this file writes; raise it when the same inputs give other tables

# Seed's column -> ours
_SEED_BOOKS = {
    "book_id": "book_id",
    "title": "title",
    "description": "description",
    "genres": "genre",
    "authors": "authors",
}


@dataclass(frozen=True)
class Tables:
    """All that is known of books and readers; a code is a row number.

    Attributes:
        books: Row i is book code i, ascending book_id: book_id int64, title, series, authors, genres, description,
            book_text (str, never null).
        users: Row u is user code u, ascending user_id: user_id str, fold str ("train", "dev", "test").
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
        train = (self.users["fold"] == "train").to_numpy()[self.histories["user"]]
        return self.histories[train | ~self.histories["is_target"].to_numpy()]

    def positives(self, fold: str) -> pd.DataFrame:
        """The target ratings of a fold's users that are positives, sorted by (user, book)."""
        h = self.histories
        in_fold = (self.users["fold"] == fold).to_numpy()[h["user"]]
        return h[in_fold & h["is_target"].to_numpy() & (h["rating"] >= self.positive_rating).to_numpy()]


def load(cfg: DataConfig, cache: Cache) -> Tables:
    """Tables of the source that `cfg` names, from the cache when files and settings are the same.

    The cache folder also holds the seed's feature tables, `reduce_books_df.parquet` and `sampled_users_book.parquet`.

    Raises:
        DataError: The source is missing, corrupt, of another schema, or too small for three folds.
    """
    root = _world(cfg.world, cache) if cfg.name == "demo" else Path(str(cfg.root))
    key = {
        "version": VERSION,
        "files": {path.name: digest_file(path) for path in bookdb.files(root)},
        "data": dataclasses.replace(cfg, root=None, world=WorldConfig()),
    }
    entry = cache.fetch("tables", key, lambda folder: _build(root, cfg, folder))
    books, users, histories, editions = (
        pd.read_parquet(entry.path / f"{name}.parquet") for name in ("books", "users", "histories", "editions")
    )
    counts = {k: int(str(v)) for k, v in entry.info.items()}
    # Settings too: positive_rating and the context sizes decide pairs and lists, and leave no trace in the files.
    identity = digest({"files": entry.digest, "data": key["data"]})
    return Tables(books, users, histories, editions, cfg.positive_rating, identity, counts, entry.path, entry.hit)


def _world(world: WorldConfig, cache: Cache) -> Path:
    return cache.fetch(
        "world", {"version": demo.VERSION, "world": world}, lambda folder: demo.generate(world, folder)
    ).path


def _build(root: Path, cfg: DataConfig, folder: Path) -> dict[str, object]:
    raw = bookdb.read(root)
    ratings = raw.ratings.to_pandas()
    all_books = features.build_books(raw, cfg)
    books, editions = features.merge_editions(all_books, ratings)
    counts: dict[str, object] = {"books_in": len(all_books), "books": len(books), "ratings_in": len(ratings)}
    ratings = _merge_ratings(ratings, editions, counts)
    ratings = _keep_users(ratings, cfg, counts)
    users = folds.build_users(ratings["user_id"].unique(), cfg)
    histories = folds.split(_encode(ratings, users), users, cfg)
    counts |= {"users": len(users), "ratings": len(histories), "targets": int(histories["is_target"].sum())}
    counts |= {f"users_{fold}": int((users["fold"] == fold).sum()) for fold in folds.FOLDS}
    _write(folder, books, users, histories, editions)
    return counts


def _merge_ratings(ratings: pd.DataFrame, editions: pd.DataFrame, counts: dict[str, object]) -> pd.DataFrame:
    """Ratings by book code, one for each (user, book): the latest, then the highest, stands for a reader's editions."""
    frame = ratings.merge(editions, on="book_id", how="left")
    known = frame["book"].notna()
    counts["ratings_dropped_unknown_book"] = int((~known).sum())
    frame = frame[known].astype({"book": np.int32, "rating": np.float32})
    if "timestamp" not in frame:
        frame["timestamp"] = 0
    frame["timestamp"] = frame["timestamp"].fillna(0).astype(np.int64)
    frame = frame.sort_values(["user_id", "book", "timestamp", "rating"], kind="stable")
    once = frame.drop_duplicates(["user_id", "book"], keep="last")
    counts["ratings_dropped_same_work"] = len(frame) - len(once)
    return once[["user_id", "book", "rating", "timestamp"]]


def _keep_users(ratings: pd.DataFrame, cfg: DataConfig, counts: dict[str, object]) -> pd.DataFrame:
    n_rated = ratings["user_id"].value_counts()
    kept = n_rated.index[n_rated >= cfg.min_ratings].sort_values()
    counts["users_in"] = len(n_rated)
    counts["users_dropped_few_ratings"] = len(n_rated) - len(kept)
    if cfg.max_users is not None and len(kept) > cfg.max_users:
        order = np.argsort(bits(cfg.seed, "sample users", text_keys(kept)), kind="stable")
        counts["users_dropped_by_max_users"] = len(kept) - cfg.max_users
        kept = kept[order[: cfg.max_users]]
    if len(kept) == 0:
        raise DataError(
            f"reduced_interactions.parquet: none of {len(n_rated)} users has {cfg.min_ratings} rated books of the "
            "catalogue. Lower data.min_ratings (at least 2) or give more ratings."
        )
    return ratings[ratings["user_id"].isin(kept)]


def _encode(ratings: pd.DataFrame, users: pd.DataFrame) -> pd.DataFrame:
    code = pd.Series(np.arange(len(users), dtype=np.int32), index=users["user_id"])
    frame = ratings.assign(user=ratings["user_id"].map(code).astype(np.int32))
    return frame[["user", "book", "rating", "timestamp"]].sort_values(["user", "book"]).reset_index(drop=True)


def _write(
    folder: Path, books: pd.DataFrame, users: pd.DataFrame, histories: pd.DataFrame, editions: pd.DataFrame
) -> None:
    for name, frame in {"books": books, "users": users, "histories": histories, "editions": editions}.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False, compression=COMPRESSION)
    seed_books = books.rename(columns=_SEED_BOOKS)[list(_SEED_BOOKS.values())]
    seed_books.to_parquet(folder / "reduce_books_df.parquet", index=False, compression=COMPRESSION)
    pq.write_table(_books_read(books, users, histories), folder / "sampled_users_book.parquet", compression=COMPRESSION)


def _books_read(books: pd.DataFrame, users: pd.DataFrame, histories: pd.DataFrame) -> pa.Table:
    """The seed's `user_id, books_read`: each user's book ids, best rated first, then ascending id."""
    order = np.lexsort((histories["book"], -histories["rating"], histories["user"]))
    values = pa.array(books["book_id"].to_numpy()[histories["book"].to_numpy()[order]])
    offsets = np.concatenate([[0], np.cumsum(np.bincount(histories["user"], minlength=len(users)))])
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)
    return pa.table({"user_id": pa.array(users["user_id"].tolist(), pa.string()), "books_read": lists})
