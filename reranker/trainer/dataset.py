"""Read the pairs file for training: tokenised texts, targets, and chunks that stay together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.config import ON_SCORES, TrainerConfig
from reranker.errors import DataError
from reranker.model import Encoder
from reranker.model.tokens import Tokens
from reranker.trainer.losses import POINTWISE

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
TEXTS = ("user_ctx", "book_text")


@dataclass(frozen=True)
class PairDataset:
    """The pairs to train on; arrays have shape (n_pairs,).

    Attributes:
        contexts, books: The distinct texts, tokenised.
        query, candidate: Row of each pair's text in `contexts` and in `books`.
        group: Number of each pair's group, from 0. A group has the pairs of one user and context.
        chunk: Number of each pair's chunk, from 0. A chunk is a group, or a part of a large one.
        target: float32; the label, or a teacher's score for mse and margin_mse.
        teacher_score: float32; a teacher's score if trainer.teacher_weight > 0, otherwise empty.
        length: Number of tokens after truncation.
        n_left_out: Number of pairs in the file but not in the dataset; see `group_chunks`.
    """

    contexts: Tokens
    books: Tokens
    query: IntArray
    candidate: IntArray
    group: IntArray
    chunk: IntArray
    target: FloatArray
    teacher_score: FloatArray
    length: IntArray
    n_left_out: int = 0


def read(pairs: Path, encoder: Encoder, cfg: TrainerConfig) -> PairDataset:
    """Return the dataset of a parquet file of pairs.

    Args:
        pairs: Columns user_ctx, book_text, label; user_id if two users may share a context; score
            if the training uses a teacher.

    Raises:
        DataError: A column is missing, a value is null or not finite, there are no pairs, or no
            group has two different targets for an objective that needs them.
    """
    table = _table(pairs, with_score=cfg.loss in ON_SCORES or cfg.teacher_weight > 0)
    (query, contexts), (candidate, books) = (_encoded(table[name]) for name in TEXTS)
    label = _numbers(table, "label", pairs, maximum=1.0 if cfg.loss == "bce" else np.inf)
    has_score = "score" in table.column_names
    score = _numbers(table, "score", pairs) if has_score else label[:0]
    target = score if cfg.loss in ON_SCORES else label
    has_user = "user_id" in table.column_names
    user = _encoded(table["user_id"])[0] if has_user else np.zeros_like(query)
    group = np.unique(user * (query.max() + 1) + query, return_inverse=True)[1]
    if cfg.loss in POINTWISE and encoder.attention == "full":
        # No computation is shared within a group, and steps with many users learn faster.
        chunk = np.arange(len(group))
    else:
        chunk = group_chunks(group, label, group_size=cfg.group_size, loss=cfg.loss, seed=cfg.seed)
    used = chunk >= 0
    query, candidate, group, chunk = (column[used] for column in (query, candidate, group, chunk))
    target, score = target[used], score[used] if cfg.teacher_weight > 0 else score[:0]
    _check_terms(cfg.loss, target, chunk, pairs)
    left, right = encoder.tokenise(contexts), encoder.tokenise(books)
    return PairDataset(
        contexts=left,
        books=right,
        query=query,
        candidate=candidate,
        group=group,
        chunk=chunk,
        target=target,
        teacher_score=score,
        length=encoder.lengths(left, right, query, candidate).astype(np.int64),
        n_left_out=int((~used).sum()),
    )


def group_chunks(
    group: IntArray, label: npt.NDArray[Any], *, group_size: int, loss: str, seed: int
) -> IntArray:
    """Return (n_pairs,) chunk ids from 0; -1 for pairs that are left out.

    A group of at most group_size pairs is one chunk. A larger group is split into the fewest
    chunks of at most that size, with its positives spread evenly over them. For a pointwise loss a
    group has at least one chunk per positive: a step then has pairs of more users, and the pairs
    of a chunk still share a context.

    A loss that compares labels learns nothing from a chunk without a positive (or learns that
    negatives are equal). For such a loss a group has at most one chunk per positive, and negatives
    that exceed the chunks' size, drawn with the seed, are left out.
    """
    compares = loss not in POINTWISE and loss not in ON_SCORES
    n, n_positives = np.bincount(group), np.bincount(group, weights=label > 0).astype(np.int64)
    n_parts = -(-n // group_size)
    if loss in POINTWISE:
        n_parts = np.maximum(n_parts, n_positives)
    elif compares:
        n_parts = np.minimum(n_parts, np.maximum(n_positives, 1))
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(group)) if compares else np.zeros_like(group)
    order = np.lexsort((drawn, label <= 0, group))
    position = np.empty_like(group)
    position[order] = np.arange(len(group)) - (np.cumsum(n) - n)[group[order]]
    chunk = (np.cumsum(n_parts) - n_parts)[group] + position % n_parts[group]
    return np.where(position < n_parts[group] * group_size, chunk, -1)


def _table(pairs: Path, *, with_score: bool) -> pa.Table:
    """Read the columns that training needs; raise if one is missing, empty or has a null."""
    names = [*TEXTS, "label", *(["score"] if with_score else [])]
    found = pq.ParquetDataset(pairs).schema.names  # a file or a folder of part files
    if missing := [name for name in names if name not in found]:
        hint = " Set trainer.teacher, whose scores it holds." if missing == ["score"] else ""
        columns = ", ".join(missing)
        raise DataError(f"{pairs} has no column {columns}; it has {', '.join(found)}.{hint}")
    optional = [name for name in ("user_id",) if name in found]
    table = pq.read_table(pairs, columns=[*names, *optional], read_dictionary=[*TEXTS, *optional])
    if not len(table):
        raise DataError(
            f"{pairs} has no pairs to train on. Lower sampling.min_positives or data.min_ratings."
        )
    for name in table.column_names:
        if n_null := table[name].null_count:
            raise DataError(f"{pairs}: {n_null} rows have no {name}. Every pair needs one.")
    return table


def _encoded(column: pa.ChunkedArray) -> tuple[IntArray, Sequence[str]]:
    """Return the code of every value, and the distinct values."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    joined = column.unify_dictionaries().combine_chunks()
    array = joined.chunk(0) if isinstance(joined, pa.ChunkedArray) else joined
    return array.indices.to_numpy().astype(np.int64), array.dictionary.cast(pa.string()).to_pylist()


def _numbers(table: pa.Table, name: str, pairs: Path, *, maximum: float = np.inf) -> FloatArray:
    """Return a column as float32; raise if a value is not finite or out of range."""
    values = table[name].cast(pa.float32()).to_numpy()
    is_negative = (name == "label") & (values < 0)
    bad = np.flatnonzero(~np.isfinite(values) | is_negative | (values > maximum))
    if len(bad):
        allowed = "finite and at least 0" if name == "label" else "finite"
        above = ", with trainer.loss=bce at most 1 (a probability)" if maximum == 1 else ""
        value = values[bad[0]]
        raise DataError(f"{pairs}: {name} of row {bad[0]} is {value}; it must be {allowed}{above}.")
    return values


def _check_terms(loss: str, target: FloatArray, chunk: IntArray, pairs: Path) -> None:
    """Raise if no chunk has two different targets: a listwise loss would have nothing to learn."""
    if loss in POINTWISE:
        return
    low, high = np.full(chunk.max() + 1, np.inf), np.full(chunk.max() + 1, -np.inf)
    np.minimum.at(low, chunk, target)
    np.maximum.at(high, chunk, target)
    if not (high > low).any():
        raise DataError(
            f"{pairs}: no group of pairs (one user, one context) has two different targets, so "
            f"trainer.loss={loss} has nothing to compare. Add positives and negatives of the same "
            "context, or choose trainer.loss=bce."
        )
