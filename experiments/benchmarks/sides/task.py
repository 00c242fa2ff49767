"""The task that every side gets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# No library is imported here: what a side does not use must not count as its memory.
SLICE = 45_000  # users that DuckDB and Polars hold at a time: all of a world of 1e6 ratings, a tenth of one of 1e7


@dataclass(frozen=True)
class Task:
    """A world's feature tables, and where the pairs go.

    Attributes:
        world: books, users, histories, contexts (.parquet); a code is a row number.
        out: An empty folder; a flat side writes its pairs into it.
        n_users: The first train users that are asked for; None asks for all. The seed's side alone is asked for few.
    """

    world: Path
    out: Path
    n_users: int | None = None
    neg_ratio: int = 3
    positive_rating: float = 4.0
    seed: int = 0
