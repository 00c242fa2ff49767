"""Build pairs with `build_pairs` of this project."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import Cache
from reranker.config import EngineConfig, SamplingConfig
from reranker.data import ContextBuilder, Contexts, Corpus, Tables
from reranker.sampling import build_pairs
from reranker.sampling.negatives import Choice
from reranker.sampling.parts import Part, draw
from reranker.sampling.weighted import UserBooks
from sides.task import Task


def prepare(task: Task) -> Callable[[], Path]:
    """Return the measured function, which returns the file to check."""
    cfg = SamplingConfig(neg_ratio=task.neg_ratio, max_positives=None, seed=task.seed)
    engine = EngineConfig("threads", n_partitions=4)
    start_kernels()

    def work() -> Path:
        tables = read_tables(task)
        corpus = Corpus(tables, read_contexts(task, tables))
        return build_pairs(corpus, cfg, engine, Cache(task.out)).path

    return work


def start_kernels() -> None:
    """Load the compiled loops before the measurement, as other sides import their libraries.

    Loading takes .4 s per process. The first call after an installation compiles the loops, which
    takes about 5 s.
    """
    one = UserBooks(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32))
    choice = Choice(np.zeros(1, dtype=np.uint64), one, n_books=2)
    texts = pa.array(["text"])
    draw(
        Part(0, np.zeros(1, dtype=np.int64), texts, one, choice, texts, None),
        SamplingConfig(neg_ratio=1),
    )


def read_tables(task: Task) -> Tables:
    """Return the feature tables of the world with the columns that pairs need.

    Book texts are read later, by the code that writes them.
    """
    rated = ["user", "book", "rating", "is_target"]
    columns = {"books": ["book_id"], "users": None, "histories": rated, "editions": []}
    books, users, histories, editions = (
        pq.read_table(task.world / f"{name}.parquet", columns=wanted).to_pandas(
            split_blocks=True, self_destruct=True
        )
        for name, wanted in columns.items()
    )
    return Tables(
        books,
        users,
        histories,
        editions,
        task.positive_rating,
        digest=task.world.name,
        counts={},
        path=task.world,
    )


def read_contexts(task: Task, tables: Tables) -> Contexts:
    """Return the contexts of the world, without the ratings that they were built from."""
    contexts = pq.read_table(task.world / "contexts.parquet", columns=["user_ctx"])
    text = contexts["user_ctx"].to_pylist()  # by user code
    no_books = pd.DataFrame(columns=["book_id", "title", "series", "authors", "genres"], dtype=str)
    unused = ContextBuilder(no_books, n_titles=1, n_genres=1, positive_rating=task.positive_rating)
    return Contexts(text, tables.histories.iloc[:0], unused)
