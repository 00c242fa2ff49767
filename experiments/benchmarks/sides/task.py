"""Define the task of the benchmark on pairs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# This module imports no library, because it would count as memory of a side that does not use it.

# Users that DuckDB and Polars process at a time: all users of a world of 1e6 ratings, a tenth of
# those of 1e7 ratings.
SLICE = 45_000


@dataclass(frozen=True)
class Task:
    """The feature tables of a world, the folder for the pairs, and the settings of sampling.

    Attributes:
        world: Folder of books, users, histories and contexts (.parquet); a code is a row number.
        out: An empty folder for the pairs.
        n_users: The number of train users whose pairs are built; None for all. Only bookdb gets a
            subset, because it is slow.
    """

    world: Path
    out: Path
    n_users: int | None = None
    neg_ratio: int = 3
    positive_rating: float = 4.0
    seed: int = 0
