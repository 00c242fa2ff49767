"""Build candidate lists: what evaluation ranks, independent of how training pairs are sampled."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd

from reranker.cache import COMPRESSION, Cache
from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.data.draws import FloatArray, IntArray, KeyArray, bits, uniform
from reranker.data.retrieval.first_stages import fit_first_stage
from reranker.errors import DataError

VERSION = 2
CHUNK = 256  # users drawn at once; bounds memory to CHUNK x n_books floats
BOOKDB_POSITIVES = 3  # positives per list in the original system
BOOKDB_NEGATIVES = 3  # negatives per positive
# Draws and digests of bookdb lists use the kind's first name, so that they stay as they were.
_HASHED_AS = {"bookdb": "seed"}


@dataclass(frozen=True)
class CandidateLists:
    """The candidate lists of one split.

    Attributes:
        frame: A row per candidate, grouped by kind and sorted by (user, book) in it: kind str, user
            int32, book int32, label int8, retrieval_score float32 (the first stage's score in a
            `retriever` list, NaN in the others).
        digest: SHA-256 of kind, user_id, book_id and label of all rows. Equal lists have equal
            digests in any run.
        split: "dev" or "test".
        hit: Whether they came from the cache.
        counts: Users in, out and left out, by reason.
    """

    frame: pd.DataFrame
    digest: str
    split: str
    hit: bool
    counts: dict[str, int]


def build_lists(tables: Tables, cfg: EvalConfig, split: str, cache: Cache) -> CandidateLists:
    """Return the lists of a split's users, for each kind of `cfg.list_kinds`.

    A `uniform` or `popularity` list holds up to max_positives of the user's positive targets and,
    up to n_candidates in total, books that the user has not rated. `uniform` draws these
    uniformly, `popularity` in proportion to their known ratings; a book without known ratings is
    never drawn. Both draw without replacement by an exponential race (Efraimidis & Spirakis 2006)
    whose clocks are hashes of (seed, user, book). A list therefore depends only on ids and, for
    `popularity`, on the counts.

    A `bookdb` list is the original system's: 3 positives, and 3 uniform negatives for each of
    them, here 9 different ones. Users with fewer positives get no such list and are counted.

    A `retriever` list holds the n_candidates books that the first stage ranks highest among those
    outside the user's context (ties: ascending book_id). The first stage is fitted on the known
    ratings and queried with the context books, so no target influences the candidates. All
    positive targets among them have label 1. A list without a positive has no metric value; it is
    counted, so that the misses of the first stage stay visible (`summarise_first_stage`).

    Users without a positive target get no list of any kind and are counted.

    Raises:
        DataError: No user has a positive target, a user has too few unrated books, or a kind
            holds no positive at all.

    Example:
        >>> lists = build_lists(corpus.tables, cfg.eval, "test", Cache(cfg.cache_dir))
        >>> lists.frame.groupby(["kind", "user"]).size()
    """
    max_users = cfg.max_users if split == "test" else cfg.max_dev_users
    kinds = [_HASHED_AS.get(kind, kind) for kind in cfg.list_kinds]
    settings: list[object] = [kinds, cfg.n_candidates, cfg.max_positives, max_users, cfg.seed]
    if "retriever" in cfg.list_kinds:
        settings += [cfg.retriever, cfg.ease_books]
    key = {"version": VERSION, "tables": tables.digest, "fold": split, "lists": settings}

    def build(folder: Path) -> dict[str, object]:
        frame, counts = _build(tables, cfg, split, max_users=max_users)
        frame.to_parquet(folder / "lists.parquet", index=False, compression=COMPRESSION)
        return dict(counts)

    entry = cache.fetch("lists", key, build)
    frame = pd.read_parquet(entry.path / "lists.parquet")
    frame["kind"] = frame["kind"].replace({old: kind for kind, old in _HASHED_AS.items()})
    counts = {k: int(str(v)) for k, v in entry.info.items()}
    return CandidateLists(frame, digest_lists(frame, tables), split, entry.hit, counts)


def digest_of_kind(lists: CandidateLists, tables: Tables, kind: str) -> str:
    """Return the SHA-256 of the rows of one list kind; metrics are comparable where it agrees."""
    return digest_lists(lists.frame[lists.frame["kind"] == kind], tables)


def digest_lists(frame: pd.DataFrame, tables: Tables) -> str:
    """Return the SHA-256 of kind, user_id, book_id and label, row by row."""
    user_id, book_id = tables.user_ids(frame["user"]), tables.book_ids(frame["book"])
    kind = frame["kind"].replace(_HASHED_AS)
    rows = zip(kind, user_id, book_id.tolist(), frame["label"].tolist(), strict=True)
    lines = "\n".join(f"{k}\t{u}\t{b}\t{label}" for k, u, b, label in rows)
    return hashlib.sha256(lines.encode()).hexdigest()


def _build(
    tables: Tables, cfg: EvalConfig, split: str, *, max_users: int | None
) -> tuple[pd.DataFrame, dict[str, int]]:
    positives = tables.positives(split)
    in_split = int((tables.users["split"] == split).sum())
    users = np.unique(positives["user"])
    counts = {"users_in": in_split, "users_without_positives": in_split - len(users)}
    if len(users) == 0:
        raise DataError(
            f"none of {in_split} {split} users has a target book rated {tables.positive_rating} "
            "or more: nothing to rank. Give more users, or lower data.positive_rating."
        )
    chosen = choose_users(users, tables, max_users, cfg.seed)
    if len(chosen) < len(users):
        counts["users_dropped_by_limit"] = len(users) - len(chosen)
        users = chosen
    builder = _Builder(tables, cfg, positives[positives["user"].isin(users)])
    kinds = sorted(cfg.list_kinds, key=lambda kind: _HASHED_AS.get(kind, kind))
    frame = pd.concat([builder.lists(kind) for kind in kinds], ignore_index=True)
    counts |= {"users": len(users), "positives": len(builder.first_positives(cfg.max_positives))}
    counts |= {"rows": len(frame)} | _shortfalls(frame, len(users))
    return frame, counts


def choose_users(users: IntArray, tables: Tables, limit: int | None, seed: int) -> IntArray:
    """Return at most `limit` of the user codes, chosen by a hash of their ids, ascending."""
    if limit is None or len(users) <= limit:
        return np.sort(users)
    keys = tables.users["key"].to_numpy()[users]
    order = np.argsort(bits(seed, "list users", keys), kind="stable")
    return np.sort(users[order[:limit]])


def _shortfalls(frame: pd.DataFrame, n_users: int) -> dict[str, int]:
    """Return the non-zero counts of users without a list of a kind, or without a positive in it."""
    n_positives = frame.groupby(["kind", "user"])["label"].sum().groupby("kind")
    found = n_positives.agg(["size", lambda n: (n == 0).sum()])
    without = {f"users_without_{kind}_list": n_users - int(n) for kind, n in found["size"].items()}
    empty = {f"users_without_{kind}_positive": int(n) for kind, n in found.iloc[:, 1].items()}
    return {name: n for name, n in (without | empty).items() if n}


@dataclass(frozen=True)
class _Builder:
    """Builds the lists of each kind for the users who have positives.

    Attributes:
        positives: user, book of the positive targets.
    """

    tables: Tables
    cfg: EvalConfig
    positives: pd.DataFrame

    @cached_property
    def keys(self) -> KeyArray:
        """(n_users,) hash of every user's id."""
        return self.tables.users["key"].to_numpy()

    @cached_property
    def n_known(self) -> FloatArray:
        """(n_books,) known ratings of every book."""
        book = self.tables.known()["book"]
        return np.bincount(book, minlength=len(self.tables.books)).astype(np.float64)

    def lists(self, kind: str) -> pd.DataFrame:
        """Return the rows of one kind, with the columns of `CandidateLists.frame`."""
        if kind == "retriever":
            rows = self._retrieved()
        elif kind == "bookdb":
            rows = self._bookdb()
        else:
            kept = self.first_positives(self.cfg.max_positives)
            rows = self._with_negatives(kind, kept, size=self.cfg.n_candidates)
        rows = rows.astype({"user": np.int32, "book": np.int32, "label": np.int8})
        rows = rows.sort_values(["user", "book"])
        rows["retrieval_score"] = rows.get("retrieval_score", np.float32("nan"))
        rows.insert(0, "kind", kind)
        return rows.reset_index(drop=True)

    def first_positives(self, n: int, among: pd.DataFrame | None = None) -> pd.DataFrame:
        """Return at most n positives of each user, chosen by a hash of (seed, user, book)."""
        rows = self.positives if among is None else among
        key, book = self.keys[rows["user"]], rows["book"].to_numpy()
        clock = bits(self.cfg.seed, "list positives", key, book)
        place = rows.assign(clock=clock).groupby("user")["clock"].rank(method="first")
        return rows[(place <= n).to_numpy()]

    def _bookdb(self) -> pd.DataFrame:
        n_positives = self.positives.groupby("user")["book"].transform("size")
        enough = self.positives[(n_positives >= BOOKDB_POSITIVES).to_numpy()]
        if enough.empty:
            raise DataError(
                f"none of {self.positives['user'].nunique()} users has the {BOOKDB_POSITIVES} "
                "positive targets of a bookdb list. Leave bookdb out of eval.list_kinds, or give "
                "longer histories."
            )
        kept = self.first_positives(BOOKDB_POSITIVES, enough)
        return self._with_negatives("bookdb", kept, size=BOOKDB_POSITIVES * (1 + BOOKDB_NEGATIVES))

    def _with_negatives(self, kind: str, positives: pd.DataFrame, *, size: int) -> pd.DataFrame:
        users, n_positives = np.unique(positives["user"], return_counts=True)
        negatives = [
            self._race(kind, users[i : i + CHUNK], size - n_positives[i : i + CHUNK])
            for i in range(0, len(users), CHUNK)
        ]
        rows = [positives[["user", "book"]].assign(label=1), *negatives]
        return pd.concat(rows, ignore_index=True)

    def _race(self, kind: str, users: IntArray, n: IntArray) -> pd.DataFrame:
        """Return for each user the n unrated books whose exponential clocks ring first."""
        purpose = f"list {_HASHED_AS.get(kind, kind)}"
        ids = self.tables.books["book_id"].to_numpy()
        chance = uniform(bits(self.cfg.seed, purpose, self.keys[users][:, None], ids[None, :]))
        rate = self.n_known if kind == "popularity" else np.ones(len(ids))
        with np.errstate(divide="ignore"):  # the clock of a book of rate 0 never rings
            clock = -np.log(chance) / rate
        h = self.tables.histories[self.tables.histories["user"].isin(users)]
        clock[np.searchsorted(users, h["user"]), h["book"]] = np.inf
        self._refuse_short(kind, users, np.isfinite(clock).sum(axis=1), n=n)
        order = np.argsort(clock, axis=1)
        row = np.repeat(np.arange(len(users)), n)
        place = np.arange(len(row)) - np.repeat(np.cumsum(n) - n, n)
        return pd.DataFrame({"user": users[row], "book": order[row, place], "label": 0})

    def _retrieved(self) -> pd.DataFrame:
        users, n_books = np.unique(self.positives["user"]), len(self.tables.books)
        tops = self._top_books(users)
        key, liked = (
            f["user"].to_numpy().astype(np.int64) * n_books + f["book"].to_numpy()
            for f in (tops, self.positives)
        )
        label = np.isin(key, liked)
        if not label.any():
            raise DataError(
                f"the {self.cfg.n_candidates} books that {self.cfg.retriever} ranks highest hold "
                f"no positive target of any of {len(users)} users: nothing to rerank. Raise "
                "eval.n_candidates, choose another eval.retriever, or leave retriever out of "
                "eval.list_kinds."
            )
        return tops.assign(label=label)

    def _top_books(self, users: IntArray) -> pd.DataFrame:
        """Return the n_candidates best books of the first stage outside each user's context."""
        h, n = self.tables.histories, self.cfg.n_candidates
        context = h[h["user"].isin(users).to_numpy() & ~h["is_target"].to_numpy()]
        shape = {"n_users": len(self.tables.users), "n_books": len(self.tables.books)}
        stage = fit_first_stage(
            self.cfg.retriever, self.tables.known(), **shape, ease_books=self.cfg.ease_books
        )
        parts = []
        for chunk in (users[i : i + CHUNK] for i in range(0, len(users), CHUNK)):
            own = context[context["user"].isin(chunk)]
            scores = stage.scores(chunk, own).toarray().astype(np.float32)
            scores[np.searchsorted(chunk, own["user"]), own["book"]] = -np.inf
            n_open = np.isfinite(scores).sum(axis=1)
            self._refuse_short("retriever", chunk, n_open, n=np.full(len(chunk), n))
            # A stable sort puts tied books in ascending code, which is ascending book_id.
            book = np.argsort(-scores, axis=1, kind="stable")[:, :n]
            score = np.take_along_axis(scores, book, axis=1).ravel()
            top = {"user": np.repeat(chunk, n), "book": book.ravel(), "retrieval_score": score}
            parts.append(pd.DataFrame(top))
        return pd.concat(parts, ignore_index=True)

    def _refuse_short(self, kind: str, users: IntArray, n_open: IntArray, *, n: IntArray) -> None:
        """Raise if a user has fewer open books than a list needs."""
        short = np.flatnonzero(n_open < n)
        if not len(short):
            return
        first = short[0]
        books = "books outside the context" if kind == "retriever" else "unrated books"
        remedy = "Lower eval.n_candidates."
        if kind == "bookdb":
            remedy = "Leave bookdb out of eval.list_kinds."
        raise DataError(
            f"eval.n_candidates={self.cfg.n_candidates}: "
            f"user_id={self.tables.user_ids(users[first])} has only {n_open[first]} {books} for a "
            f"{kind} list, which needs {n[first]}. {remedy}"
        )
