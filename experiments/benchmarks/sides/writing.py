"""Writing alone: our finished table, dictionary-encoded in memory, to parquet with the settings of the flat file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pyarrow.parquet as pq

from reranker.sampling.parts import WRITE
from sides import ours
from sides.task import Task

TEXTS = ["user_id", "user_ctx", "book_text"]


def prepare(task: Task) -> Callable[[], None]:
    """The work: `write_table`, nothing else."""
    built = task.out / "built"
    folder = ours.prepare(replace(task, out=built))()
    table = pq.read_table(folder, read_dictionary=TEXTS).combine_chunks()

    def work() -> None:
        pq.write_table(table, task.out / "pairs.parquet", **WRITE)

    return work
