"""Properties of the texts of a pairs file do not depend on its row groups."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.data.draws import IntArray
from reranker.reports.data.pair_texts import read_texts
from tests.helpers.paired import words


def write_pairs(
    path: Path, rows: list[tuple[str | None, str | None]], *, row_group_size: int
) -> Path:
    """A pairs file of (user_ctx, book_text) with dictionary-encoded texts."""
    context, book = (
        pa.array(column, pa.string()).dictionary_encode() for column in zip(*rows, strict=True)
    )
    n = len(rows)
    columns = {
        "user_id": pa.array(["u"] * n),
        "user_ctx": context,
        "book_id": pa.array([None, *range(1, n)], pa.int64()),
        "book_text": book,
        "label": pa.array([1] * n, pa.int8()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


@pytest.mark.parametrize("row_group_size", [1, 2, 7])
def test_contexts_lengths_and_missing_values_do_not_depend_on_row_groups(
    tmp_path: Path, row_group_size: int
) -> None:
    rows = [("ab c", "x"), ("ab c", None), ("é", "  "), ("é", "x y"), ("é", "x"), (None, "x")]
    path = write_pairs(tmp_path / "pairs.parquet", rows, row_group_size=row_group_size)
    user = np.array([0, 0, 0, 0, 1, 1])
    measured = np.array([1, 0, 1, 1, 0, 1], bool)
    texts = read_texts(path, user, words, measured=measured, shown=np.array([3, 5]))
    assert texts.context.tolist() == [0, 0, 1, 1, 2, 3]
    assert texts.chars["user_ctx"].tolist() == [4, 4, 1, 1, 1, 0]
    assert texts.chars["book_text"].tolist() == [1, 0, 2, 3, 1, 1]
    assert texts.tokens["user_ctx"].tolist() == [2, 1, 1, 0]
    assert texts.tokens["book_text"].tolist() == [1, 0, 2, 1]
    assert texts.n_null == {"user_id": 0, "user_ctx": 1, "book_id": 1, "book_text": 1, "label": 0}
    assert texts.n_blank == {"user_id": 0, "user_ctx": 0, "book_text": 1}
    assert texts.shown == {3: ("é", "x y"), 5: ("", "x")}


def test_the_tokens_of_a_text_are_counted_once(tmp_path: Path) -> None:
    path = write_pairs(
        tmp_path / "pairs.parquet", [("c", f"b{i % 3}") for i in range(300)], row_group_size=300
    )
    counted: list[str] = []

    def count(texts: list[str]) -> IntArray:
        counted.extend(texts)
        return words(texts)

    read_texts(
        path, np.zeros(300, int), count, measured=np.ones(300, bool), shown=np.array([], int)
    )
    assert sorted(counted) == ["b0", "b1", "b2", "c"]
