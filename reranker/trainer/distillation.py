"""A teacher's scores of the pairs, computed once for whatever students learn from them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache
from reranker.config import ModelConfig
from reranker.errors import DataError
from reranker.model import load, resolve
from reranker.trainer.dataset import TEXTS

FloatArray = npt.NDArray[np.floating]
VERSION = 2  # raise it when the same teacher gives other scores
SCORE = pa.field("score", pa.float32())
DICTIONARY_BYTES = (
    64 * 2**20
)  # above its default of 1 MiB a dictionary of texts falls back to one text for every pair


@dataclass(frozen=True)
class DistilledPairs:
    """Pairs with a teacher's scores.

    Attributes:
        path: `pairs.parquet`: the columns and rows of the pairs that were scored, and `score`, float32.
        digest: SHA-256 of the folder that holds it.
        hit: It came from the cache.
        counts: `pairs`, scored.
    """

    path: Path
    digest: str
    hit: bool
    counts: dict[str, int]


def score_pairs(
    pairs: Path, digest: str, teacher: ModelConfig, cache: Cache, *, device: str = "cpu"
) -> DistilledPairs:
    """The pairs with a teacher's score of each, from the cache when weights, how they score, and pairs are the same.

    Args:
        pairs: Parquet, a file or a folder of parts, with user_ctx and book_text; it stays as it is. A row group is in
            memory at a time.
        digest: Of what the pairs are.
        teacher: How its weights are loaded; with the activation `identity` its scores are logits, as a student's are.
        device: Where it scores, as torch names it.

    Raises:
        ModelError: The weights cannot be had or do not load, or a score is NaN or infinite.
    """
    weights = resolve(teacher)
    key = {
        "version": VERSION,
        "weights": weights.digest(),
        "attention": teacher.attention,
        "activation": teacher.activation,
        "max_length": teacher.max_length,
        "pairs": digest,
    }

    def build(folder: Path) -> dict[str, object]:
        encoder = load(teacher, weights, device=device)

        def score(table: pa.Table) -> FloatArray:
            queries, candidates = (table[name].to_pylist() for name in TEXTS)
            return encoder.score(queries, candidates, progress="teacher")

        return {"pairs": _write(pairs, folder / "pairs.parquet", score)}

    return _taught(cache, key, build)


def attach_scores(pairs: Path, digest: str, scores: FloatArray, cache: Cache) -> DistilledPairs:
    """The pairs with scores that are there already, of mean 0 and standard deviation 1, whatever their scale was.

    Args:
        pairs, digest: As of `score_pairs`.
        scores: (n_pairs,) in the order of the rows.

    Raises:
        DataError: A score is not finite, or all are equal.
    """
    low, high = float(scores.min()), float(scores.max())
    if not np.isfinite(high - low) or low == high:
        raise DataError(
            f"{pairs}: a teacher's {len(scores)} scores go from {low} to {high}, so there is nothing to learn from it. "
            "Choose another trainer.teacher."
        )
    scores = (scores - scores.mean()) / scores.std()
    key = {
        "version": VERSION,
        "scores": hashlib.sha256(scores.tobytes()).hexdigest(),
        "pairs": digest,
    }

    def build(folder: Path) -> dict[str, object]:
        left = iter(scores)
        return {
            "pairs": _write(
                pairs, folder / "pairs.parquet", lambda table: np.fromiter(left, float, len(table))
            )
        }

    return _taught(cache, key, build)


def _taught(
    cache: Cache, key: object, build: Callable[[Path], dict[str, object]]
) -> DistilledPairs:
    entry = cache.fetch("teacher", key, build)
    counts = {name: int(str(value)) for name, value in entry.info.items()}
    return DistilledPairs(entry.path / "pairs.parquet", entry.digest, entry.hit, counts)


def _write(pairs: Path, target: Path, score: Callable[[pa.Table], FloatArray]) -> int:
    """Write the pairs with their scores, `score` being asked for one row group after another; the number of pairs."""
    files = sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs]
    schema = pq.read_schema(files[0]).append(SCORE)
    n_pairs = 0
    with pq.ParquetWriter(
        target, schema, compression=COMPRESSION, dictionary_pagesize_limit=DICTIONARY_BYTES
    ) as out:
        for table in _row_groups(files):
            out.write_table(
                table.append_column(SCORE, pa.chunked_array([score(table).astype(np.float32)]))
            )
            n_pairs += len(table)
    return n_pairs


def _row_groups(files: list[Path]) -> Iterator[pa.Table]:
    for file in files:
        with pq.ParquetFile(file) as open_file:
            for i in range(open_file.num_row_groups):
                yield open_file.read_row_group(i)
