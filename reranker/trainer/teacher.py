"""A teacher's scores of the pairs, computed once for whatever students learn from them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache
from reranker.config import ModelConfig
from reranker.model import Encoder, load, resolve
from reranker.trainer.examples import TEXTS

VERSION = 1  # raise it when the same teacher gives other scores
SCORE = pa.field("score", pa.float32())
DICTIONARY_BYTES = 64 * 2**20  # above its default of 1 MiB a dictionary of texts falls back to one text for every pair


@dataclass(frozen=True)
class Taught:
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


def score_pairs(pairs: Path, digest: str, teacher: ModelConfig, cache: Cache, *, device: str = "cpu") -> Taught:
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
        "weights": weights.sha256,
        "attention": teacher.attention,
        "activation": teacher.activation,
        "max_length": teacher.max_length,
        "pairs": digest,
    }

    def build(folder: Path) -> dict[str, object]:
        encoder = load(teacher, weights, device=device)
        return {"pairs": _write(pairs, folder / "pairs.parquet", encoder)}

    entry = cache.fetch("teacher", key, build)
    counts = {name: int(str(value)) for name, value in entry.info.items()}
    return Taught(entry.path / "pairs.parquet", entry.digest, entry.hit, counts)


def _write(pairs: Path, target: Path, encoder: Encoder) -> int:
    """Write the pairs with their scores; the number of pairs."""
    files = sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs]
    schema = pq.read_schema(files[0]).append(SCORE)
    n_pairs = 0
    with pq.ParquetWriter(target, schema, compression=COMPRESSION, dictionary_pagesize_limit=DICTIONARY_BYTES) as out:
        for table in _row_groups(files):
            queries, candidates = (table[name].to_pylist() for name in TEXTS)
            score = encoder.score(queries, candidates, progress="teacher")
            out.write_table(table.append_column(SCORE, pa.chunked_array([score])))
            n_pairs += len(table)
    return n_pairs


def _row_groups(files: list[Path]) -> Iterator[pa.Table]:
    for file in files:
        with pq.ParquetFile(file) as open_file:
            for i in range(open_file.num_row_groups):
                yield open_file.read_row_group(i)
