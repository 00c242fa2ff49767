"""Scorers without fine-tuning, on the same frozen lists as the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from reranker.cache import Cache
from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray, bits, uniform
from reranker.data.retrieval import Bm25, ItemKNN
from reranker.eval.lists import Lists

VERSION = 1  # raise it when a baseline changes

Embed = Callable[[Sequence[str]], FloatArray]


@dataclass(frozen=True)
class Questions:
    """What a baseline may look at: the tables' known side, the contexts, and the lists to score."""

    tables: Tables
    contexts: Contexts
    lists: Lists
    seed: int

    @property
    def rows(self) -> pd.DataFrame:
        """The frozen lists' frame: kind, user, book, label."""
        return self.lists.frame


def score_baselines(names: Sequence[str], questions: Questions, embed: Embed, cache: Cache) -> dict[str, FloatArray]:
    """Scores of the named baselines, each (n_rows,) float64, aligned to the lists' frame.

    A baseline depends on tables, lists and seed alone, so its scores come from the cache when these are the same.

    Args:
        embed: Texts -> (n_texts, dim) unit vectors, for `bi_encoder`.
    """
    return {name: _cached(name, questions, embed, cache) for name in names}


def _cached(name: str, questions: Questions, embed: Embed, cache: Cache) -> FloatArray:
    key = {
        "version": VERSION,
        "name": name,
        "tables": questions.tables.digest,
        "lists": questions.lists.hash,
        "seed": questions.seed,
    }

    def build(folder: Path) -> dict[str, object]:
        scorer = BASELINES.get(name)
        scores = bi_encoder(questions, embed) if scorer is None else scorer(questions)
        np.save(folder / "scores.npy", scores, allow_pickle=False)
        return {}

    entry = cache.fetch("baselines", key, build)
    scores: FloatArray = np.load(entry.path / "scores.npy", allow_pickle=False)
    return scores


def random(q: Questions) -> FloatArray:
    """A hash of (seed, user, book): chance level, the same in every run."""
    user = q.tables.users["key"].to_numpy()[q.rows["user"]]
    return uniform(bits(q.seed, "random baseline", user, q.tables.books["book_id"].to_numpy()[q.rows["book"]]))


def popularity(q: Questions) -> FloatArray:
    """Known ratings of the candidate, by any reader."""
    return np.bincount(q.tables.known()["book"], minlength=len(q.tables.books)).astype(np.float64)[q.rows["book"]]


def item_knn(q: Questions) -> FloatArray:
    """Sum of cosine similarities between the candidate and the context books, over who is known to have rated them."""
    users, row = np.unique(q.rows["user"], return_inverse=True)
    knn = ItemKNN(q.tables.known(), n_users=len(q.tables.users), n_books=len(q.tables.books))
    scores = knn.scores(users, q.contexts.rows)
    return np.asarray(scores[row, q.rows["book"].to_numpy()]).ravel()


def bm25(q: Questions) -> FloatArray:
    """BM25 of the candidate's text for the user context as the query, over the whole catalogue."""
    index = Bm25(q.tables.books["book_text"].tolist())
    out = np.empty(len(q.rows))
    for user, rows in q.rows.groupby("user").indices.items():
        out[rows] = index.scores(q.contexts.text[int(str(user))])[q.rows["book"].to_numpy()[rows]]
    return out


def bi_encoder(q: Questions, embed: Embed) -> FloatArray:
    """Cosine between the candidate's embedding and the mean of the context books' embeddings."""
    mine = q.contexts.rows[q.contexts.rows["user"].isin(q.rows["user"].unique())]
    books = np.union1d(mine["book"], q.rows["book"])
    vectors = np.asarray(embed([q.tables.books["book_text"].iloc[b] for b in books]), dtype=np.float64)
    users, row = np.unique(q.rows["user"], return_inverse=True)
    place = (np.searchsorted(users, mine["user"]), np.searchsorted(books, mine["book"]))
    total = sp.csr_array((np.ones(len(mine)), place), shape=(len(users), len(books))) @ vectors
    mean = total / np.linalg.norm(total, axis=1, keepdims=True)
    return np.einsum("ij,ij->i", mean[row], vectors[np.searchsorted(books, q.rows["book"])])


# `bi_encoder` needs embeddings as well, so it is called by name.
BASELINES: dict[str, Callable[[Questions], FloatArray]] = {
    "random": random,
    "popularity": popularity,
    "item_knn": item_knn,
    "bm25": bm25,
}
