"""Hard negatives: unseen books that a first stage ranks high for a user, short of those that may be false negatives."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reranker.config import SamplingConfig
from reranker.data import Corpus
from reranker.data.draws import FloatArray, IntArray
from reranker.data.retrieval.first_stages import Bm25, ItemKNN

CHUNK = 256  # users ranked at once; bounds memory to CHUNK x n_books floats a stage


def near(
    corpus: Corpus, cfg: SamplingConfig, *, users: IntArray, positives: pd.DataFrame
) -> pd.DataFrame:
    """The books that item-kNN or BM25 ranks among the first retriever_depth for a user, and that may be negatives.

    A stage is asked with the user's context books (split) or all of the history, each book without itself
    (leave_one_out). Rated books are left out, and books that score 0, and books above retriever_margin of the best
    score that the stage gives one of the user's own positives: those may be books that the user would like. A user
    none of whose positives a stage finds gets nothing from it.

    Returns:
        user int32, book int32; sorted by both, each once.

    Source: the margin, NV-Retriever (arXiv 2407.15831), there 95 % of the positive's own score.
    """
    tables, contexts = corpus.tables, corpus.contexts
    n_books = len(tables.books)
    rated = tables.histories[["user", "book"]]
    asked = contexts.rows if cfg.context == "holdout" else rated
    knn = ItemKNN(tables.known(), n_users=len(tables.users), n_books=n_books)
    bm25 = Bm25(tables.books["book_text"].tolist())
    found = []
    for first in range(0, len(users), CHUNK):
        mine = users[first : first + CHUNK]
        known = _rows_of(asked, mine)
        seen, liked, own = (
            _mask(_rows_of(f, mine), mine, n_books) for f in (rated, positives, known)
        )
        by_ratings = knn.scores(mine, known).toarray() - own
        by_text = np.stack([bm25.scores(contexts.text[u]) for u in mine.tolist()])
        chosen = _pool(by_ratings, seen, liked, cfg) | _pool(by_text, seen, liked, cfg)
        row, book = np.nonzero(chosen)
        found.append(
            pd.DataFrame({"user": mine[row].astype(np.int32), "book": book.astype(np.int32)})
        )
    return pd.concat(found, ignore_index=True)


def _rows_of(rows: pd.DataFrame, users: IntArray) -> pd.DataFrame:
    """The rows of some users, ascending codes, of a frame sorted by user."""
    low, high = np.searchsorted(rows["user"], [users[0], users[-1] + 1])
    near = rows.iloc[low:high]
    return near[near["user"].isin(users)]


def _mask(rows: pd.DataFrame, users: IntArray, n_books: int) -> np.ndarray:
    mask = np.zeros((len(users), n_books), dtype=bool)
    mask[np.searchsorted(users, rows["user"]), rows["book"]] = True
    return mask


def _pool(
    scores: FloatArray, seen: np.ndarray, liked: np.ndarray, cfg: SamplingConfig
) -> np.ndarray:
    best = np.where(liked, scores, 0.0).max(axis=1, keepdims=True)
    open_ = np.where(seen, 0.0, scores)
    depth = min(cfg.retriever_depth, scores.shape[1])
    at_depth = -np.partition(-open_, depth - 1, axis=1)[:, depth - 1 : depth]
    return (open_ > 0) & (open_ >= at_depth) & (open_ <= cfg.retriever_margin * best)
