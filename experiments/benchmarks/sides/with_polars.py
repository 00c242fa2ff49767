"""Build pairs with Polars: sorted keys of (user, book), texts as categoricals."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from sides.task import SLICE, Task

# CPU seconds of the formulations that were tried, including reading and writing, with 1e6 ratings
# (819,280 pairs) and 2 threads:
#   0.6  this version
#   0.7  one pool of categories for all columns, the default of pl.Categorical
#   1.0  oversampled rows in drawing order, is_in, is_first_distinct, the first k of a user by
#        arithmetic; enums
#   1.1  the same, with joins of categoricals instead of gathered codes
#   1.8  lazy: repeat_by and explode, hash % n, unique, anti join, int_range().over("user") < k,
#        joins; strings sunk
# Slices of a half, a quarter, an eighth of the users: .84, .88, .88, and 195, 175, 165 MB of memory
# instead of 225. With unique and anti join instead of sort and search_sorted the draw takes .33
# instead of .25. With row groups of 250,000 rows the writing takes .30 instead of .18, because each
# group contains all texts. With enums the file has 20 MB instead of 6, because their categories are
# also in the schema of the file, uncompressed.


def prepare(task: Task) -> Callable[[], None]:
    """Return the measured function, which reads the world's files and writes part files."""

    def work() -> None:
        books = pl.read_parquet(task.world / "books.parquet", columns=["book_id", "book_text"])
        books = books.with_columns(pl.col("book_text").cast(_categories()))
        users = pl.read_parquet(task.world / "users.parquet").with_row_index("user")
        users = users.filter(split="train").select(pl.col("user").cast(pl.Int32), "user_id")
        seen, positives = _ratings(task, users["user"], len(books))
        for first in range(0, users["user"][-1] + 1, SLICE):
            slices = (_part(keys, first, len(books)) for keys in (seen, positives))
            _write_slice(task, books, users, *slices)

    return work


def _ratings(task: Task, train: pl.Series, n_books: int) -> tuple[pl.Series, pl.Series]:
    """Return keys user * n_books + book of the train users' ratings and positives, ascending."""
    key = pl.col("user").cast(pl.Int64) * n_books + pl.col("book")
    positive = pl.col("is_target") & (pl.col("rating") >= task.positive_rating)
    rated = pl.scan_parquet(task.world / "histories.parquet").filter(
        pl.col("user").is_in(train.implode())
    )
    keys = rated.select(key=key, positive=positive).collect()
    # The file is sorted by (user, book), and so are the keys.
    return keys["key"].set_sorted(), keys.filter("positive")["key"].set_sorted()


def _part(keys: pl.Series, first: int, n_books: int) -> pl.Series:
    start, end = keys.search_sorted(pl.Series([first * n_books, (first + SLICE) * n_books]))
    return keys[start:end]


def _write_slice(
    task: Task, books: pl.DataFrame, users: pl.DataFrame, seen: pl.Series, positives: pl.Series
) -> None:
    """Draw negatives for the users of these keys, and write their pairs."""
    n_books = len(books)
    negatives = _draw(task, seen, positives, n_books)
    key = pl.concat([positives, negatives])
    user, book = (key // n_books).cast(pl.Int32), key % n_books
    low, high = positives[0] // n_books, positives[-1] // n_books
    contexts = pl.scan_parquet(task.world / "contexts.parquet")
    contexts = contexts.filter(pl.col("user").is_between(low, high)).collect()
    with_contexts = users.join(contexts, on="user", maintain_order="left")
    with_contexts = with_contexts.with_columns(
        pl.col(name).cast(_categories()) for name in ("user_id", "user_ctx")
    )
    texts = with_contexts.select("user_id", "user_ctx")[with_contexts["user"].search_sorted(user)]
    label = pl.Series("label", np.repeat([1, 0], [len(positives), len(negatives)]), dtype=pl.Int8)
    pairs = pl.concat([texts, books[book], label.to_frame()], how="horizontal")
    pairs.write_parquet(
        task.out / f"pairs-{low}.parquet",
        compression="zstd",
        compression_level=1,
        statistics=False,
        row_group_size=2_000_000,
    )


def _categories() -> pl.Categorical:
    """Return a new pool of categories, so that a column looks up codes only among its texts."""
    return pl.Categorical(pl.Categories.random())


def _draw(task: Task, seen: pl.Series, positives: pl.Series, n_books: int) -> pl.Series:
    """Return keys of neg_ratio negatives for each positive.

    Seen and repeated books are replaced by new draws until none is left.
    """
    rng = np.random.default_rng(task.seed)
    user = pl.Series(np.repeat((positives // n_books).to_numpy(), task.neg_ratio))
    kept = _new(_draws(rng, user, n_books), seen)
    while True:
        missing = _missing(user, kept // n_books)
        if not len(missing):
            return kept
        more = _new(_draws(rng, missing, n_books), seen)
        kept = pl.concat([kept, more.filter(~more.is_in(kept.implode()))]).sort()


def _draws(rng: np.random.Generator, user: pl.Series, n_books: int) -> pl.Series:
    return (user * n_books + pl.Series(rng.integers(0, n_books, len(user)))).sort()


def _new(key: pl.Series, seen: pl.Series) -> pl.Series:
    """Return the distinct keys that are not in `seen`; both are sorted."""
    index = seen.search_sorted(key).clip(0, len(seen) - 1)
    return key.filter((key.shift(1, fill_value=-1) != key) & (seen.gather(index) != key))


def _missing(wanted: pl.Series, found: pl.Series) -> pl.Series:
    """Return `wanted` without `found`, as multisets of users; both are sorted."""
    first, n_users = wanted[0], wanted[-1] - wanted[0] + 1
    n_wanted, n_found = (
        np.bincount(s.to_numpy() - first, minlength=n_users) for s in (wanted, found)
    )
    return pl.Series(np.repeat(np.arange(first, first + n_users), n_wanted - n_found))
