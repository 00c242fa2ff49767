"""Frozen lists: what evaluation ranks, built once, hashed, and independent of how training pairs are sampled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.cache import COMPRESSION, Cache
from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.data.draws import FloatArray, IntArray, KeyArray, bits, uniform
from reranker.errors import DataError

VERSION = 1
CHUNK = 256  # users drawn at once; bounds memory to CHUNK x n_books floats


@dataclass(frozen=True)
class Lists:
    """The frozen lists of one fold.

    Attributes:
        frame: A candidate: kind str, user int32, book int32, label int8; sorted by (kind, user, book).
        hash: SHA-256 of kind, user_id, book_id and label of all rows: equal lists, equal hash, in any run.
        fold: "dev" or "test".
        hit: They came from the cache.
        counts: Users in, out and left out, by reason.
    """

    frame: pd.DataFrame
    hash: str
    fold: str
    hit: bool
    counts: dict[str, int]


def build_lists(tables: Tables, cfg: EvalConfig, fold: str, cache: Cache) -> Lists:
    """The lists of a fold's users, for each kind of `cfg.kinds`.

    A list holds up to max_positives of the user's positive target books and, up to n_candidates in all, books that the
    user has not rated: `uniform` draws them uniformly, `popularity` in proportion to their known ratings (books that
    nobody rated never come). Both draw without replacement by an exponential race (Efraimidis & Spirakis 2006) whose
    clocks are hashes of (seed, user, book), so a list depends on nothing but ids and, for `popularity`, the counts.
    Users without a positive target have nothing to find: they get no list and are counted.

    Raises:
        DataError: No user has a positive target, or a user has too few unrated books.
    """
    max_users = cfg.max_users if fold == "test" else cfg.max_dev_users
    facts = [cfg.kinds, cfg.n_candidates, cfg.max_positives, max_users, cfg.seed]
    key = {"version": VERSION, "tables": tables.digest, "fold": fold, "lists": facts}

    def build(folder: object) -> dict[str, object]:
        frame, counts = _build(tables, cfg, fold, max_users)
        frame.to_parquet(f"{folder}/lists.parquet", index=False, compression=COMPRESSION)
        return dict(counts)

    entry = cache.fetch("lists", key, build)
    frame = pd.read_parquet(entry.path / "lists.parquet")
    counts = {k: int(str(v)) for k, v in entry.info.items()}
    return Lists(frame, hash_lists(frame, tables), fold, entry.hit, counts)


def hash_kind(lists: Lists, tables: Tables, kind: str) -> str:
    """SHA-256 of the rows of one list kind, as `hash_lists`: figures of that kind are comparable where it agrees."""
    return hash_lists(lists.frame[lists.frame["kind"] == kind], tables)


def hash_lists(frame: pd.DataFrame, tables: Tables) -> str:
    """SHA-256 over kind, user_id, book_id, label, row by row."""
    user_id = tables.users["user_id"].to_numpy()[frame["user"]]
    book_id = tables.books["book_id"].to_numpy()[frame["book"]]
    rows = zip(frame["kind"], user_id, book_id.tolist(), frame["label"].tolist(), strict=True)
    return hashlib.sha256("\n".join(f"{k}\t{u}\t{b}\t{label}" for k, u, b, label in rows).encode()).hexdigest()


def _build(tables: Tables, cfg: EvalConfig, fold: str, max_users: int | None) -> tuple[pd.DataFrame, dict[str, int]]:
    positives = tables.positives(fold)
    in_fold = int((tables.users["fold"] == fold).sum())
    users = np.unique(positives["user"])
    counts = {"users_in": in_fold, "users_without_positives": in_fold - len(users)}
    if len(users) == 0:
        raise DataError(
            f"none of {in_fold} {fold} users has a target book rated {tables.positive_rating} or more: nothing to "
            "rank. Give more users, or lower data.positive_rating."
        )
    keys = tables.users["key"].to_numpy()
    if max_users is not None and len(users) > max_users:
        counts["users_dropped_by_limit"] = len(users) - max_users
        users = np.sort(users[np.argsort(bits(cfg.seed, "list users", keys[users]), kind="stable")[:max_users]])
    kept = _keep_positives(positives[positives["user"].isin(users)], keys, cfg)
    parts = [_kind(kind, tables, kept, keys, cfg) for kind in sorted(cfg.kinds)]
    frame = pd.concat(parts, ignore_index=True)
    counts |= {"users": len(users), "positives": len(kept), "rows": len(frame)}
    return frame, counts


def _keep_positives(positives: pd.DataFrame, keys: KeyArray, cfg: EvalConfig) -> pd.DataFrame:
    clock = bits(cfg.seed, "list positives", keys[positives["user"]], positives["book"].to_numpy())
    place = positives.assign(clock=clock).groupby("user")["clock"].rank(method="first")
    return positives[(place <= cfg.max_positives).to_numpy()]


def _kind(kind: str, tables: Tables, positives: pd.DataFrame, keys: KeyArray, cfg: EvalConfig) -> pd.DataFrame:
    weight = np.ones(len(tables.books))
    if kind == "popularity":
        weight = np.bincount(tables.known()["book"], minlength=len(tables.books)).astype(np.float64)
    users, n_positives = np.unique(positives["user"], return_counts=True)
    chunks = range(0, len(users), CHUNK)
    negatives = [
        _race(kind, tables, users[i : i + CHUNK], cfg.n_candidates - n_positives[i : i + CHUNK], weight, keys, cfg)
        for i in chunks
    ]
    rows = pd.concat([positives[["user", "book"]].assign(label=1), *negatives], ignore_index=True)
    rows = rows.astype({"user": np.int32, "book": np.int32, "label": np.int8}).sort_values(["user", "book"])
    rows.insert(0, "kind", kind)
    return rows.reset_index(drop=True)


def _race(
    kind: str, tables: Tables, users: IntArray, n: IntArray, weight: FloatArray, keys: KeyArray, cfg: EvalConfig
) -> pd.DataFrame:
    """For each user the n unrated books whose exponential clocks of rate `weight` ring first."""
    ids = tables.books["book_id"].to_numpy()
    chance = uniform(bits(cfg.seed, f"list {kind}", keys[users][:, None], ids[None, :]))
    with np.errstate(divide="ignore"):  # weight 0: the clock never rings
        clock = -np.log(chance) / weight
    h = tables.histories[tables.histories["user"].isin(users)]
    clock[np.searchsorted(users, h["user"]), h["book"]] = np.inf
    short = np.flatnonzero(np.isfinite(clock).sum(axis=1) < n)
    if len(short):
        raise DataError(
            f"eval.n_candidates={cfg.n_candidates}: user_id={tables.users['user_id'].iloc[users[short[0]]]} has only "
            f"{int(np.isfinite(clock[short[0]]).sum())} unrated books for a {kind} list, needs {n[short[0]]}. Lower "
            "eval.n_candidates."
        )
    order = np.argsort(clock, axis=1)
    row = np.repeat(np.arange(len(users)), n)
    place = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    return pd.DataFrame({"user": users[row], "book": order[row, place], "label": 0})
