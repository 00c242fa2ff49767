"""Training pairs: each train user's positives and, for each, books that the user has not rated."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from dask.diagnostics import ProgressBar

from reranker.cache import COMPRESSION, Cache, Entry
from reranker.config import EngineConfig, SamplingConfig
from reranker.data import Contexts, Tables
from reranker.data.draws import IntArray, KeyArray, bits, distinct, text_keys, unseen
from reranker.errors import DataError

VERSION = 2  # raise it when the same inputs give other pairs


@dataclass(frozen=True)
class Pairs:
    """The pairs of a run.

    Attributes:
        path: `pairs.parquet`, the seed's schema: user_id, user_ctx, book_id, book_text, label; texts
            dictionary-encoded.
        codes: The same rows as codes: user int32, book int32, label int8; by user, a positive before its negatives.
        digest: SHA-256 of the folder that holds both.
        hit: They came from the cache.
        counts: Users and pairs in, out and dropped, by reason.
    """

    path: Path
    codes: pd.DataFrame
    digest: str
    hit: bool
    counts: dict[str, int]


@dataclass(frozen=True)
class UserSlice:
    """What one partition needs: some users, whole, with their positives and all that they have rated."""

    key: KeyArray  # (n_users,) of the user id
    user: IntArray  # (n_users,) codes, ascending
    positive_user: IntArray  # (n_positives,) codes, sorted by (user, book)
    positive_book: IntArray
    seen_user: IntArray  # (n_seen,) codes, sorted by (user, book)
    seen_book: IntArray


def build_pairs(tables: Tables, contexts: Contexts, cfg: SamplingConfig, engine: EngineConfig, cache: Cache) -> Pairs:
    """The pairs of the train users, from the cache when tables and sampling are the same.

    Refinement comes first, on codes: users with fewer than min_positives positives among their target books are
    dropped, at most max_positives are kept by hash, and neg_ratio distinct unrated books are drawn for each. A user's
    negatives are distinct over all of the user's positives. Texts are joined last, when the file is written.
    The result depends on seeds and ids alone: not on partitions, order or workers; the pairs of neg_ratio=3 are among
    those of neg_ratio=5.

    Raises:
        DataError: No train user has enough positives, or a user has too few unrated books for neg_ratio.
    """
    key = {"version": VERSION, "tables": tables.digest, "sampling": dataclasses.replace(cfg, regenerate=False)}

    def build(folder: Path) -> dict[str, object]:
        codes, counts = _draw_all(tables, cfg, engine)
        codes.to_parquet(folder / "codes.parquet", index=False, compression=COMPRESSION)
        write_flat(codes, tables, contexts, folder / "pairs.parquet")
        return dict(counts)

    entry: Entry = cache.fetch("pairs", key, build, rebuild=cfg.regenerate)
    codes = pd.read_parquet(entry.path / "codes.parquet")
    counts = {k: int(str(v)) for k, v in entry.info.items()}
    return Pairs(entry.path / "pairs.parquet", codes, entry.digest, entry.hit, counts)


def _draw_all(tables: Tables, cfg: SamplingConfig, engine: EngineConfig) -> tuple[pd.DataFrame, dict[str, int]]:
    train = np.flatnonzero(tables.users["fold"] == "train")
    positives = tables.positives("train")
    n_positives = np.bincount(positives["user"], minlength=len(tables.users))
    keys = text_keys(tables.users["user_id"])
    kept = train[n_positives[train] >= cfg.min_positives]
    counts = {"users_in": len(train), "users_dropped_few_positives": len(train) - len(kept)}
    if len(kept) == 0:
        raise DataError(
            f"none of {len(train)} train users has {cfg.min_positives} positives among the target books. Lower "
            "sampling.min_positives or data.positive_rating."
        )
    if cfg.max_users is not None and len(kept) > cfg.max_users:
        counts["users_dropped_by_max_users"] = len(kept) - cfg.max_users
        kept = np.sort(kept[np.argsort(bits(cfg.seed, "sample users", keys[kept]), kind="stable")[: cfg.max_users]])
    slices = _slices(tables, positives, kept, keys, engine.n_partitions)
    tasks = [dask.delayed(draw)(part, cfg, len(tables.books)) for part in slices]
    with ProgressBar(minimum=2.0):  # seconds before a bar shows
        parts = dask.compute(*tasks, scheduler=engine.scheduler)
    codes = pd.concat(parts, ignore_index=True)
    n_kept = int((codes["label"] == 1).sum())
    n_targets = int(n_positives[kept].sum())
    counts |= {"users": len(kept), "positives_in": n_targets, "positives_dropped_by_max_positives": n_targets - n_kept}
    counts |= {"positives": n_kept, "negatives": len(codes) - n_kept, "pairs": len(codes)}
    return codes, counts


def _slices(tables: Tables, positives: pd.DataFrame, users: IntArray, keys: KeyArray, n: int) -> list[UserSlice]:
    """The users in n contiguous slices at most, none of them empty, each with its own rows."""
    columns = [f[c].to_numpy() for f in (positives, tables.histories) for c in ("user", "book")]

    def rows_of(user: IntArray, book: IntArray, part: IntArray) -> tuple[IntArray, IntArray]:
        low, high = np.searchsorted(user, [part[0], part[-1] + 1])
        mine = np.isin(user[low:high], part)
        return user[low:high][mine], book[low:high][mine]

    return [
        UserSlice(keys[part], part, *rows_of(columns[0], columns[1], part), *rows_of(columns[2], columns[3], part))
        for part in np.array_split(users, min(n, len(users)))
    ]


def draw(part: UserSlice, cfg: SamplingConfig, n_books: int) -> pd.DataFrame:
    """The pairs of one slice of users: a pure function.

    Returns:
        user int32, book int32, label int8; by user, each positive followed by its negatives.
    """
    positive_row, positive_book = _refine(part, cfg)
    n_positives = np.bincount(positive_row, minlength=len(part.user))
    seen_row = np.searchsorted(part.user, part.seen_user)
    n_unseen = n_books - np.bincount(seen_row, minlength=len(part.user))
    _refuse_shortfall(part, n_unseen, n_positives, cfg, n_books)
    slot = np.arange(len(positive_row)) - (np.cumsum(n_positives) - n_positives)[positive_row]
    ranks = _ranks(part, n_unseen, n_positives, cfg)
    # Slot-major: negative j of positive i is draw j * n_positives + i, so that a smaller neg_ratio takes a prefix.
    index = np.arange(cfg.neg_ratio) * n_positives[positive_row][:, None] + slot[:, None]
    rank = ranks[positive_row[:, None], index]
    row = np.repeat(positive_row, cfg.neg_ratio)
    negative = unseen(rank.ravel(), row, seen_row, part.seen_book, n_books).reshape(rank.shape)
    book = np.column_stack([positive_book, negative]).ravel()
    label = np.tile([1] + [0] * cfg.neg_ratio, len(positive_row))
    user = np.repeat(part.user[positive_row], 1 + cfg.neg_ratio)
    return pd.DataFrame({"user": user.astype(np.int32), "book": book.astype(np.int32), "label": label.astype(np.int8)})


def _refine(part: UserSlice, cfg: SamplingConfig) -> tuple[IntArray, IntArray]:
    """At most max_positives positives of each user, by hash; as (row of the slice, book), sorted by (row, hash)."""
    row = np.searchsorted(part.user, part.positive_user)
    order = np.lexsort((bits(cfg.seed, "positives", part.key[row], part.positive_book), row))
    row, book = row[order], part.positive_book[order]
    place = np.arange(len(row)) - np.searchsorted(row, row, side="left")
    return row[place < cfg.max_positives], book[place < cfg.max_positives]


def _ranks(part: UserSlice, n_unseen: IntArray, n_positives: IntArray, cfg: SamplingConfig) -> IntArray:
    """(n_users, most draws of a user) ranks among unseen books; a user's first n_positives * neg_ratio are distinct."""
    most = int(n_positives.max()) * cfg.neg_ratio
    out = np.zeros((len(part.user), most), dtype=np.int64)
    for k in np.unique(n_positives):  # few values: at most max_positives
        rows = np.flatnonzero(n_positives == k)
        n_draws = int(k) * cfg.neg_ratio
        out[rows, :n_draws] = distinct(n_unseen[rows], n_draws, seed=cfg.seed, purpose="negatives", key=part.key[rows])
    return out


def _refuse_shortfall(
    part: UserSlice, n_unseen: IntArray, n_positives: IntArray, cfg: SamplingConfig, n_books: int
) -> None:
    short = np.flatnonzero(n_unseen < n_positives * cfg.neg_ratio)
    if len(short):
        u = short[0]
        raise DataError(
            f"sampling.neg_ratio={cfg.neg_ratio}: {len(short)} users have too few unrated books (first: user code "
            f"{part.user[u]} needs {n_positives[u]} x {cfg.neg_ratio} distinct negatives, has {n_unseen[u]} unrated of "
            f"{n_books} books). Lower sampling.neg_ratio or sampling.max_positives."
        )


def write_flat(codes: pd.DataFrame, tables: Tables, contexts: Contexts, path: Path) -> None:
    """Write pairs in the seed's schema: user_id, user_ctx, book_id, book_text, label.

    Strings are dictionary-encoded, so that each text is stored once, not once for each pair. The dictionary page
    limit is raised for the same reason: above its default of 1 MiB parquet falls back to plain strings.
    """
    user, book = codes["user"].to_numpy(), codes["book"].to_numpy()
    table = pa.table(
        {
            "user_id": _encoded(user, tables.users["user_id"].tolist()),
            "user_ctx": _encoded(user, contexts.text),
            "book_id": pa.array(tables.books["book_id"].to_numpy()[book]),
            "book_text": _encoded(book, tables.books["book_text"].tolist()),
            "label": pa.array(codes["label"].to_numpy()),
        }
    )
    pq.write_table(table, path, compression=COMPRESSION, dictionary_pagesize_limit=64 * 2**20)


def _encoded(codes: IntArray, values: list[str]) -> pa.DictionaryArray:
    """The values of the codes, each distinct one stored once.

    Two users may have one context text. Of a dictionary with a repeated value Arrow 25 writes plain strings and, before
    them, a dictionary page whose last bytes it never set: larger files, of other bytes each time.
    """
    used, index = np.unique(codes, return_inverse=True)
    texts = pa.array([values[i] for i in used], pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(texts.indices.take(pa.array(index.astype(np.int32))), texts.dictionary)
