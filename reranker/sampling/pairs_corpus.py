"""A corpus made of nothing but a pairs file: its users, their contexts and its book texts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache, Entry
from reranker.config import DataConfig, SamplingConfig
from reranker.data import ContextBuilder, Contexts, Corpus, Tables
from reranker.data.draws import KeyArray, bits, text_keys, uniform
from reranker.data.splits import SPLITS
from reranker.errors import DataError
from reranker.sampling.given_pairs import FILE, TEXTS, GivenPairs, title_of

VERSION = 1  # raise it when the same pairs give another corpus
GIVEN_KIND = "given"  # the list kind of the file's own candidates
LIKED, DISLIKED = 5.0, 1.0
BOOK_TEXTS = ("title", "series", "authors", "genres", "description", "book_text")


@dataclass(frozen=True)
class PairsCorpus:
    """The corpus of a pairs file, its training pairs and its candidate lists.

    Attributes:
        corpus: Users, contexts and books of the file. A context side, genres, authors and
            timestamps do not exist. The known ratings are the labels of the training pairs.
        pairs: The pairs of the train users.
        lists: Split ("dev", "test") -> its candidates: kind, user, context (index of the row's own
            text in `contexts.text`), book, label, retrieval_score (NaN).
    """

    corpus: Corpus
    pairs: GivenPairs
    lists: dict[str, pd.DataFrame]

    @property
    def digest(self) -> str:
        """SHA-256 of the tables."""
        return self.corpus.digest

    @property
    def counts(self) -> dict[str, int]:
        """Users and pairs of each split, and users without a positive."""
        return self.corpus.counts

    @property
    def hit(self) -> bool:
        """Whether the tables came from the cache."""
        return self.corpus.hit

    @property
    def path(self) -> Path:
        """The folder of the tables' parquet files."""
        return self.corpus.path


def split_pairs(
    given: GivenPairs, data: DataConfig, sampling: SamplingConfig, cache: Cache
) -> PairsCorpus:
    """Split a pairs file into training pairs and held-out candidate lists.

    `val_size` of the users are held out: one half for dev, the other for test. With
    `split_by=pair` it is a share of the pairs, so users and books of the test pairs also have
    training pairs.

    Raises:
        DataError: A split has no positive.

    Example:
        >>> split = split_pairs(given, cfg.data, cfg.sampling, cache)
        >>> split.lists["test"]["user"].nunique()
        30
    """
    settings = {"val_size": sampling.val_size, "by": sampling.split_by, "seed": sampling.seed}
    key = {"version": VERSION, "pairs": given.digest, **settings}
    entry = cache.fetch("pairs_corpus", key, lambda folder: _build(given, sampling, folder))
    books, users, histories = (
        pd.read_parquet(entry.path / f"{name}.parquet") for name in ("books", "users", "histories")
    )
    n = {name: int(str(value)) for name, value in entry.info.items()}
    editions = pd.DataFrame({"book_id": books["book_id"], "book": np.arange(len(books))})
    editions = editions.astype({"book": np.int32})
    tables = Tables(
        books, users, histories, editions, LIKED, entry.digest, n, entry.path, entry.hit
    )
    pairs = GivenPairs(
        entry.path / FILE, entry.digest, entry.hit, {"pairs": n["pairs_train"]} | given.counts
    )
    return PairsCorpus(Corpus(tables, _contexts(tables, data, entry)), pairs, _lists(entry))


def _contexts(tables: Tables, data: DataConfig, entry: Entry) -> Contexts:
    text = pq.read_table(entry.path / "contexts.parquet")["user_ctx"].to_pylist()
    builder = ContextBuilder(
        tables.books,
        n_titles=data.context_titles,
        n_genres=data.context_genres,
        n_authors=data.context_authors,
        positive_rating=tables.positive_rating,
        template=data.context_template,
    )
    return Contexts(text=text, rows=tables.histories.iloc[:0], builder=builder)


def _lists(entry: Entry) -> dict[str, pd.DataFrame]:
    rows = pd.read_parquet(entry.path / "lists.parquet")
    rows.insert(0, "kind", GIVEN_KIND)
    rows["retrieval_score"] = np.float32("nan")
    split = rows.pop("split")
    return {name: rows[split == name].reset_index(drop=True) for name in SPLITS[1:]}


def _build(given: GivenPairs, cfg: SamplingConfig, folder: Path) -> dict[str, object]:
    """Write the tables, the contexts, the lists and the training pairs; return the counts."""
    frame = given.read()
    split = _split(frame, cfg)
    _refuse_empty_splits(given, frame, split, cfg)
    # With split_by=pair a user of two splits is two users, each with the pairs of one split.
    names = pd.DataFrame({"user_id": frame["user_id"].astype(str), "split": split})
    users = names.drop_duplicates().sort_values(["user_id", "split"], ignore_index=True)
    user = pd.MultiIndex.from_frame(users).get_indexer(pd.MultiIndex.from_frame(names))
    users["key"] = text_keys(users["user_id"])
    context, texts = _context_codes(user, frame["user_ctx"], len(users))
    book, books = _books(frame)
    rows = pd.DataFrame({"user": user, "context": context, "book": book, "label": frame["label"]})
    rows = rows.astype({"user": np.int32, "context": np.int32, "book": np.int32, "label": np.int8})
    for name, table in {
        "books": books,
        "users": users,
        "histories": _histories(rows),
        "contexts": pd.DataFrame({"user_ctx": texts}),
        "lists": rows.assign(split=split)[split != "train"].sort_values(["user", "book"]),
    }.items():
        table.to_parquet(folder / f"{name}.parquet", index=False, compression=COMPRESSION)
    table = pq.read_table(given.path, read_dictionary=list(TEXTS))
    pq.write_table(table.filter(pa.array(split == "train")), folder / FILE, compression=COMPRESSION)
    counts: dict[str, object] = {"books": len(books), "contexts": len(texts)}
    for name in SPLITS:
        counts[f"users_{name}"] = int((users["split"] == name).sum())
        counts[f"pairs_{name}"] = int((split == name).sum())
    return counts


def _split(frame: pd.DataFrame, cfg: SamplingConfig) -> np.ndarray:
    """Return (n_pairs,) train, dev or test, by a hash of the user or of the pair."""
    names = ["user_id"] if cfg.split_by == "user" else list(TEXTS)
    keys = [_keys(frame[name]) for name in names]
    held_out = uniform(bits(cfg.seed, "held-out pairs", *keys)) < cfg.val_size
    # One half of the held-out users (not pairs) is for dev, so that dev and test share no user.
    is_dev = uniform(bits(cfg.seed, "dev pairs", _keys(frame["user_id"]))) < 0.5
    return np.where(held_out, np.where(is_dev, "dev", "test"), "train")


def _keys(values: pd.Series) -> KeyArray:
    values = values.astype("category")
    return text_keys(values.cat.categories)[values.cat.codes]


def _refuse_empty_splits(
    given: GivenPairs, frame: pd.DataFrame, split: np.ndarray, cfg: SamplingConfig
) -> None:
    positive = frame["label"].to_numpy() > 0
    empty = [name for name in SPLITS if not (positive & (split == name)).any()]
    if empty:
        raise DataError(
            f"{given.path}: sampling.val_size={cfg.val_size} of {frame['user_id'].nunique()} users "
            f"leaves no positive in {' and '.join(empty)}. Give pairs of more users, or change "
            "sampling.val_size."
        )


def _context_codes(user: np.ndarray, text: pd.Series, n: int) -> tuple[np.ndarray, list[str]]:
    """Return the context of every pair as an index of the texts; text u is user u's first one."""
    text = text.astype("category")
    pair = pd.DataFrame({"user": user, "text": text.cat.codes.to_numpy()})
    distinct = pair.drop_duplicates(ignore_index=True)
    is_first = ~distinct["user"].duplicated()
    first, more = distinct[is_first].sort_values("user"), distinct[~is_first]
    order = pd.concat([first, more], ignore_index=True)
    assert len(first) == n
    code = pd.MultiIndex.from_frame(order).get_indexer(pd.MultiIndex.from_frame(pair))
    return code, text.cat.categories[order["text"]].to_list()


def _books(frame: pd.DataFrame) -> tuple[np.ndarray, pd.DataFrame]:
    """Return the book of every pair, and the books: one for each distinct text.

    A book has its id of the file if all ids are integers and each has one text, else its number.
    """
    text = frame["book_text"].astype("category").cat.remove_unused_categories()
    book, texts = text.cat.codes.to_numpy(), text.cat.categories.to_series(index=None)
    ids = pd.Series(np.arange(len(texts)))
    if "book_id" in frame:
        given = pd.DataFrame({"book": book, "id": pd.to_numeric(frame["book_id"], errors="coerce")})
        given = given.drop_duplicates()
        exact = given["id"].notna().all() and (given["id"] % 1 == 0).all()
        if exact and given["book"].is_unique and given["id"].is_unique:
            ids = given.set_index("book")["id"].sort_index()
    books = pd.DataFrame({name: "" for name in BOOK_TEXTS}, index=range(len(texts)))
    books["book_text"], books["book_id"] = texts.to_numpy(), ids.to_numpy(dtype=np.int64)
    books["title"] = [title_of(value) for value in texts]
    order = np.argsort(books["book_id"].to_numpy(), kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    return place[book], books.iloc[order][["book_id", *BOOK_TEXTS]].reset_index(drop=True)


def _histories(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the labels as ratings of target books, each (user, book) once."""
    best = rows.groupby(["user", "book"], as_index=False)["label"].max()
    rated = best.assign(
        rating=np.where(best["label"] > 0, LIKED, DISLIKED).astype(np.float32),
        timestamp=np.int64(0),
        is_target=True,
    )
    return rated[best["label"] > 0].drop(columns="label").reset_index(drop=True)
