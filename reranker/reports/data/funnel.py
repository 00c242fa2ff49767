"""Count the rows that each stage of the data keeps and drops, by reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

# Why rows disappear that no count of dropped rows explains, by unit.
UNEXPLAINED = {"ratings": "rated by dropped users", "books": "other editions of a kept book"}


@dataclass(frozen=True)
class Step:
    """A line of the funnel: rows into and out of a stage, and dropped rows by reason."""

    stage: str
    unit: str
    n_in: int
    n_out: int
    dropped: dict[str, int]

    @property
    def kept(self) -> float:
        """The fraction of rows that the stage keeps."""
        return self.n_out / self.n_in if self.n_in else 0.0


def funnel(tables: Mapping[str, int], pairs: Mapping[str, int]) -> list[Step]:
    """Return the steps from raw rows to tables, from users to train users, and on to the pairs."""
    splits = {split: tables[f"users_{split}"] for split in ("dev", "test")}
    return [
        *_steps("tables", tables),
        Step("train users", "users", tables["users"], tables["users_train"], splits),
        *_steps("pairs", pairs),
    ]


def _steps(stage: str, counts: Mapping[str, int]) -> list[Step]:
    units = [key.removesuffix("_in") for key in counts if key.endswith("_in")]
    return [_step(stage, unit, counts) for unit in units if unit in counts]


def _step(stage: str, unit: str, counts: Mapping[str, int]) -> Step:
    prefix = f"{unit}_dropped_"
    dropped = {key.removeprefix(prefix): n for key, n in counts.items() if key.startswith(prefix)}
    reasons = {r.replace("by_max", "over_max").replace("_", " "): n for r, n in dropped.items()}
    rest = counts[f"{unit}_in"] - counts[unit] - sum(reasons.values())
    if rest > 0:
        reasons[UNEXPLAINED.get(unit, "for other reasons")] = rest
    return Step(stage, unit, counts[f"{unit}_in"], counts[unit], reasons)
