"""Leave out ratings that cannot be used, by reason, and refuse ratings and times out of range."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from reranker.errors import DataError

RATING_RANGE = (1, 5)  # Goodreads stars
LATEST = 4_102_444_800  # the year 2100 in Unix seconds
FILE = "reduced_interactions.parquet"


@dataclass(frozen=True)
class RatingRules:
    """How ratings are read.

    Attributes:
        range: Lowest and highest rating; None reads no ratings.
        zero: `error`, `rating`, or `unrated`: a row with rating 0 or null is left out and counted.
        implicit: The rating of every row if `range` is None.
    """

    range: tuple[float, float] | None = RATING_RANGE
    zero: str = "error"
    implicit: float = RATING_RANGE[1]


STARS = RatingRules()


def usable_rows(table: pa.Table, rules: RatingRules, counts: Counter[str]) -> pa.Table:
    """Return the rows with a user, a book and a rating; count the others by reason."""
    drops = {
        "no_user_id": lambda t: pc.equal(pc.fill_null(t["user_id"], ""), ""),
        "no_book_id": lambda t: t["book_id"].is_null(),
    }
    if rules.range is None:
        counts["ratings_implicit"] += len(table)
        rating = pa.repeat(pa.scalar(rules.implicit, pa.float64()), len(table))
        table = table.set_column(table.column_names.index("rating"), "rating", rating)
    elif rules.zero == "unrated":
        drops["no_rating"] = lambda t: pc.equal(pc.fill_null(t["rating"], 0.0), 0.0)
    for reason, is_unusable in drops.items():
        unusable = is_unusable(table)
        if n := pc.sum(unusable).as_py():
            counts[f"ratings_dropped_{reason}"] += n
            table = table.filter(pc.invert(unusable))
    return table


def check_ratings(
    tables: Iterable[pa.Table], rules: RatingRules, counts: Counter[str]
) -> Iterator[pa.Table]:
    """Yield the tables up to the first invalid row, and raise at the end if there are any.

    Invalid rows of all tables are counted, so the message does not depend on the batch size.
    """
    n_rows = 0
    wrong, late = _Rows(), _Rows()
    for table in tables:
        n_rows += table.num_rows
        wrong.add(table, pc.invert(_is_allowed(table["rating"], rules)))
        late.add(table, pc.fill_null(pc.greater(table["timestamp"], LATEST), False))
        if not wrong.n and not late.n:
            yield table
    if not n_rows:
        dropped = {k: n for k, n in counts.items() if k.startswith("ratings_dropped_")}
        reasons = ", ".join(f"{k}={n}" for k, n in dropped.items())
        found = f"none of {sum(dropped.values())} rows can be used ({reasons})"
        raise DataError(f"{FILE}: {found if dropped else 'no rows'}; at least one is needed.")
    if wrong.n:
        raise DataError(f"{FILE}: {wrong.n} rows have {_wrong_rating(wrong.first, rules)}")
    if late.n:
        raise DataError(f"{FILE}: {late.n} rows have {_late_time(late.first)}")


@dataclass
class _Rows:
    """The number of rows that a mask chose, and the first of them."""

    n: int = 0
    first: dict[str, Any] = field(default_factory=dict)

    def add(self, table: pa.Table, mask: pa.ChunkedArray) -> None:
        """Count the chosen rows of the next table."""
        chosen = table.filter(mask)
        self.n += chosen.num_rows
        self.first = self.first or next(iter(chosen.slice(0, 1).to_pylist()), {})


def _is_allowed(rating: pa.ChunkedArray, rules: RatingRules) -> pa.ChunkedArray:
    if rules.range is None:
        return rating.is_valid()
    low, high = rules.range
    allowed = pc.and_(pc.greater_equal(rating, low), pc.less_equal(rating, high))
    if rules.zero == "error":
        allowed = pc.and_(allowed, pc.not_equal(rating, 0.0))
    return pc.fill_null(allowed, False)


def _wrong_rating(row: dict[str, Any], rules: RatingRules) -> str:
    low, high = rules.range or RATING_RANGE
    value = row["rating"]
    remedy = "Fix the source, or set data.rating_range=[LOWEST,HIGHEST]."
    if not value and rules.zero != "unrated":
        remedy = "If this means read but not rated, set data.zero_rating=unrated."
        remedy += " If it is a rating, set data.zero_rating=rating." * (value == 0 and low <= 0)
    shown = value if value is None else f"{value:g}"
    outside = "a rating of 0" if value == 0 and low <= 0 else f"a rating outside {low:g}..{high:g}"
    return f"{outside} (first: {_ids(row)}, rating={shown}). {remedy}"


def _late_time(row: dict[str, Any]) -> str:
    value = row["timestamp"]
    units = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
    unit, per_second = next(
        ((u, n) for u, n in units.items() if value <= LATEST * n), ("nanoseconds", 10**9)
    )
    return (
        f"a timestamp after the year 2100 (first: {_ids(row)}, timestamp={value}). Times are Unix "
        f"seconds; these are probably {unit}: divide them by {per_second}."
    )


def _ids(row: dict[str, Any]) -> str:
    return f"user_id={row['user_id']}, book_id={row['book_id']}"
