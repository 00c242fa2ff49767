"""Polars: keys of (user, book) in one sorted series, texts as categoricals, codes gathered last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from sides.task import SLICE, Task

# What was tried, in CPU seconds at 1e6 ratings (819,280 pairs), 2 threads, reading and writing included:
#   0.6  this one
#   0.7  one pool of categories for all columns, as pl.Categorical gives
#   1.0  oversampled rows in drawing order, is_in, is_first_distinct, the first k of a user by arithmetic; enums
#   1.1  the same with categoricals joined in place of codes gathered
#   1.8  lazy: repeat_by and explode, hash % n, unique, anti join, int_range().over("user") < k, joins; strings sunk
# Slices of a half, a quarter, an eighth of the users: .84, .88, .88 and 195, 175, 165 MB of memory in place of 225.
# unique and anti join in place of sort and search_sorted: the draw .33 against .25. Row groups of 250,000 rows: the
# writing .30 against .18, for each holds all texts again. Enums: their categories stand uncompressed in the file's
# schema too, so the file has 20 MB, not 6.


def prepare(task: Task) -> Callable[[], None]:
    """The work: from the world's files to part files."""

    def work() -> None:
        books = pl.read_parquet(task.world / "books.parquet", columns=["book_id", "book_text"])
        books = books.with_columns(pl.col("book_text").cast(_categories()))
        users = (
            pl.read_parquet(task.world / "users.parquet")
            .with_row_index("user")
            .filter(fold="train")
        )
        users = users.select(pl.col("user").cast(pl.Int32), "user_id")
        seen, positives = _ratings(task, users["user"], len(books))
        for first in range(0, users["user"][-1] + 1, SLICE):
            _write_slice(
                task, books, users, *(_part(keys, first, len(books)) for keys in (seen, positives))
            )

    return work


def _ratings(task: Task, train: pl.Series, n_books: int) -> tuple[pl.Series, pl.Series]:
    """Keys user * n_books + book of the train users' ratings and of their positives, ascending."""
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
    """Draw for the users of these keys, and write their pairs."""
    n_books = len(books)
    negatives = _draw(task, seen, positives, n_books)
    key = pl.concat([positives, negatives])
    user, book = (key // n_books).cast(pl.Int32), key % n_books
    low, high = positives[0] // n_books, positives[-1] // n_books
    contexts = (
        pl.scan_parquet(task.world / "contexts.parquet")
        .filter(pl.col("user").is_between(low, high))
        .collect()
    )
    readers = users.join(contexts, on="user", maintain_order="left")
    readers = readers.with_columns(
        pl.col(name).cast(_categories()) for name in ("user_id", "user_ctx")
    )
    texts = readers.select("user_id", "user_ctx")[readers["user"].search_sorted(user)]
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
    """A pool of categories for one column: a text's code is looked up among that column's texts alone."""
    return pl.Categorical(pl.Categories.random())


def _draw(task: Task, seen: pl.Series, positives: pl.Series, n_books: int) -> pl.Series:
    """Keys of neg_ratio negatives for each positive: draws that were seen or repeat are drawn again, until none is."""
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
    """The distinct keys that are not in `seen`; both sorted."""
    place = seen.search_sorted(key).clip(0, len(seen) - 1)
    return key.filter((key.shift(1, fill_value=-1) != key) & (seen.gather(place) != key))


def _missing(wanted: pl.Series, found: pl.Series) -> pl.Series:
    """`wanted` less `found`, as multisets of users; both sorted."""
    first, n_users = wanted[0], wanted[-1] - wanted[0] + 1
    n_wanted, n_found = (
        np.bincount(s.to_numpy() - first, minlength=n_users) for s in (wanted, found)
    )
    return pl.Series(np.repeat(np.arange(first, first + n_users), n_wanted - n_found))
