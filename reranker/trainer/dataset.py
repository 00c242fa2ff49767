"""The pairs file as the trainer needs it: texts tokenised once, a target per pair, and which pairs stay together."""

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
TEXTS = ("user_ctx", "book_text")


@dataclass(frozen=True)
class PairDataset:
    """Pairs by row, (n_pairs,) each.

    Attributes:
        contexts, books: The distinct texts, tokenised.
        query, candidate: Which of them a pair is made of.
        group: Of the pairs of one user and context, from 0.
        unit: Of the pairs that stay together, from 0; a whole group, or a part of one.
        target: float32; the label, or for mse and margin_mse a teacher's score.
        taught: float32; a teacher's score, where the objective on labels has one beside it; else empty.
        length: Tokens, after truncation.
        n_left_out: Pairs of the file that are not among these; see `units`.
    """

    contexts: Tokens
    books: Tokens
    query: IntArray
    candidate: IntArray
    group: IntArray
    unit: IntArray
    target: npt.NDArray[np.float32]
    taught: npt.NDArray[np.float32]
    length: IntArray
    n_left_out: int = 0


def read(pairs: Path, encoder: Encoder, cfg: TrainerConfig) -> PairDataset:
    """The examples of a parquet file of pairs.

    Args:
        pairs: Columns user_ctx, book_text, label; user_id where two users may share a context; and, where a teacher is
            learnt from, score.

    Raises:
        DataError: A column is missing, a value is null or not finite, there is no pair, or no group gives the
            objective something to learn from.
    """
    table = _table(pairs, cfg.loss in ON_SCORES or cfg.teacher_weight > 0)
    (query, contexts), (candidate, books) = (_encoded(table[name]) for name in TEXTS)
    label = _numbers(table["label"], "label", pairs, most=1.0 if cfg.loss == "bce" else np.inf)
    taught = (
        _numbers(table["score"], "score", pairs) if "score" in table.column_names else label[:0]
    )
    target = taught if cfg.loss in ON_SCORES else label
    user = (
        _encoded(table["user_id"])[0] if "user_id" in table.column_names else np.zeros_like(query)
    )
    group = np.unique(user * (query.max() + 1) + query, return_inverse=True)[1]
    if cfg.loss in POINTWISE and encoder.attention == "full":
        unit = np.arange(len(group))  # nothing is shared, and steps of many users learn faster
    else:
        unit = units(group, label, group_size=cfg.group_size, loss=cfg.loss, seed=cfg.seed)
    kept = unit >= 0
    query, candidate, group, unit = (column[kept] for column in (query, candidate, group, unit))
    target, taught = target[kept], taught[kept] if cfg.teacher_weight > 0 else taught[:0]
    _check_terms(cfg.loss, target, unit, pairs)
    left, right = encoder.tokenise(contexts), encoder.tokenise(books)
    length = encoder.lengths(left, right, query, candidate).astype(np.int64)
    return PairDataset(
        left,
        right,
        query,
        candidate,
        group,
        unit,
        target,
        taught,
        length,
        n_left_out=int((~kept).sum()),
    )


def units(
    group: IntArray, label: npt.NDArray[Any], *, group_size: int, loss: str, seed: int
) -> IntArray:
    """Which pairs stay together, (n_pairs,) ids from 0; -1 for pairs that are left out.

    A group of at most group_size pairs stays whole; a larger one is dealt, positives first, into the fewest parts that
    are small enough, so that each has its share of positives. Where the objective is pointwise a group is dealt into
    as many parts as it has positives: a step then holds pairs of more users, and a part's context is still shared.

    An objective that compares labels learns nothing, or that negatives are equal, from a part without a positive. There
    a group has no more parts than positives, and negatives above their size, drawn with the seed, are left out.
    """
    compares = loss not in POINTWISE and loss not in ON_SCORES
    n, n_positives = np.bincount(group), np.bincount(group, weights=label > 0).astype(np.int64)
    n_parts = -(-n // group_size)
    if loss in POINTWISE:
        n_parts = np.maximum(n_parts, n_positives)
    elif compares:
        n_parts = np.minimum(n_parts, np.maximum(n_positives, 1))
    drawn = (
        np.random.default_rng(seed).permutation(len(group)) if compares else np.zeros_like(group)
    )
    order = np.lexsort((drawn, label <= 0, group))
    place = np.empty_like(group)
    place[order] = np.arange(len(group)) - (np.cumsum(n) - n)[group[order]]
    unit = (np.cumsum(n_parts) - n_parts)[group] + place % n_parts[group]
    return np.where(place < n_parts[group] * group_size, unit, -1)


def _table(pairs: Path, with_score: bool) -> pa.Table:
    names = [*TEXTS, "label", *(["score"] if with_score else [])]
    found = pq.ParquetDataset(pairs).schema.names  # of a file, or of a folder of part files
    if missing := [name for name in names if name not in found]:
        hint = " It is a teacher's, whom trainer.teacher names." if missing == ["score"] else ""
        raise DataError(
            f"{pairs} has no column {', '.join(missing)}; it has {', '.join(found)}.{hint}"
        )
    optional = [name for name in ("user_id",) if name in found]
    table = pq.read_table(pairs, columns=[*names, *optional], read_dictionary=[*TEXTS, *optional])
    if not len(table):
        raise DataError(
            f"{pairs} has no pairs to train on; loosen sampling.min_positives or data.min_ratings."
        )
    for name in table.column_names:
        if table[name].null_count:
            raise DataError(
                f"{pairs}: {table[name].null_count} rows have no {name}. Every pair needs one."
            )
    return table


def _encoded(column: pa.ChunkedArray) -> tuple[IntArray, Sequence[str]]:
    """The code of every value, and the distinct values."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    whole = column.unify_dictionaries().combine_chunks()
    chunk = whole.chunk(0) if isinstance(whole, pa.ChunkedArray) else whole
    return chunk.indices.to_numpy().astype(np.int64), chunk.dictionary.cast(pa.string()).to_pylist()


def _numbers(
    column: pa.ChunkedArray, name: str, pairs: Path, most: float = np.inf
) -> npt.NDArray[np.float32]:
    values = column.cast(pa.float32()).to_numpy()
    bad = np.flatnonzero(
        ~np.isfinite(values) | ((name == "label") & (values < 0)) | (values > most)
    )
    if len(bad):
        allowed = "finite and at least 0" if name == "label" else "finite"
        above = ", with trainer.loss=bce at most 1 (a probability)" if most == 1 else ""
        raise DataError(
            f"{pairs}: {name} of row {bad[0]} is {values[bad[0]]}; it must be {allowed}{above}."
        )
    return values


def _check_terms(loss: str, target: npt.NDArray[np.float32], unit: IntArray, pairs: Path) -> None:
    """Refuse pairs of which no group tells an objective on groups anything."""
    if loss in POINTWISE:
        return
    low, high = np.full(unit.max() + 1, np.inf), np.full(unit.max() + 1, -np.inf)
    np.minimum.at(low, unit, target)
    np.maximum.at(high, unit, target)
    if not (high > low).any():
        raise DataError(
            f"{pairs}: no group of pairs (one user, one context) has two different targets, so trainer.loss={loss} "
            "has nothing to compare. Give positives and negatives of the same context, or choose trainer.loss=bce."
        )
