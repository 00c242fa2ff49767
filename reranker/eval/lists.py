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
from reranker.data.retrieval.ease import Ease
from reranker.data.retrieval.first_stages import ItemKNN, fit_first_stage
from reranker.errors import DataError

VERSION = 2
CHUNK = 256  # users drawn at once; bounds memory to CHUNK x n_books floats
BOOKDB_POSITIVES = 3  # positives per list in the original system
BOOKDB_NEGATIVES = 3  # negatives per positive
# Draws and digests of bookdb lists use the kind's first name, so that they stay as they were.
_HASHED_AS = {"bookdb": "seed"}


@dataclass(frozen=True)
class CandidateLists:
    """The frozen lists of one split.

    Attributes:
        frame: A candidate: kind str, user int32, book int32, label int8, retrieval_score float32 (what the first stage
            gave it in a `retriever` list, NaN in others); sorted by (kind, user, book).
        digest: SHA-256 of kind, user_id, book_id and label of all rows: equal lists, equal hash, in any run.
        split: "dev" or "test".
        hit: They came from the cache.
        counts: Users in, out and left out, by reason.
    """

    frame: pd.DataFrame
    digest: str
    split: str
    hit: bool
    counts: dict[str, int]


def build_lists(tables: Tables, cfg: EvalConfig, split: str, cache: Cache) -> CandidateLists:
    """The lists of a split's users, for each kind of `cfg.list_kinds`.

    A `uniform` or `popularity` list holds up to max_positives of the user's positive target books and, up to
    n_candidates in all, books that the user has not rated: `uniform` draws them uniformly, `popularity` in proportion
    to their known ratings (books that nobody rated never come). Both draw without replacement by an exponential race
    (Efraimidis & Spirakis 2006) whose clocks are hashes of (seed, user, book), so a list depends on nothing but ids
    and, for `popularity`, the counts.

    A `bookdb` list is the original's: 3 positives and 3 uniform negatives for each, here 9 different ones. Users with
    fewer positives get none and are counted.

    A `retriever` list holds the n_candidates books that the first stage ranks highest among those outside the user's
    context books (ties: ascending book_id); it is fitted on what is known and asked with the context books, so no
    target moves a candidate. All positive targets among them have label 1; a list may hold none, has no value then and
    is counted, so that what the first stage misses stays visible (`summarise_first_stage`).

    Users without a positive target have nothing to find: they get no list of any kind and are counted.

    Raises:
        DataError: No user has a positive target, a user has too few unrated books, or a kind holds no positive at all.
    """
    max_users = cfg.max_users if split == "test" else cfg.max_dev_users
    kinds = [_HASHED_AS.get(kind, kind) for kind in cfg.list_kinds]
    facts: list[object] = [kinds, cfg.n_candidates, cfg.max_positives, max_users, cfg.seed]
    if "retriever" in cfg.list_kinds:
        facts += [cfg.retriever, cfg.ease_books]
    key = {"version": VERSION, "tables": tables.digest, "fold": split, "lists": facts}

    def build(folder: object) -> dict[str, object]:
        frame, counts = _build(tables, cfg, split, max_users)
        frame.to_parquet(f"{folder}/lists.parquet", index=False, compression=COMPRESSION)
        return dict(counts)

    entry = cache.fetch("lists", key, build)
    frame = pd.read_parquet(entry.path / "lists.parquet")
    counts = {k: int(str(v)) for k, v in entry.info.items()}
    return CandidateLists(frame, digest_lists(frame, tables), split, entry.hit, counts)


def digest_of_kind(lists: CandidateLists, tables: Tables, kind: str) -> str:
    """SHA-256 of the rows of one list kind, as `digest_lists`: figures of that kind are comparable where it agrees."""
    return digest_lists(lists.frame[lists.frame["kind"] == kind], tables)


def with_ids(lists: CandidateLists, tables: Tables) -> pd.DataFrame:
    """The lists by ids, to be kept and read without the tables: kind, user_id, book_id, label, retrieval_score."""
    f = lists.frame
    user_id, book_id = (
        tables.users["user_id"].to_numpy()[f["user"]],
        tables.books["book_id"].to_numpy()[f["book"]],
    )
    named = pd.DataFrame({"kind": f["kind"], "user_id": user_id, "book_id": book_id})
    return named.assign(label=f["label"], retrieval_score=f["retrieval_score"])


def digest_lists(frame: pd.DataFrame, tables: Tables) -> str:
    """SHA-256 over kind, user_id, book_id, label, row by row."""
    user_id = tables.users["user_id"].to_numpy()[frame["user"]]
    book_id = tables.books["book_id"].to_numpy()[frame["book"]]
    kind = frame["kind"].replace(_HASHED_AS)
    rows = zip(kind, user_id, book_id.tolist(), frame["label"].tolist(), strict=True)
    return hashlib.sha256(
        "\n".join(f"{k}\t{u}\t{b}\t{label}" for k, u, b, label in rows).encode()
    ).hexdigest()


def _build(
    tables: Tables, cfg: EvalConfig, split: str, max_users: int | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    positives = tables.positives(split)
    in_split = int((tables.users["split"] == split).sum())
    users = np.unique(positives["user"])
    counts = {"users_in": in_split, "users_without_positives": in_split - len(users)}
    if len(users) == 0:
        raise DataError(
            f"none of {in_split} {split} users has a target book rated {tables.positive_rating} or more: nothing to "
            "rank. Give more users, or lower data.positive_rating."
        )
    keys = tables.users["key"].to_numpy()
    if max_users is not None and len(users) > max_users:
        counts["users_dropped_by_limit"] = len(users) - max_users
        users = np.sort(
            users[np.argsort(bits(cfg.seed, "list users", keys[users]), kind="stable")[:max_users]]
        )
    positives = positives[positives["user"].isin(users)]
    parts = [_kind(kind, tables, positives, keys, cfg) for kind in sorted(cfg.list_kinds)]
    frame = pd.concat(parts, ignore_index=True)
    counts |= {
        "users": len(users),
        "positives": len(_keep_positives(positives, keys, cfg.seed, cfg.max_positives)),
    }
    counts |= {"rows": len(frame)} | _shortfalls(frame, len(users))
    return frame, counts


def _shortfalls(frame: pd.DataFrame, n_users: int) -> dict[str, int]:
    """Users of a kind without a list, or whose list holds no positive, where there are such users."""
    found = (
        frame.groupby(["kind", "user"])["label"]
        .sum()
        .groupby("kind")
        .agg(["size", lambda n: (n == 0).sum()])
    )
    without = {f"users_without_{kind}_list": n_users - int(n) for kind, n in found["size"].items()}
    empty = {f"users_without_{kind}_positive": int(n) for kind, n in found.iloc[:, 1].items()}
    return {name: n for name, n in (without | empty).items() if n}


def _keep_positives(positives: pd.DataFrame, keys: KeyArray, seed: int, n: int) -> pd.DataFrame:
    clock = bits(seed, "list positives", keys[positives["user"]], positives["book"].to_numpy())
    place = positives.assign(clock=clock).groupby("user")["clock"].rank(method="first")
    return positives[(place <= n).to_numpy()]


def _kind(
    kind: str, tables: Tables, positives: pd.DataFrame, keys: KeyArray, cfg: EvalConfig
) -> pd.DataFrame:
    if kind == "retriever":
        rows = _retrieved(tables, positives, cfg)
    elif kind == "bookdb":
        rows = _bookdb(tables, positives, keys, cfg)
    else:
        kept = _keep_positives(positives, keys, cfg.seed, cfg.max_positives)
        rows = _with_negatives(kind, tables, kept, cfg.n_candidates, keys, cfg)
    rows = rows.astype({"user": np.int32, "book": np.int32, "label": np.int8}).sort_values(
        ["user", "book"]
    )
    rows["retrieval_score"] = rows.get("retrieval_score", np.float32("nan"))
    rows.insert(0, "kind", kind)
    return rows.reset_index(drop=True)


def _with_negatives(
    kind: str, tables: Tables, positives: pd.DataFrame, size: int, keys: KeyArray, cfg: EvalConfig
) -> pd.DataFrame:
    weight = np.ones(len(tables.books))
    if kind == "popularity":
        weight = np.bincount(tables.known()["book"], minlength=len(tables.books)).astype(np.float64)
    users, n_positives = np.unique(positives["user"], return_counts=True)
    chunks = range(0, len(users), CHUNK)
    negatives = [
        _race(
            kind, tables, users[i : i + CHUNK], size - n_positives[i : i + CHUNK], weight, keys, cfg
        )
        for i in chunks
    ]
    return pd.concat([positives[["user", "book"]].assign(label=1), *negatives], ignore_index=True)


def _bookdb(
    tables: Tables, positives: pd.DataFrame, keys: KeyArray, cfg: EvalConfig
) -> pd.DataFrame:
    enough = positives.groupby("user")["book"].transform("size") >= BOOKDB_POSITIVES
    if not enough.any():
        raise DataError(
            f"none of {positives['user'].nunique()} users has the {BOOKDB_POSITIVES} positive targets of a bookdb list. "
            "Leave bookdb out of eval.list_kinds, or give longer histories."
        )
    kept = _keep_positives(positives[enough.to_numpy()], keys, cfg.seed, BOOKDB_POSITIVES)
    return _with_negatives(
        "bookdb", tables, kept, BOOKDB_POSITIVES * (1 + BOOKDB_NEGATIVES), keys, cfg
    )


def _retrieved(tables: Tables, positives: pd.DataFrame, cfg: EvalConfig) -> pd.DataFrame:
    users, n_books = np.unique(positives["user"]), len(tables.books)
    h = tables.histories
    context = h[h["user"].isin(users).to_numpy() & ~h["is_target"].to_numpy()]
    shape = {"n_users": len(tables.users), "n_books": n_books}
    stage = fit_first_stage(cfg.retriever, tables.known(), **shape, ease_books=cfg.ease_books)
    tops = [
        _top(stage, tables, users[i : i + CHUNK], context, cfg) for i in range(0, len(users), CHUNK)
    ]
    rows = pd.concat(tops, ignore_index=True)
    key, liked = (
        f["user"].to_numpy().astype(np.int64) * n_books + f["book"].to_numpy()
        for f in (rows, positives)
    )
    label = np.isin(key, liked)
    if not label.any():
        raise DataError(
            f"the {cfg.n_candidates} books that {cfg.retriever} ranks highest hold no positive target of any of "
            f"{len(users)} users: nothing to rerank. Raise eval.n_candidates, choose another eval.retriever, or leave "
            "retriever out of eval.list_kinds."
        )
    return rows.assign(label=label)


def _top(
    stage: ItemKNN | Ease, tables: Tables, users: IntArray, context: pd.DataFrame, cfg: EvalConfig
) -> pd.DataFrame:
    """The n_candidates books outside their context that the first stage ranks highest for each user."""
    mine = context[context["user"].isin(users)]
    scores = stage.scores(users, mine).toarray().astype(np.float32)
    scores[np.searchsorted(users, mine["user"]), mine["book"]] = -np.inf
    n = np.full(len(users), cfg.n_candidates)
    _refuse_short("retriever", tables, users, np.isfinite(scores).sum(axis=1), n, cfg)
    book = np.argsort(-scores, axis=1, kind="stable")[
        :, : cfg.n_candidates
    ]  # codes ascend with book_id
    found = np.take_along_axis(scores, book, axis=1)
    return pd.DataFrame(
        {"user": np.repeat(users, n), "book": book.ravel(), "retrieval_score": found.ravel()}
    )


def _race(
    kind: str,
    tables: Tables,
    users: IntArray,
    n: IntArray,
    weight: FloatArray,
    keys: KeyArray,
    cfg: EvalConfig,
) -> pd.DataFrame:
    """For each user the n unrated books whose exponential clocks of rate `weight` ring first."""
    ids = tables.books["book_id"].to_numpy()
    chance = uniform(
        bits(cfg.seed, f"list {_HASHED_AS.get(kind, kind)}", keys[users][:, None], ids[None, :])
    )
    with np.errstate(divide="ignore"):  # weight 0: the clock never rings
        clock = -np.log(chance) / weight
    h = tables.histories[tables.histories["user"].isin(users)]
    clock[np.searchsorted(users, h["user"]), h["book"]] = np.inf
    _refuse_short(kind, tables, users, np.isfinite(clock).sum(axis=1), n, cfg)
    order = np.argsort(clock, axis=1)
    row = np.repeat(np.arange(len(users)), n)
    place = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
    return pd.DataFrame({"user": users[row], "book": order[row, place], "label": 0})


def _refuse_short(
    kind: str, tables: Tables, users: IntArray, n_open: IntArray, n: IntArray, cfg: EvalConfig
) -> None:
    short = np.flatnonzero(n_open < n)
    if len(short):
        books = "books outside the context" if kind == "retriever" else "unrated books"
        remedy = (
            "Leave bookdb out of eval.list_kinds."
            if kind == "bookdb"
            else "Lower eval.n_candidates."
        )
        raise DataError(
            f"eval.n_candidates={cfg.n_candidates}: user_id={tables.users['user_id'].iloc[users[short[0]]]} has only "
            f"{n_open[short[0]]} {books} for a {kind} list, needs {n[short[0]]}. {remedy}"
        )
