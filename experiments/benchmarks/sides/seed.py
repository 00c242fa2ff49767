"""The seed's algorithm as its document describes it: Dask partitions of users, plain Python for each positive."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd

from sides.task import Task

N_TITLES, N_GENRES = 6, 4  # of a context, as in data.context_titles and data.context_genres


def prepare(task: Task) -> Callable[[], None]:
    """The work: from the world's files to part files.

    Where the document leaves a choice, it is made in the seed's favour: one id type, texts looked up in dictionaries,
    seeded draws, one pass instead of two. A user's negatives are distinct over all positives, as the task asks.
    """
    dask.config.set(
        {"dataframe.convert-string": False}
    )  # it would turn the lists of ids into strings

    def work() -> None:
        books = pd.read_parquet(
            task.world / "books.parquet", columns=["book_id", "title", "genres", "book_text"]
        )
        readers = dd.from_pandas(_readers(task, books["book_id"].to_numpy()), npartitions=4)
        lookup = {row.book_id: row for row in books.itertuples(index=False)}
        meta = {
            "user_id": "str",
            "user_ctx": "str",
            "book_id": "int64",
            "book_text": "str",
            "label": "int64",
        }
        pairs = readers.map_partitions(_pairs, lookup, task.neg_ratio, task.seed, meta=meta)
        pairs.to_parquet(task.out, write_index=False, compression="zstd")

    return work


def _readers(task: Task, book_id: np.ndarray) -> pd.DataFrame:
    """A row per train user: user_id, books_read (best rated first), liked (the targets that are positives)."""
    users = pd.read_parquet(task.world / "users.parquet")
    rated = pd.read_parquet(
        task.world / "histories.parquet", columns=["user", "book", "rating", "is_target"]
    )
    train = np.flatnonzero(users["fold"] == "train")[: task.n_users]
    rated = rated[rated["user"].isin(train)].sort_values(
        ["user", "rating"], ascending=[True, False], kind="stable"
    )
    rated["book_id"] = book_id[rated["book"]]
    liked = rated[rated["is_target"] & (rated["rating"] >= task.positive_rating)]
    lists = {
        "books_read": rated.groupby("user")["book_id"].agg(list),
        "liked": liked.groupby("user")["book_id"].agg(list),
    }
    readers = pd.DataFrame(lists).dropna()
    return readers.assign(user_id=users["user_id"].to_numpy()[readers.index]).reset_index(drop=True)


def _pairs(
    readers: pd.DataFrame, lookup: dict[int, Any], neg_ratio: int, seed: int
) -> pd.DataFrame:
    """The pairs of one partition: whole rows of text, appended to a list."""
    rows = []
    every_id = set(lookup)
    for reader in readers.itertuples(index=False):
        rng = random.Random(f"{seed}/{reader.user_id}")
        taken = set(reader.books_read)
        for target in reader.liked:
            user_ctx = make_user_context(reader.books_read, target, lookup)
            rows.append((reader.user_id, user_ctx, target, lookup[target].book_text, 1))
            negatives = rng.sample(list(every_id - taken), neg_ratio)
            taken.update(negatives)
            rows += [
                (reader.user_id, user_ctx, book, lookup[book].book_text, 0) for book in negatives
            ]
    return pd.DataFrame(rows, columns=["user_id", "user_ctx", "book_id", "book_text", "label"])


def make_user_context(books_read: list[int], target: int, lookup: dict[int, Any]) -> str:
    """Titles and genres of the reader's other books, best rated first."""
    others = [lookup[book] for book in books_read if book != target]
    counts: dict[str, int] = {}
    for book in others:
        for genre in book.genres.split(", "):
            counts[genre] = counts.get(genre, 0) + 1
    genres = sorted(counts, key=lambda g: -counts[g])[:N_GENRES]
    return (
        f"Likes: {'; '.join(book.title for book in others[:N_TITLES])}. Genres: {', '.join(genres)}"
    )
