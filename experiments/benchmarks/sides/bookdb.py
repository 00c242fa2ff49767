"""Build pairs with the algorithm of the original system, bookdb, as its document describes it.

Users are divided into Dask partitions, and plain Python code handles each positive.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

from sides.task import Task

N_TITLES, N_GENRES = 6, 4  # as data.context_titles and data.context_genres


def prepare(task: Task) -> Callable[[], None]:
    """Return the measured function, which reads the world's files and writes part files.

    If the document leaves a choice open, the faster one is taken: one type of id, texts in
    dictionaries, seeded draws, one pass instead of two. A user's negatives are distinct over all
    positives, because the task requires it.
    """
    # Otherwise Dask converts the lists of ids to strings.
    dask.config.set({"dataframe.convert-string": False})

    def work() -> None:
        columns = ["book_id", "title", "genres", "book_text"]
        books = pd.read_parquet(task.world / "books.parquet", columns=columns)
        users = dd.from_pandas(_users(task, books["book_id"].to_numpy()), npartitions=4)
        lookup = {row.book_id: row for row in books.itertuples(index=False)}
        meta = {
            "user_id": "str",
            "user_ctx": "str",
            "book_id": "int64",
            "book_text": "str",
            "label": "int64",
        }
        pairs = users.map_partitions(_pairs, lookup, task.neg_ratio, task.seed, meta=meta)
        pairs.to_parquet(task.out, write_index=False, compression="zstd")

    return work


def _users(task: Task, book_id: np.ndarray) -> pd.DataFrame:
    """Return a row per train user: user_id, books_read (best rated first), liked (positives)."""
    users = pd.read_parquet(task.world / "users.parquet")
    columns = ["user", "book", "rating", "is_target"]
    rated = pd.read_parquet(task.world / "histories.parquet", columns=columns)
    train = np.flatnonzero(users["split"] == "train")[: task.n_users]
    rated = rated[rated["user"].isin(train)].sort_values(
        ["user", "rating"], ascending=[True, False], kind="stable"
    )
    rated["book_id"] = book_id[rated["book"]]
    liked = rated[rated["is_target"] & (rated["rating"] >= task.positive_rating)]
    lists = {
        "books_read": rated.groupby("user")["book_id"].agg(list),
        "liked": liked.groupby("user")["book_id"].agg(list),
    }
    rows = pd.DataFrame(lists).dropna()
    return rows.assign(user_id=users["user_id"].to_numpy()[rows.index]).reset_index(drop=True)


def _pairs(users: pd.DataFrame, lookup: dict[int, Any], neg_ratio: int, seed: int) -> pd.DataFrame:
    """Return the pairs of one partition, built as a list of complete rows of text."""
    rows = []
    every_id = set(lookup)
    for user in users.itertuples(index=False):
        rng = random.Random(f"{seed}/{user.user_id}")
        taken = set(user.books_read)
        for target in user.liked:
            user_ctx = make_user_context(user.books_read, target, lookup)
            rows.append((user.user_id, user_ctx, target, lookup[target].book_text, 1))
            negatives = rng.sample(list(every_id - taken), neg_ratio)
            taken.update(negatives)
            rows += [
                (user.user_id, user_ctx, book, lookup[book].book_text, 0) for book in negatives
            ]
    return pd.DataFrame(rows, columns=["user_id", "user_ctx", "book_id", "book_text", "label"])


def make_user_context(books_read: list[int], target: int, lookup: dict[int, Any]) -> str:
    """Return the titles and genres of the user's other books, best rated first."""
    others = [lookup[book] for book in books_read if book != target]
    counts: dict[str, int] = {}
    for book in others:
        for genre in book.genres.split(", "):
            counts[genre] = counts.get(genre, 0) + 1
    genres = sorted(counts, key=lambda g: -counts[g])[:N_GENRES]
    titles = "; ".join(book.title for book in others[:N_TITLES])
    return f"Likes: {titles}. Genres: {', '.join(genres)}"
