"""Write our finished, dictionary-encoded table from memory with the settings of the pairs file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow.parquet as pq

from reranker.sampling.parts import WRITE
from sides import ours
from sides.task import Task

TEXTS = ["user_id", "user_ctx", "book_text"]


def prepare(task: Task) -> Callable[[], None]:
    """Return the measured function, which only calls `write_table`."""
    built = task.out / "built"
    folder = ours.prepare(replace(task, out=built))()
    table = pq.read_table(folder, read_dictionary=TEXTS).combine_chunks()

    def work() -> None:
        pq.write_table(table, task.out / "pairs.parquet", **WRITE)

    return work
