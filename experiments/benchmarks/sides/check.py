"""Check every row of a side against the files of its task."""

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
    """The expected pairs of a task, read from its files without the code of any side."""

    def __init__(self, task: Task) -> None:
        self.task = task
        books = pq.read_table(task.world / "books.parquet", columns=["book_id", "book_text"])
        users = pq.read_table(task.world / "users.parquet", columns=["user_id", "split"])
        columns = ["user", "book", "rating", "is_target"]
        rated = pq.read_table(task.world / "histories.parquet", columns=columns)
        self.book_id = books["book_id"].to_numpy()
        self.book_text = books["book_text"].combine_chunks().cast(pa.large_string())
        self.user_id = users["user_id"].combine_chunks().cast(pa.large_string())
        self.n_books = len(self.book_id)
        is_train = pc.equal(users["split"], "train").to_numpy(zero_copy_only=False)
        train = np.flatnonzero(is_train)[: task.n_users]
        self.seen = self.key(rated["user"].to_numpy(), rated["book"].to_numpy())
        positive = rated["is_target"].to_numpy() & (
            rated["rating"].to_numpy() >= task.positive_rating
        )
        positive &= np.isin(rated["user"].to_numpy(), train)
        self.positives = np.sort(self.seen[positive])

    def key(self, user: np.ndarray, book: np.ndarray) -> np.ndarray:
        """Return (n,) int64, a distinct number for each (user, book)."""
        return user.astype(np.int64) * self.n_books + book

    @cached_property
    def user_ctx(self) -> pa.Array:
        """The context of each user code, in ascending order."""
        contexts = pq.read_table(self.task.world / "contexts.parquet").sort_by("user")
        return contexts["user_ctx"].combine_chunks().cast(pa.large_string())

    def count_negatives(self, user: np.ndarray, book: np.ndarray) -> dict[str, int]:
        """Count the negatives, those rated by their user, and repeated ones of the same user."""
        key = self.key(user, book)
        return {
            "negatives": len(key),
            "seen": int(np.isin(key, self.seen).sum()),
            "duplicates": len(key) - len(np.unique(key)),
        }


def check_flat(truth: Truth, files: list[Path], *, contexts: bool) -> dict[str, int]:
    """Check every row of a side's files, and return the counts.

    Args:
        files: Parquet files in the schema of bookdb.
        contexts: Compare user_ctx with contexts.parquet. bookdb builds another context for each
            positive, so its contexts cannot be compared.

    Raises:
        ValueError: The schema is wrong, an id is unknown, a text belongs to another book or user,
            the positives differ from the task's, or a user does not have neg_ratio negatives for
            each positive.
    """
    parts = [_codes(truth, batch, contexts) for path in files for batch in _batches(path)]
    user, book, label = (np.concatenate(column) for column in zip(*parts, strict=True))
    positives = np.sort(truth.key(user, book)[label == 1])
    if not np.array_equal(positives, truth.positives):
        raise ValueError(
            f"{len(positives)} positives differ from the {len(truth.positives)} of the task."
        )
    n_positives = np.bincount(user[label == 1], minlength=len(truth.user_id))
    n_negatives = np.bincount(user[label == 0], minlength=len(truth.user_id))
    neg_ratio = truth.task.neg_ratio
    wrong = np.flatnonzero(n_negatives != n_positives * neg_ratio)
    if len(wrong):
        raise ValueError(
            f"{len(wrong)} users do not have {neg_ratio} negatives per positive "
            f"(first: user {wrong[0]})."
        )
    return {"rows": len(user)} | truth.count_negatives(user[label == 0], book[label == 0])


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Yield batches with decoded texts.

    Arrow's `read_dictionary` returns indices out of bounds if a dictionary page contains a value
    twice, as pages of enums that DuckDB writes do (pyarrow 25.0.1, DuckDB 2.0.1).
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
        raise ValueError("A user_id is not in users.parquet.")
    book = np.searchsorted(truth.book_id, batch["book_id"].to_numpy())
    if not np.array_equal(truth.book_id.take(book, mode="clip"), batch["book_id"].to_numpy()):
        raise ValueError("A book_id is not in books.parquet.")
    _check_texts("book_text", batch, truth.book_text, book)
    if contexts:
        _check_texts("user_ctx", batch, truth.user_ctx, user)
    return user, book, batch["label"].to_numpy().astype(np.int8)


def _check_texts(column: str, batch: pa.RecordBatch, values: pa.Array, code: np.ndarray) -> None:
    """Raise if a row's text is not the text of its code."""
    texts = batch[column].cast(pa.large_string())
    if not pc.all(pc.equal(texts, values.take(pa.array(code)))).as_py():
        raise ValueError(f"{column}: a text does not belong to its id.")


def _lookup(texts: pa.Array, values: pa.Array) -> np.ndarray:
    """Return (n,) the first index in `values` of each text, -1 if it is not among them."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    place = pc.index_in(encoded.dictionary.cast(values.type), values).fill_null(-1)
    return place.take(encoded.indices).to_numpy(zero_copy_only=False)
