"""Scorers without fine-tuning, on the same frozen lists as the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray, bits, uniform
from reranker.data.numeric_features import LABELS, readers_level, shared, unit_sets
from reranker.data.retrieval.first_stages import Bm25, fit_first_stage
from reranker.eval.lists import CandidateLists

VERSION = 1  # raise it when a baseline changes
CHUNK = 2048  # users whose scores of all books are in memory at once: EASE has 60 kB for each at 5,000 books
N_NEAREST = 3  # context books that `bi_encoder_top3` compares a candidate with

Embed = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True)
class Questions:
    """What a baseline may look at: the tables' known side, the contexts, and the lists to score.

    Attributes:
        seed: Of `random`.
        ease_books: Books that `ease` keeps.
        pairs: user, book, label: the training pairs, which `features_lr` learns from.
    """

    tables: Tables
    contexts: Contexts
    lists: CandidateLists
    seed: int
    ease_books: int = EvalConfig.ease_books
    pairs: pd.DataFrame = field(default_factory=pd.DataFrame)

    @classmethod
    def of(
        cls,
        tables: Tables,
        contexts: Contexts,
        lists: CandidateLists,
        cfg: EvalConfig,
        pairs: pd.DataFrame | None = None,
    ) -> Questions:
        """The questions that a run's config asks of lists."""
        return cls(
            tables,
            contexts,
            lists,
            cfg.seed,
            cfg.ease_books,
            pd.DataFrame() if pairs is None else pairs,
        )

    @classmethod
    def about(
        cls, pairs: pd.DataFrame, digest: str, tables: Tables, contexts: Contexts, cfg: EvalConfig
    ) -> Questions:
        """The same questions, asked of training pairs: user, book, label; a user has one context.

        Only the baselines of config.TEACHERS are to be asked: the others know each reader's ratings, among which those
        of a training reader are the answers.
        """
        return cls.of(
            tables,
            contexts,
            CandidateLists(pairs, digest, "train", hit=False, counts={}),
            cfg,
            pairs,
        )

    @property
    def rows(self) -> pd.DataFrame:
        """The frozen lists' frame: kind, user, book, label, retrieval_score."""
        return self.lists.frame

    @property
    def context_rows(self) -> pd.DataFrame:
        """The context books of the lists' users: user, book."""
        rows = self.contexts.rows
        return rows[rows["user"].isin(self.rows["user"].unique())]


def score_baselines(
    names: Sequence[str], questions: Questions, embed: Embed, cache: Cache
) -> dict[str, FloatArray]:
    """Scores of the named baselines, each (n_rows,) float64, aligned to the lists' frame.

    A baseline depends on tables, lists and seed alone, so its scores come from the cache when these are the same. The
    order of a `retriever` list is the one of the baseline that eval.retriever names, `item_knn` or `ease`: it has no
    other name here. `features_lr` is there only where the model is shown some, and depends on the training pairs too.

    Args:
        embed: Texts -> (n_texts, dim) unit vectors, for `bi_encoder` and `bi_encoder_top3`; see `memoised`.
    """
    shows = questions.contexts.numeric_features is not None and len(questions.pairs) > 0
    return {
        name: _cached(name, questions, embed, cache)
        for name in names
        if shows or name != "features_lr"
    }


def memoised(embed: Embed) -> Embed:
    """`embed`, asked only for texts that it has not embedded yet; vectors stay in memory, 1.5 kB each of MiniLM's."""
    known: dict[str, FloatArray] = {}

    def remembered(texts: Sequence[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return remembered


def _cached(name: str, questions: Questions, embed: Embed, cache: Cache) -> FloatArray:
    key = {
        "version": VERSION,
        "name": name,
        "tables": questions.tables.digest,
        "lists": questions.lists.digest,
        "seed": questions.seed,
        **({"ease_books": questions.ease_books} if name == "ease" else {}),
        **(
            {"pairs": _digest(questions.pairs), **questions.contexts.cache_key}
            if name == "features_lr"
            else {}
        ),
    }

    def build(folder: Path) -> dict[str, object]:
        scores = (
            EMBEDDED[name](questions, embed) if name in EMBEDDED else BASELINES[name](questions)
        )
        np.save(folder / "scores.npy", scores, allow_pickle=False)
        return {}

    entry = cache.fetch("baselines", key, build)
    scores: FloatArray = np.load(entry.path / "scores.npy", allow_pickle=False)
    return scores


def random(q: Questions) -> FloatArray:
    """A hash of (seed, user, book): chance level, the same in every run."""
    user = q.tables.users["key"].to_numpy()[q.rows["user"]]
    return uniform(
        bits(q.seed, "random baseline", user, q.tables.books["book_id"].to_numpy()[q.rows["book"]])
    )


def popularity(q: Questions) -> FloatArray:
    """Known ratings of the candidate, by any reader."""
    return np.bincount(q.tables.known()["book"], minlength=len(q.tables.books)).astype(np.float64)[
        q.rows["book"]
    ]


def item_knn(q: Questions) -> FloatArray:
    """Sum of cosine similarities between the candidate and the context books, over who is known to have rated them."""
    return _by_ratings("item_knn", q)


def ease(q: Questions) -> FloatArray:
    """Sum of EASE's weights from the context books to the candidate; 0 for a book that is none of the ease_books."""
    return _by_ratings("ease", q)


def _by_ratings(name: str, q: Questions) -> FloatArray:
    shape = {"n_users": len(q.tables.users), "n_books": len(q.tables.books)}
    stage = fit_first_stage(name, q.tables.known(), **shape, ease_books=q.ease_books)
    users, row = np.unique(q.rows["user"], return_inverse=True)
    book, context = q.rows["book"].to_numpy(), q.context_rows
    out = np.empty(len(row))
    for first in range(0, len(users), CHUNK):
        mine = np.flatnonzero((row >= first) & (row < first + CHUNK))
        scores = stage.scores(users[first : first + CHUNK], context)
        out[mine] = np.asarray(scores[row[mine] - first, book[mine]]).ravel()
    return out


def genres(q: Questions) -> FloatArray:
    """Mean cosine between the candidate's set of genres and those of the context books; 0 for a book without any."""
    return _overlap(q, "genres")


def authors(q: Questions) -> FloatArray:
    """Mean cosine between the candidate's set of authors and those of the context books; 0 for a book without any."""
    return _overlap(q, "authors")


def _overlap(q: Questions, column: str) -> FloatArray:
    """The mean over context books of |shared names| / sqrt(names of one x names of the other), (n_rows,)."""
    unit = unit_sets(q.tables.books[column])
    users, row = np.unique(q.rows["user"], return_inverse=True)
    return shared((_context_mean(q, users) @ unit).tocsr(), unit, row, q.rows["book"].to_numpy())


def _context_mean(q: Questions, users: np.ndarray) -> sp.csr_array:
    """(n_users, n_books): a row times a matrix of books is its mean over the user's context books."""
    mine = q.context_rows
    row = np.searchsorted(users, mine["user"])
    share = 1 / np.bincount(row, minlength=len(users))[row]
    return sp.csr_array((share, (row, mine["book"])), shape=(len(users), len(q.tables.books)))


def features_lr(q: Questions) -> FloatArray:
    """A logistic regression, learnt from the training pairs, on the numbers that the model reads and on nothing else.

    What they are: the level of how many context sides hold the candidate, and those of `data.text_features`. A model that does no better has learnt nothing from its texts.
    """
    regression = make_pipeline(StandardScaler(), LogisticRegression())
    regression.fit(_levels(q, q.pairs), q.pairs["label"])
    scores: FloatArray = regression.decision_function(_levels(q, q.rows))
    return scores


def _levels(q: Questions, rows: pd.DataFrame) -> FloatArray:
    """(n_rows, n_levels)."""
    user, book = (rows[name].to_numpy() for name in ("user", "book"))
    levels = {LABELS["readers"]: readers_level(q.tables.n_readers())[book]}
    levels |= q.contexts.levels(user, book)
    return np.column_stack(list(levels.values())).astype(float)


def _digest(pairs: pd.DataFrame) -> str:
    return hashlib.sha256(pairs[["user", "book", "label"]].to_numpy(np.int64).tobytes()).hexdigest()


def bm25(q: Questions) -> FloatArray:
    """BM25 of the candidate's text for the user context as the query, over the whole catalogue."""
    index = Bm25(q.tables.books["book_text"].tolist())
    out = np.empty(len(q.rows))
    for user, rows in q.rows.groupby("user").indices.items():
        out[rows] = index.scores(q.contexts.text[int(str(user))])[q.rows["book"].to_numpy()[rows]]
    return out


def bi_encoder(q: Questions, embed: Embed) -> FloatArray:
    """Cosine between the candidate's embedding and the mean of the context books' embeddings."""
    books, vectors = _vectors(q, embed)
    users, row = np.unique(q.rows["user"], return_inverse=True)
    total = _context_mean(q, users)[:, books] @ vectors
    mean = total / np.linalg.norm(total, axis=1, keepdims=True)
    return np.einsum("ij,ij->i", mean[row], vectors[np.searchsorted(books, q.rows["book"])])


def bi_encoder_top3(q: Questions, embed: Embed) -> FloatArray:
    """Mean of the candidate's 3 highest cosines to context books, of all where there are fewer."""
    books, vectors = _vectors(q, embed)
    context = q.context_rows.groupby("user")["book"]
    mine = {user: np.searchsorted(books, theirs) for user, theirs in context}
    place = np.searchsorted(books, q.rows["book"])
    out = np.empty(len(place))
    for user, rows in q.rows.groupby("user").indices.items():
        cosine = vectors[place[rows]] @ vectors[mine[user]].T
        out[rows] = np.sort(cosine, axis=1)[:, -N_NEAREST:].mean(axis=1)
    return out


def _vectors(q: Questions, embed: Embed) -> tuple[np.ndarray, FloatArray]:
    """The books of contexts and lists, ascending, and their unit vectors in float64."""
    books = np.union1d(q.context_rows["book"], q.rows["book"])
    return books, np.asarray(
        embed(q.tables.books["book_text"].iloc[books].tolist()), dtype=np.float64
    )


BASELINES: dict[str, Callable[[Questions], FloatArray]] = {
    "random": random,
    "popularity": popularity,
    "item_knn": item_knn,
    "ease": ease,
    "bm25": bm25,
    "genres": genres,
    "authors": authors,
    "features_lr": features_lr,
}
EMBEDDED: dict[str, Callable[[Questions, Embed], FloatArray]] = {
    "bi_encoder": bi_encoder,
    "bi_encoder_top3": bi_encoder_top3,
}
