"""Ratings in any order become one per user and book, sorted, for any block size."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.data import histories
from reranker.data.sources import bookdb

CATALOGUE = np.array([10, 20, 30, 40])
BOOK = np.array([0, 1, 1, 2])  # 20 and 30 are editions of one work
# In code point order, as Python sorts; in UTF-16 order the last two would be swapped.
IDS = ["", "B", "a", "a b", "é", "￿", "\U0001f600"]
RATINGS = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.sampled_from([10, 20, 30, 40, 99]),
        st.integers(1, 5),
        st.integers(0, 2),
    ),
    max_size=40,
)


def frame_of(rows: list[tuple[str, int, int, int]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=bookdb.RATINGS.names)


def tables_of(rows: list[tuple[str, int, int, int]], size: int) -> list[pa.Table]:
    table = pa.Table.from_pandas(frame_of(rows), schema=bookdb.RATINGS, preserve_index=False)
    return [table.slice(a, size) for a in range(0, len(rows), size)]


def merge(
    rows: list[tuple[str, int, int, int]], folder: Path, size: int
) -> tuple[histories.Spool, histories.Ratings]:
    spool = histories.spool(tables_of(rows, size), CATALOGUE, folder / "spool")
    return spool, histories.merge(spool.ratings, BOOK, folder / "rated", size)


def one_rating_each(rows: list[tuple[str, int, int, int]]) -> list[tuple[str, int, int, int]]:
    """Return the expected rows, computed by pandas."""
    frame = frame_of(rows)
    frame = frame[frame["book_id"] != 99]
    frame["book"] = frame["book_id"].map(dict(zip(CATALOGUE, BOOK, strict=True)))
    frame = frame.sort_values(["user_id", "book", "timestamp", "rating"])
    frame = frame.drop_duplicates(["user_id", "book"], keep="last")
    columns = ["user_id", "book", "rating", "timestamp"]
    return list(frame[columns].itertuples(index=False, name=None))


def rows_of(
    rated: histories.Ratings, users: np.ndarray, size: int
) -> list[tuple[str, int, int, int]]:
    ids = rated.user_ids.take(pa.array(users)).to_pylist()
    return [
        (ids[u], b, r, t) for block in rated.blocks(users, size) for u, b, r, t in block.tolist()
    ]


@settings(max_examples=40, deadline=None)
@given(RATINGS, st.integers(1, 45), st.integers(1, 45), st.randoms(use_true_random=False))
def test_one_rating_is_kept_for_each_user_and_book(
    rows: list[tuple[str, int, int, int]], size: int, other_size: int, order: random.Random
) -> None:
    expected = one_rating_each(rows)
    shuffled = rows.copy()
    order.shuffle(shuffled)
    with tempfile.TemporaryDirectory() as a, tempfile.TemporaryDirectory() as b:
        spool, rated = merge(rows, Path(a), size)
        _, again = merge(shuffled, Path(b), other_size)
        assert rated.path.read_bytes() == again.path.read_bytes()
        assert rated.user_ids.to_pylist() == sorted({r[0] for r in expected})
        assert rows_of(rated, np.arange(len(rated.user_ids)), other_size) == expected
        assert [p.name for p in Path(a).iterdir()] == ["rated"]
    assert (spool.n_in, spool.n_unknown) == (len(rows), sum(r[1] == 99 for r in rows))
    assert spool.n_of_book.tolist() == [sum(r[1] == b for r in rows) for b in CATALOGUE]


def test_blocks_hold_complete_users_and_number_them_by_the_selection(tmp_path: Path) -> None:
    rows = [
        (user, book, 3, 0)
        for user, n in (("a", 3), ("b", 1), ("c", 2), ("d", 3))
        for book in (10, 20, 40)[:n]
    ]
    _, rated = merge(rows, tmp_path, 4)
    blocks = [block["user"].tolist() for block in rated.blocks(np.array([0, 2, 3]), 4)]
    assert blocks == [[0, 0, 0, 1, 1], [2, 2, 2]]  # c fills the first; d begins the second


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(0, 2), st.integers(0, 1)), max_size=30))
def test_argsort_by_equals_lexsort(rows: list[tuple[int, int, int]]) -> None:
    key, b, a = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    sort = histories.argsort_by(key, a, b)
    full = np.lexsort((a, b, key))
    assert [rows[i] for i in sort] == [rows[i] for i in full]


def test_a_user_with_more_rows_than_a_block_is_complete(tmp_path: Path) -> None:
    rows = [("a", 10, 1 + i % 5, i) for i in range(50)] + [("b", 10, 2, 0), ("b", 40, 2, 0)]
    _, rated = merge(rows, tmp_path, 5)
    assert rows_of(rated, np.arange(2), 1) == [("a", 0, 5, 49), ("b", 0, 2, 0), ("b", 2, 2, 0)]
