"""The numbers of a pairs file are those of a count in plain Python."""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.reports.pairs.summary import N_EXAMPLES, PairsSummary, summarise
from reranker.sampling import pair_files
from reranker.sampling.pair_files import read_pairs

NAMES = ("user_id", "user_ctx", "book_id", "book_text", "label")
ROW = st.tuples(
    st.sampled_from("abcdefgh"),
    st.sampled_from(["one", "one two", " three  words\there ", "né"]),
    st.none() | st.integers(1, 4),
    st.sampled_from(["x", "x y", "長い 本"]),
    st.integers(0, 1),
)


def summary(rows: list[tuple[Any, ...]], folder: Path, *, drop: str = "") -> PairsSummary:
    columns = {name: [row[i] for row in rows] for i, name in enumerate(NAMES) if name != drop}
    types = {"book_id": pa.int64(), "label": pa.int8()}
    arrays = {name: pa.array(v, types.get(name, pa.string())) for name, v in columns.items()}
    pq.write_table(pa.table(arrays), folder / "pairs.parquet")
    return summarise(read_pairs(folder / "pairs.parquet"))


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(ROW, max_size=60), has_id=st.booleans(), batch=st.integers(1, 9))
def test_numbers_are_those_of_the_rows(
    rows: list[tuple[Any, ...]], has_id: bool, batch: int
) -> None:
    with (
        tempfile.TemporaryDirectory() as temp,
        mock.patch.object(pair_files, "BATCH_ROWS", batch),
    ):
        found = summary(rows, Path(temp), drop="" if has_id else "book_id")
    if not has_id:
        rows = [(*row[:2], None, *row[3:]) for row in rows]
    book = [row[3] if row[2] is None else row[2] for row in rows]
    labels = defaultdict(set)
    for row, of_row in zip(rows, book, strict=True):
        labels[row[0], of_row].add(row[4])
    users = sorted({row[0] for row in rows})
    by_label = {k: Counter(row[0] for row in rows if row[4] == k) for k in (0, 1)}
    contexts = Counter(user for user, _ in {(row[0], row[1]) for row in rows})
    assert found.n == {
        "rows": len(rows),
        "pairs": len(rows),
        "positives": by_label[1].total(),
        "negatives": by_label[0].total(),
        "users": len(users),
        "contexts": len({row[1] for row in rows}),
        "books": len(set(book)),
        "duplicate_rows": len(rows) - len(set(rows)),
        "conflicts": sum(len(both) == 2 for both in labels.values()),
        "users_without_positives": len(set(users) - set(by_label[1])),
        "users_without_negatives": len(set(users) - set(by_label[0])),
        "users_with_several_contexts": sum(n > 1 for n in contexts.values()),
    }
    positives, negatives = ([by_label[k][user] for user in users] for k in (1, 0))
    ratio = [n / p for p, n in zip(positives, negatives, strict=True) if p]
    expected = {"positives": positives, "negatives": negatives, "negatives_per_positive": ratio}
    assert list(found.per_user) == [name for name, values in expected.items() if values]
    for name, distribution in found.per_user.items():
        assert distribution.percentiles == pytest.approx(
            np.percentile(expected[name], np.arange(101))
        )
    for i, name in ((1, "user_ctx"), (3, "book_text")):
        if rows:
            chars, words = ([f(row[i]) for row in rows] for f in (len, lambda t: len(t.split())))
            assert found.chars[name].mean == pytest.approx(np.mean(chars))
            assert found.words[name].mean == pytest.approx(np.mean(words))
            assert found.words[name].stats()["max"] == max(words)
    assert [row["user_id"] for row in found.head] == [row[0] for row in rows[:5]]
    assert len(found.examples) == min(N_EXAMPLES, len(users))


@settings(max_examples=30, deadline=None)
@given(rows=st.lists(ROW, min_size=1, max_size=40), batch=st.integers(1, 5))
def test_examples_are_the_same_in_any_batches(rows: list[tuple[Any, ...]], batch: int) -> None:
    with tempfile.TemporaryDirectory() as temp:
        whole = summary(rows, Path(temp))
        with mock.patch.object(pair_files, "BATCH_ROWS", batch):
            in_batches = summary(rows, Path(temp))
    assert in_batches.examples == whole.examples
    for example in whole.examples:
        own = [row for row in rows if row[0] == example.user_id]
        assert example.context == own[0][1]
        for label, limit in ((1, 2), (0, 6)):
            texts = [r[3] for r in own if r[1] == example.context and r[4] == label]
            assert example.texts[label] == texts[:limit]


def test_dropped_rows_and_types_of_parts(tmp_path: Path) -> None:
    texts = pa.array([None, " ", "x", "y"], pa.string())
    for i, kind in enumerate((pa.int64(), pa.float64())):
        table = pa.table(
            {
                "user_id": pa.array([1, 2, 3, None], kind),
                "user_ctx": ["c"] * 4,
                "book_text": texts,
                "label": [1.0, 0.0, None, 0.0],
                "score": [0.5] * 4,
            }
        )
        pq.write_table(table, tmp_path / f"part.{i}.parquet")
    found = summarise(read_pairs(tmp_path))
    assert found.n["rows"] == 8 and found.n["pairs"] == 0
    assert found.dropped == {"user_id": 2, "user_ctx": 0, "book_text": 4, "label": 2}
    assert found.n_null == {"user_id": 2, "user_ctx": 0, "book_text": 2, "label": 2}
    assert found.n_blank == {"user_id": 0, "user_ctx": 0, "book_text": 2, "label": 0}
    assert found.columns["user_id"] == "int64 or double" and found.columns["score"] == "double"
    assert found.per_user == found.chars == found.words == {} and found.head == []
