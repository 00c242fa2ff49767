"""This project: `build_pairs`, from the world's files to the flat file and the part files beside it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from reranker.cache import Cache
from reranker.config import EngineConfig, SamplingConfig
from reranker.data import ContextBuilder, Contexts, Tables
from reranker.sampling import build_pairs
from sides.task import Task


def prepare(task: Task) -> Callable[[], Path]:
    """The work; its result is the flat file, for the check."""
    cfg = SamplingConfig(neg_ratio=task.neg_ratio, max_positives=None, seed=task.seed)
    engine = EngineConfig("threads", n_partitions=2)

    def work() -> Path:
        tables = read_tables(task)
        return build_pairs(tables, read_contexts(task, tables), cfg, engine, Cache(task.out)).path

    return work


def read_tables(task: Task) -> Tables:
    """The world's feature tables as the rest of the project sees them."""
    names = ("books", "users", "histories", "editions")
    frames = [pd.read_parquet(task.world / f"{name}.parquet") for name in names]
    books, users, histories, editions = frames
    return Tables(
        books, users, histories, editions, task.positive_rating, digest=task.world.name, counts={}, path=task.world
    )


def read_contexts(task: Task, tables: Tables) -> Contexts:
    """The world's contexts, with the ratings that they were made of."""
    text = pd.read_parquet(task.world / "contexts.parquet").sort_values("user")["user_ctx"].tolist()
    nothing = ContextBuilder(tables.books.iloc[:0], n_titles=1, n_genres=1, positive_rating=task.positive_rating)
    return Contexts(text, tables.histories.iloc[:0], nothing)
