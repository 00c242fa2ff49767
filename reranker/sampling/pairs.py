"""Build the training pairs: positives of train users, and sampled negatives for each."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import Cache
from reranker.config import EngineConfig, SamplingConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.data.draws import IntArray, bits
from reranker.errors import DataError
from reranker.sampling import engine as dask_engine
from reranker.sampling import parts, retriever
from reranker.sampling.negatives import SOURCES, Choice
from reranker.sampling.parts import Part, WrittenPart
from reranker.sampling.weighted import UserBooks, popularity_weights

VERSION = 4  # raise it when the same inputs give other pairs
PARTS = "training_pairs.parquet"
CODES = "codes.parquet"
# Settings for pairs that are given as files, and for the files that a run writes.
FILE_KEYS = ("path", "parts", "val_size", "split_by", "refined_file")

Candidates = Callable[[IntArray, IntArray], pa.Array]  # users and books -> texts


@dataclass(frozen=True)
class Pairs:
    """The refined pairs of a run.

    Attributes:
        path: `pairs.parquet` with user_id, user_ctx, book_id, book_text, label (the original
            system's columns); texts are dictionary-encoded. If refinement changes nothing, the
            file is not written, and `path` is `parts`.
        parts: `training_pairs.parquet/`: all pairs before refinement, in part files with the same
            columns and the books' own texts, and `_manifest.json` with their rows and SHA-256.
        codes: The rows of `path` as codes: user, context, book int32, label int8, source (a name
            of SOURCES); sorted by user, a positive before its negatives. The code of a context is
            its user's code, or with leave_one_out a separate number.
        has_own_contexts: Whether every positive has a separate context (leave_one_out).
        digest: SHA-256 of the folder that holds them.
        hit: Whether they came from the cache.
        counts: Users and pairs in, out and dropped, by reason.
    """

    path: Path
    parts: Path
    codes: pd.DataFrame
    has_own_contexts: bool
    digest: str
    hit: bool
    counts: dict[str, int]


def build_pairs(corpus: Corpus, cfg: SamplingConfig, engine: EngineConfig, cache: Cache) -> Pairs:
    """Return the pairs of the train users; they are cached by tables, contexts and sampling.

    Positives are the books with a rating of at least positive_rating: the target books (`holdout`),
    or all books of the history, each with a context of the user's other books (`leave_one_out`).
    Pairs are drawn as codes, and refinement (min_positives, max_positives, negatives_per_positive)
    happens before texts are read. A user's negatives are distinct over all positives of the user.
    The result depends only on seeds and ids, not on partitions, order or workers.

    Raises:
        DataError: No train user has enough positives, or a user has too few unrated books for
            neg_ratio.
        EngineError: The cluster of engine=cluster cannot be reached.

    Example:
        >>> pairs = build_pairs(corpus, cfg.sampling, cfg.engine, cache)
        >>> pd.read_parquet(pairs.path).columns.to_list()
        ['user_id', 'user_ctx', 'book_id', 'book_text', 'label']
    """
    tables, contexts = corpus.tables, corpus.contexts
    key = {
        "version": VERSION,
        "tables": tables.digest,
        "contexts": _hash(contexts.text),
        "sampling": _settings(cfg),
        **contexts.cache_key,
    }

    def build(folder: Path) -> dict[str, object]:
        work, counts = _parts(corpus, cfg)
        for name in (PARTS, CODES):
            (folder / name).mkdir()
        books = tables.path / "books.parquet"
        write = partial(
            parts.write, cfg=cfg, books=books, folder=folder / PARTS, codes_folder=folder / CODES
        )
        written = dask_engine.run(write, work, engine)
        for temp in folder.glob("*/.*.tmp"):  # files of killed workers; others wrote the parts
            temp.unlink()
        _write_refined(
            written,
            folder,
            None
            if contexts.numeric_features is None
            else partial(contexts.candidates, tables.books),
        )
        _write_manifest(written, folder / PARTS)
        return dict(counts | _totals(written))

    entry = cache.fetch("pairs", key, build, rebuild=cfg.regenerate)
    counts = {k: int(str(v)) for k, v in entry.info.items()}
    return Pairs(
        path=next(
            path for name in ("pairs.parquet", PARTS) if (path := entry.path / name).exists()
        ),
        parts=entry.path / PARTS,
        codes=_read_codes(entry.path / CODES),
        has_own_contexts=cfg.context == "leave_one_out",
        digest=entry.digest,
        hit=entry.hit,
        counts=counts,
    )


def _settings(cfg: SamplingConfig) -> SamplingConfig:
    """Return the settings that identify generated pairs; those for files are reset."""
    defaults = SamplingConfig()
    reset = {name: getattr(defaults, name) for name in (*FILE_KEYS, "regenerate")}
    return dataclasses.replace(cfg, **reset)


def _hash(texts: list[str]) -> str:
    content = hashlib.sha256()
    _, ends, values = pa.array(texts, pa.large_string()).buffers()
    for buffer in (ends, values):
        content.update(buffer)
    return content.hexdigest()


def _parts(corpus: Corpus, cfg: SamplingConfig) -> tuple[list[Part], dict[str, int]]:
    tables = corpus.tables
    positives = _positives(tables, cfg)
    n_positives = np.bincount(positives["user"], minlength=len(tables.users))
    users, counts = _users(tables, n_positives, cfg)
    n_kept = np.where(n_positives >= cfg.min_positives, n_positives, 0)[users]
    counts["positives_in"] = int(n_positives[users].sum())
    if cfg.max_positives is not None:
        n_kept = np.minimum(n_kept, cfg.max_positives)
    _refuse_shortfall(tables, users, n_kept, cfg)
    counts["positives_dropped_by_refinement"] = counts["positives_in"] - int(n_kept.sum())
    near = None
    if _uses(cfg, "retriever"):
        near = retriever.near(corpus, cfg, users=users, positives=positives)
    return list(_split(corpus, cfg, users, positives=positives, near=near)), counts


def _positives(tables: Tables, cfg: SamplingConfig) -> pd.DataFrame:
    if cfg.context == "holdout":
        return tables.positives("train")
    h = tables.histories
    return h[_is_of_train_user(tables) & (h["rating"] >= tables.positive_rating).to_numpy()]


def _is_of_train_user(tables: Tables) -> np.ndarray:
    return (tables.users["split"] == "train").to_numpy()[tables.histories["user"]]


def _users(
    tables: Tables, n_positives: IntArray, cfg: SamplingConfig
) -> tuple[IntArray, dict[str, int]]:
    """Return the train users with a positive, or max_users of those that refinement keeps."""
    train = np.flatnonzero(tables.users["split"] == "train")
    kept = train[n_positives[train] >= cfg.min_positives]
    counts = {"users_in": len(train), "users_dropped_few_positives": len(train) - len(kept)}
    if len(kept) == 0:
        raise DataError(
            f"none of {len(train)} train users has {cfg.min_positives} positives among the target "
            "books. Lower sampling.min_positives or data.positive_rating."
        )
    users = train[n_positives[train] > 0]
    if cfg.max_users is not None and len(kept) > cfg.max_users:
        counts["users_dropped_by_max_users"] = len(kept) - cfg.max_users
        key = tables.users["key"].to_numpy()[kept]
        order = np.argsort(bits(cfg.seed, "sample users", key), kind="stable")
        users = kept = np.sort(kept[order[: cfg.max_users]])
    return users, counts | {"users": len(kept)}


def _refuse_shortfall(
    tables: Tables, users: IntArray, n_kept: IntArray, cfg: SamplingConfig
) -> None:
    user_codes = np.arange(len(tables.users) + 1, dtype=np.int32)
    ends = np.searchsorted(tables.histories["user"].to_numpy(), user_codes)
    n_unseen = len(tables.books) - np.diff(ends)[users]
    n_negatives = parts.kept_negatives(cfg)
    short = np.flatnonzero(n_unseen < n_kept * n_negatives)
    if len(short) and cfg.shortfall == "error":
        i = short[0]
        raise DataError(
            f"sampling.neg_ratio={cfg.neg_ratio}: {len(short)} users have too few unrated books "
            f"(first: user_id={tables.user_ids(users[i])} needs {n_kept[i]} x {n_negatives} "
            f"distinct negatives, has {n_unseen[i]} unrated of {len(tables.books)} books). Lower "
            "sampling.neg_ratio or sampling.max_positives, or set sampling.shortfall=truncate."
        )


def _uses(cfg: SamplingConfig, source: str) -> bool:
    """Return whether negatives are drawn from a source."""
    return cfg.strategy == source or (cfg.strategy == "mix" and getattr(cfg.mix, source) > 0)


def _split(
    corpus: Corpus,
    cfg: SamplingConfig,
    users: IntArray,
    *,
    positives: pd.DataFrame,
    near: pd.DataFrame | None,
) -> Iterator[Part]:
    """Yield parts with about part_pairs pairs before refinement, independent of the engine."""
    tables, contexts = corpus.tables, corpus.contexts
    frames = {
        "positive": positives,
        "rated": tables.histories,
        "near": near,
        "disliked": _disliked(tables, cfg),
    }
    columns = {
        name: None if frame is None else (frame["user"].to_numpy(), frame["book"].to_numpy())
        for name, frame in frames.items()
    }
    popularity = None
    if _uses(cfg, "popularity"):
        n_ratings = np.bincount(tables.known()["book"], minlength=len(tables.books))
        popularity = popularity_weights(n_ratings, cfg.popularity_exponent)
    keys = tables.users["key"].to_numpy()
    ids = pa.array(tables.users["user_id"], pa.string())
    texts = pa.array(contexts.text, pa.string())
    n_positives = np.bincount(positives["user"], minlength=len(tables.users))[users]
    n_pairs = n_positives * (1 + cfg.neg_ratio)
    first_context = 0
    for number, mine in enumerate(np.split(users, _cuts(n_pairs, cfg.part_pairs))):
        books = {name: _user_books(pair, mine) for name, pair in columns.items()}
        positive = books.pop("positive")
        choice = Choice(keys[mine], n_books=len(tables.books), popularity=popularity, **books)
        if cfg.context == "holdout":
            own, context = None, texts.take(pa.array(mine))
        else:
            own = first_context
            context = _leave_one_out_contexts(contexts, tables.histories, mine, positive)
        yield Part(number, mine, ids.take(pa.array(mine)), positive, choice, context, own)
        first_context += len(positive.row)


def _disliked(tables: Tables, cfg: SamplingConfig) -> pd.DataFrame | None:
    """Return the low ratings of train users for the source `disliked`; None if it is not used."""
    if not _uses(cfg, "disliked"):
        return None
    h = tables.histories
    rows = h[_is_of_train_user(tables) & (h["rating"] <= cfg.disliked_rating).to_numpy()]
    return rows[rows["is_target"].to_numpy()] if cfg.context == "holdout" else rows


def _cuts(n_pairs: IntArray, size: int) -> IntArray:
    """Return the indices that split users into parts of about `size` pairs."""
    before = np.cumsum(n_pairs) - n_pairs
    return np.flatnonzero(np.diff(before // size)) + 1


def _user_books(columns: tuple[IntArray, IntArray] | None, users: IntArray) -> UserBooks:
    """Return the users' rows of sorted (user, book) columns; `users` are ascending codes."""
    if columns is None:
        return UserBooks(np.empty(0, dtype=np.int32), np.empty(0, dtype=np.int32))
    user, book = columns
    first, end = int(users[0]), int(users[-1]) + 1
    low, high = np.searchsorted(user, np.array([first, end], dtype=user.dtype))
    place = np.full(end - first, -1, dtype=np.int32)
    place[users - first] = np.arange(len(users), dtype=np.int32)
    row = place[user[low:high] - first]
    mine = row >= 0
    return UserBooks(row[mine], book[low:high][mine])


def _leave_one_out_contexts(
    contexts: Contexts, histories: pd.DataFrame, users: IntArray, positive: UserBooks
) -> pa.Array:
    """Return one context text per positive, made of the user's other books."""
    user = histories["user"].to_numpy()
    low, high = np.searchsorted(user, [users[0], users[-1] + 1])
    rows = histories.iloc[low:high]
    columns = [rows[name].to_numpy() for name in ("user", "book", "rating", "timestamp")]
    texts = contexts.builder.render_without(
        *columns, left_user=users[positive.row], left_book=positive.book
    )
    return pa.array(texts, pa.string())


def _read_codes(folder: Path) -> pd.DataFrame:
    columns = pq.read_table(folder)
    codes = {name: columns[name].to_numpy() for name in columns.column_names}
    source = pd.Categorical.from_codes(codes.pop("source"), list(SOURCES))
    return pd.DataFrame(codes).assign(source=source)


def _write_refined(written: list[WrittenPart], folder: Path, candidates: Candidates | None) -> None:
    """Write `pairs.parquet`, one row group per part, if refinement or text features change rows."""
    if candidates is None and all(result.is_kept is None for result in written):
        return
    with pq.ParquetWriter(folder / "pairs.parquet", parts.FLAT, **parts.WRITE) as writer:
        for result in written:
            if result.n_pairs:
                table = parts.refined(folder / PARTS / result.name, result.is_kept)
                if candidates is not None:
                    codes = pq.read_table(folder / CODES / result.name, columns=["user", "book"])
                    table = parts.with_texts(
                        table, candidates(*(codes[name].to_numpy() for name in ("user", "book")))
                    )
                writer.write_table(table)


def _write_manifest(written: list[WrittenPart], folder: Path) -> None:
    files = {result.name: {"rows": result.rows, "sha256": result.sha256} for result in written}
    manifest = {"rows": sum(result.rows for result in written), "files": files}
    (folder / "_manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


def _totals(written: list[WrittenPart]) -> dict[str, int]:
    totals = {name: sum(result.counts[name] for result in written) for name in written[0].counts}
    n_pairs = sum(result.n_pairs for result in written)
    n_positives = sum(result.n_positives for result in written)
    all_pairs = sum(result.rows for result in written)
    own = {"positives": n_positives, "negatives": n_pairs - n_positives, "pairs": n_pairs}
    return totals | own | {"pairs_before_refinement": all_pairs}
