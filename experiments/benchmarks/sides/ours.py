"""This project: `build_pairs`, from the world's files to the flat file and the part files beside it."""

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
    """The work; its result is the flat file, for the check."""
    cfg = SamplingConfig(neg_ratio=task.neg_ratio, max_positives=None, seed=task.seed)
    engine = EngineConfig("threads", n_partitions=4)
    start_kernels()

    def work() -> Path:
        tables = read_tables(task)
        corpus = Corpus(tables, read_contexts(task, tables))
        return build_pairs(corpus, cfg, engine, Cache(task.out)).path

    return work


def start_kernels() -> None:
    """Load the compiled loops, as other sides load their libraries: before the clock starts.

    It takes .4 s in a process, and some 5 s the first time after an installation, when they are compiled.
    """
    one = UserBooks(np.zeros(1, dtype=np.int32), np.zeros(1, dtype=np.int32))
    choice = Choice(np.zeros(1, dtype=np.uint64), one, n_books=2)
    texts = pa.array(["text"])
    draw(
        Part(0, np.zeros(1, dtype=np.int64), texts, one, choice, texts, None),
        SamplingConfig(neg_ratio=1),
    )


def read_tables(task: Task) -> Tables:
    """The world's feature tables, with the columns that pairs need; the texts are read where they are written."""
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
    """The world's contexts, with the ratings that they were made of."""
    text = pq.read_table(task.world / "contexts.parquet", columns=["user_ctx"])[
        "user_ctx"
    ].to_pylist()  # by user code
    no_books = pd.DataFrame(columns=["book_id", "title", "series", "authors", "genres"], dtype=str)
    nothing = ContextBuilder(no_books, n_titles=1, n_genres=1, positive_rating=task.positive_rating)
    return Contexts(text, tables.histories.iloc[:0], nothing)
