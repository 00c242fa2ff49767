"""Polars: keys of (user, book) in one sorted series, texts as categoricals, codes gathered last."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from sides.task import Task

# What was tried, in CPU seconds at 1e6 ratings (819,280 pairs), 2 threads, reading and writing included:
#   0.5  this one
#   1.0  oversampled rows in drawing order, is_in, is_first_distinct, the first k of a user by arithmetic; enums
#   1.1  the same with categoricals joined in place of codes gathered
#   1.8  lazy: repeat_by and explode, hash % n, unique, anti join, int_range().over("user") < k, joins; strings sunk
# unique and anti join in place of sort and search_sorted: the draw .33 against .25. Row groups of 250,000 rows: the
# writing .30 against .18, for each holds all texts again. Enums: their categories stand uncompressed in the file's
# schema too, so the file has 20 MB, not 6.


def prepare(task: Task) -> Callable[[], None]:
    """The work: from the world's files to `pairs.parquet`."""

    def work() -> None:
        books = pl.read_parquet(task.world / "books.parquet", columns=["book_id", "book_text"])
        users = pl.read_parquet(task.world / "users.parquet").with_row_index("user").filter(fold="train")
        users = users.select(pl.col("user").cast(pl.Int32), "user_id")
        seen, positives = _ratings(task, users["user"], len(books))
        negatives = _draw(task, seen, positives, len(books))
        _write(task, books, users, positives, negatives)

    return work


def _ratings(task: Task, train: pl.Series, n_books: int) -> tuple[pl.Series, pl.Series]:
    """Keys user * n_books + book of the train users' ratings and of their positives, ascending."""
    key = pl.col("user").cast(pl.Int64) * n_books + pl.col("book")
    positive = pl.col("is_target") & (pl.col("rating") >= task.positive_rating)
    rated = pl.scan_parquet(task.world / "histories.parquet").filter(pl.col("user").is_in(train.implode()))
    keys = rated.select(key=key, positive=positive).collect()
    # The file is sorted by (user, book), and so are the keys.
    return keys["key"].set_sorted(), keys.filter("positive")["key"].set_sorted()


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
    n_wanted, n_found = (np.bincount(s.to_numpy(), minlength=wanted[-1] + 1) for s in (wanted, found))
    lacking = n_wanted - n_found
    return pl.Series(np.repeat(np.arange(len(lacking)), lacking))


def _write(task: Task, books: pl.DataFrame, users: pl.DataFrame, positives: pl.Series, negatives: pl.Series) -> None:
    contexts = pl.read_parquet(task.world / "contexts.parquet")
    readers = users.join(contexts, on="user", maintain_order="left")
    user_id, user_ctx = (readers[c].cast(pl.Categorical) for c in ("user_id", "user_ctx"))
    book_text = books["book_text"].cast(pl.Categorical)
    key = pl.concat([positives, negatives])
    user = readers["user"].search_sorted((key // len(books)).cast(pl.Int32))
    book = key % len(books)
    label = pl.repeat(1, len(positives), dtype=pl.Int8, eager=True).extend(
        pl.repeat(0, len(negatives), dtype=pl.Int8, eager=True)
    )
    columns = {"user_id": user_id.gather(user), "user_ctx": user_ctx.gather(user)}
    columns |= {"book_id": books["book_id"].gather(book), "book_text": book_text.gather(book), "label": label}
    pairs = pl.DataFrame(columns)
    pairs.write_parquet(
        task.out / "pairs.parquet",
        compression="zstd",
        compression_level=1,
        statistics=False,
        row_group_size=2_000_000,
    )
