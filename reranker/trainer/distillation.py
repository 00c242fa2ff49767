"""Teachers: a model or a baseline whose scores are added to the training pairs and cached."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

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
# A dictionary of texts above this size is not used: parquet then stores one text per pair. The
# default is 1 MiB.
DICTIONARY_BYTES = 64 * 2**20


class PairsFile(Protocol):
    """Stored pairs: parquet (a file or a folder of parts) with user_ctx and book_text."""

    @property
    def path(self) -> Path:
        """The file or folder."""

    @property
    def digest(self) -> str:
        """SHA-256 that identifies the pairs."""


@dataclass(frozen=True)
class DistilledPairs:
    """Pairs with a teacher's scores.

    Attributes:
        path: `pairs.parquet`: rows and columns of the scored pairs, and `score`, float32.
        digest: SHA-256 of the folder that contains the file.
        hit: Whether the pairs came from the cache.
        counts: `pairs`, the number of scored pairs.
    """

    path: Path
    digest: str
    hit: bool
    counts: dict[str, int]


class Teacher(Protocol):
    """Adds its scores to training pairs."""

    def add_scores(self, pairs: PairsFile, cache: Cache) -> DistilledPairs:
        """Return a copy of the pairs with the teacher's score of each."""


@dataclass(frozen=True)
class ModelTeacher:
    """A cross-encoder as teacher.

    Attributes:
        cfg: How its weights are loaded. Use the activation `identity`: its scores are then logits,
            like those of the student.
        device: The torch device that scores.
    """

    cfg: ModelConfig
    device: str = "cpu"

    def add_scores(self, pairs: PairsFile, cache: Cache) -> DistilledPairs:
        """Return the pairs with the model's scores, from the cache if model and pairs are the same.

        The pairs file is not changed; one of its row groups is in memory at a time.

        Raises:
            ModelError: The weights are missing or cannot be loaded, or a score is NaN or infinite.

        Example:
            >>> distilled = ModelTeacher(cfg, device="cuda").add_scores(pairs, cache)
            >>> pd.read_parquet(distilled.path)["score"]
        """
        weights = resolve(self.cfg)
        key = {
            "version": VERSION,
            "weights": weights.digest(),
            "attention": self.cfg.attention,
            "activation": self.cfg.activation,
            "max_length": self.cfg.max_length,
            "pairs": pairs.digest,
        }

        def build(folder: Path) -> dict[str, object]:
            encoder = load(self.cfg, weights, device=self.device)

            def score(table: pa.Table) -> FloatArray:
                queries, candidates = (table[name].to_pylist() for name in TEXTS)
                return encoder.score(queries, candidates, progress="teacher")

            return {"pairs": _write(pairs.path, folder / "pairs.parquet", score)}

        return _fetch(cache, key, build)


@dataclass(frozen=True)
class BaselineTeacher:
    """A baseline as teacher; its scores are standardised (mean 0, standard deviation 1).

    Attributes:
        score_pairs: Returns (n_pairs,) scores in the order of the pairs file's rows.
    """

    score_pairs: Callable[[], FloatArray]

    def add_scores(self, pairs: PairsFile, cache: Cache) -> DistilledPairs:
        """Return the pairs with the baseline's standardised scores, cached by scores and pairs.

        Raises:
            DataError: A score is NaN or infinite, or all scores are equal.
        """
        scores = _standardised(self.score_pairs(), pairs.path)
        key = {
            "version": VERSION,
            "scores": hashlib.sha256(scores.tobytes()).hexdigest(),
            "pairs": pairs.digest,
        }

        def build(folder: Path) -> dict[str, object]:
            remaining = iter(scores)

            def score(table: pa.Table) -> FloatArray:
                return np.fromiter(remaining, float, len(table))

            return {"pairs": _write(pairs.path, folder / "pairs.parquet", score)}

        return _fetch(cache, key, build)


def _standardised(scores: FloatArray, pairs: Path) -> FloatArray:
    """Return the scores with mean 0 and standard deviation 1; raise if that is impossible."""
    low, high = float(scores.min()), float(scores.max())
    if not np.isfinite(high - low) or low == high:
        raise DataError(
            f"{pairs}: the teacher's {len(scores)} scores range from {low} to {high}, so a student "
            "cannot learn from them. Choose another trainer.teacher."
        )
    return (scores - scores.mean()) / scores.std()


def _fetch(cache: Cache, key: object, build: Callable[[Path], dict[str, object]]) -> DistilledPairs:
    """Return the scored pairs for a key; `build` writes them if they are not in the cache."""
    entry = cache.fetch("teacher", key, build)
    counts = {name: int(str(value)) for name, value in entry.info.items()}
    return DistilledPairs(entry.path / "pairs.parquet", entry.digest, entry.hit, counts)


def _write(pairs: Path, target: Path, score: Callable[[pa.Table], FloatArray]) -> int:
    """Write the pairs with their scores, one row group at a time; return the number of pairs."""
    files = sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs]
    schema = pq.read_schema(files[0]).append(SCORE)
    settings = {"compression": COMPRESSION, "dictionary_pagesize_limit": DICTIONARY_BYTES}
    n_pairs = 0
    with pq.ParquetWriter(target, schema, **settings) as out:
        for table in _row_groups(files):
            scores = pa.chunked_array([score(table).astype(np.float32)])
            out.write_table(table.append_column(SCORE, scores))
            n_pairs += len(table)
    return n_pairs


def _row_groups(files: list[Path]) -> Iterator[pa.Table]:
    for file in files:
        with pq.ParquetFile(file) as open_file:
            for i in range(open_file.num_row_groups):
                yield open_file.read_row_group(i)
