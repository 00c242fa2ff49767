"""The truth of a task, and the check of every row that a side gave."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sides.task import Task

SCHEMA = ("user_id", "user_ctx", "book_id", "book_text", "label")


class Truth:
    """What must stand in the pairs of a task, read anew from its files and by no side's code."""

    def __init__(self, task: Task) -> None:
        self.task = task
        books = pq.read_table(task.world / "books.parquet", columns=["book_id", "book_text"])
        users = pq.read_table(task.world / "users.parquet", columns=["user_id", "fold"])
        rated = pq.read_table(
            task.world / "histories.parquet", columns=["user", "book", "rating", "is_target"]
        )
        self.book_id = books["book_id"].to_numpy()
        self.book_text = books["book_text"].combine_chunks().cast(pa.large_string())
        self.user_id = users["user_id"].combine_chunks().cast(pa.large_string())
        self.n_books = len(self.book_id)
        train = np.flatnonzero(pc.equal(users["fold"], "train").to_numpy(zero_copy_only=False))[
            : task.n_users
        ]
        self.seen = self.key(rated["user"].to_numpy(), rated["book"].to_numpy())
        positive = rated["is_target"].to_numpy() & (
            rated["rating"].to_numpy() >= task.positive_rating
        )
        positive &= np.isin(rated["user"].to_numpy(), train)
        self.positives = np.sort(self.seen[positive])

    def key(self, user: np.ndarray, book: np.ndarray) -> np.ndarray:
        """(n,) one int64 for each (user, book)."""
        return user.astype(np.int64) * self.n_books + book

    @cached_property
    def user_ctx(self) -> pa.Array:
        """The context of each user code."""
        contexts = pq.read_table(self.task.world / "contexts.parquet").sort_by("user")
        return contexts["user_ctx"].combine_chunks().cast(pa.large_string())

    def count_negatives(self, user: np.ndarray, book: np.ndarray) -> dict[str, int]:
        """How many negatives were rated by their user, and how many repeat another of the same user."""
        key = self.key(user, book)
        return {
            "negatives": len(key),
            "seen": int(np.isin(key, self.seen).sum()),
            "duplicates": len(key) - len(np.unique(key)),
        }


def check_flat(truth: Truth, files: list[Path], *, contexts: bool) -> dict[str, int]:
    """Counts of a flat side's rows; every row is looked at.

    Args:
        files: Parquet files in the seed's schema.
        contexts: Compare user_ctx with contexts.parquet; the seed's algorithm makes its own, one for each positive.

    Raises:
        ValueError: A wrong schema, an unknown id, a text of another book or user, positives that are not the task's,
            or a user who has not neg_ratio negatives for each positive.
    """
    parts = [_codes(truth, batch, contexts) for path in files for batch in _batches(path)]
    user, book, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    positives = np.sort(truth.key(user, book)[label == 1])
    if not np.array_equal(positives, truth.positives):
        raise ValueError(
            f"{len(positives)} positives are not the {len(truth.positives)} of the task."
        )
    n_positives = np.bincount(user[label == 1], minlength=len(truth.user_id))
    n_negatives = np.bincount(user[label == 0], minlength=len(truth.user_id))
    off = np.flatnonzero(n_negatives != n_positives * truth.task.neg_ratio)
    if len(off):
        raise ValueError(
            f"{len(off)} users have not {truth.task.neg_ratio} negatives a positive (first: user {off[0]})."
        )
    return {"rows": len(user)} | truth.count_negatives(user[label == 0], book[label == 0])


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Batches with texts decoded.

    Arrow's `read_dictionary` gives indices out of bounds where a dictionary page holds one value twice, as DuckDB's
    pages of enums do (pyarrow 25.0.1, DuckDB 2.0.1).
    """
    file = pq.ParquetFile(path)
    if tuple(file.schema_arrow.names) != SCHEMA:
        raise ValueError(f"{path}: columns are {file.schema_arrow.names}, not {list(SCHEMA)}.")
    yield from file.iter_batches(batch_size=1 << 18)


def _codes(
    truth: Truth, batch: pa.RecordBatch, contexts: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    user = _lookup(batch["user_id"], truth.user_id)
    if user.min() < 0:
        raise ValueError("a user_id is not in users.parquet.")
    book = np.searchsorted(truth.book_id, batch["book_id"].to_numpy())
    if not np.array_equal(truth.book_id.take(book, mode="clip"), batch["book_id"].to_numpy()):
        raise ValueError("a book_id is not in books.parquet.")
    _check_texts("book_text", batch, truth.book_text, book)
    if contexts:
        _check_texts("user_ctx", batch, truth.user_ctx, user)
    return user, book, batch["label"].to_numpy().astype(np.int8)


def _check_texts(column: str, batch: pa.RecordBatch, values: pa.Array, code: np.ndarray) -> None:
    """Every row's text is that of its code."""
    if not pc.all(
        pc.equal(batch[column].cast(pa.large_string()), values.take(pa.array(code)))
    ).as_py():
        raise ValueError(f"{column}: a text is not that of its id.")


def _lookup(texts: pa.Array, values: pa.Array) -> np.ndarray:
    """(n,) the first place in `values` of each text, -1 where it is not there."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    place = pc.index_in(encoded.dictionary.cast(values.type), values).fill_null(-1)
    return place.take(encoded.indices).to_numpy(zero_copy_only=False)
