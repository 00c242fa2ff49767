"""Find hard negatives: unrated books that a first stage ranks high, below a score margin."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reranker.config import SamplingConfig
from reranker.data import Corpus
from reranker.data.draws import FloatArray, IntArray
from reranker.data.retrieval.first_stages import Bm25, ItemKNN

CHUNK = 256  # users per iteration: a stage needs CHUNK x n_books floats


def near(
    corpus: Corpus, cfg: SamplingConfig, *, users: IntArray, positives: pd.DataFrame
) -> pd.DataFrame:
    """Return the books among the first retriever_depth of item-kNN or BM25 that may be negatives.

    A stage scores books with the user's context books (holdout), or with all books of the history
    except the scored one (leave_one_out). Excluded are rated books, books with score 0, and books
    that score above retriever_margin times the best score of the user's positives, because the
    user may like them. A stage that finds none of a user's positives gives that user no books.

    Returns:
        Distinct rows with columns user and book, int32, sorted by both.

    Source: the margin is from NV-Retriever (arXiv 2407.15831), which uses 95 % of the score of the
        pair's own positive.
    """
    tables, contexts = corpus.tables, corpus.contexts
    n_books = len(tables.books)
    rated = tables.histories[["user", "book"]]
    history = contexts.rows if cfg.context == "holdout" else rated
    knn = ItemKNN(tables.known(), n_users=len(tables.users), n_books=n_books)
    bm25 = Bm25(tables.books["book_text"].tolist())
    found = []
    for first in range(0, len(users), CHUNK):
        mine = users[first : first + CHUNK]
        known = _rows_of(history, mine)
        frames = (_rows_of(rated, mine), _rows_of(positives, mine), known)
        seen, liked, own = (_mask(frame, mine, n_books) for frame in frames)
        by_ratings = knn.scores(mine, known).toarray() - own
        by_text = np.stack([bm25.scores(contexts.text[u]) for u in mine.tolist()])
        chosen = _pool(by_ratings, seen, liked, cfg) | _pool(by_text, seen, liked, cfg)
        row, book = np.nonzero(chosen)
        columns = {"user": mine[row].astype(np.int32), "book": book.astype(np.int32)}
        found.append(pd.DataFrame(columns))
    return pd.concat(found, ignore_index=True)


def _rows_of(rows: pd.DataFrame, users: IntArray) -> pd.DataFrame:
    """Return the rows of some users (ascending codes) of a frame that is sorted by user."""
    low, high = np.searchsorted(rows["user"], [users[0], users[-1] + 1])
    between = rows.iloc[low:high]
    return between[between["user"].isin(users)]


def _mask(rows: pd.DataFrame, users: IntArray, n_books: int) -> np.ndarray:
    mask = np.zeros((len(users), n_books), dtype=bool)
    mask[np.searchsorted(users, rows["user"]), rows["book"]] = True
    return mask


def _pool(
    scores: FloatArray, seen: np.ndarray, liked: np.ndarray, cfg: SamplingConfig
) -> np.ndarray:
    best = np.where(liked, scores, 0.0).max(axis=1, keepdims=True)
    unseen = np.where(seen, 0.0, scores)
    depth = min(cfg.retriever_depth, scores.shape[1])
    at_depth = -np.partition(-unseen, depth - 1, axis=1)[:, depth - 1 : depth]
    return (unseen > 0) & (unseen >= at_depth) & (unseen <= cfg.retriever_margin * best)
