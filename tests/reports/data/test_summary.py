"""The data report's numbers equal those of the tables and of the pairs file."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import Contexts, Tables, build_contexts, load_tables
from reranker.data.draws import IntArray
from reranker.eval import metrics as eval_metrics
from reranker.reports import data as data_report
from reranker.reports.data.funnel import Step, funnel
from reranker.reports.data.summary import DataSummary, metrics, summarise
from reranker.sampling import Pairs
from tests.conftest import GENRES
from tests.helpers.paired import AUDIT, MAX_WORDS, WordCounter, drawn, words


@pytest.fixture
def pairs(tables: Tables, contexts: Contexts, cache: Cache) -> Pairs:
    return drawn(tables, contexts, cache)


@pytest.fixture
def summary(tables: Tables, pairs: Pairs) -> DataSummary:
    return summarise(tables, pairs, AUDIT, encoder=WordCounter())


def test_the_funnel_counts_dropped_rows_by_reason() -> None:
    books = {"books_in": 10, "books": 8}
    ratings = {"ratings_in": 100, "ratings": 70}
    ratings |= {"ratings_dropped_unknown_book": 5, "ratings_dropped_same_work": 3}
    users = {"users_in": 9, "users_dropped_few_ratings": 2, "users": 7}
    splits = {"users_train": 4, "users_dev": 1, "users_test": 2}
    tables = books | ratings | users | splits
    pairs = {
        "users_in": 4,
        "users_dropped_by_max_users": 1,
        "users": 3,
        "positives": 6,
        "negatives": 18,
        "pairs": 24,
    }
    assert funnel(tables, pairs) == [
        Step("tables", "books", 10, 8, {"other editions of a kept book": 2}),
        Step(
            "tables",
            "ratings",
            100,
            70,
            {"unknown book": 5, "same work": 3, "rated by dropped users": 22},
        ),
        Step("tables", "users", 9, 7, {"few ratings": 2}),
        Step("train users", "users", 7, 4, {"dev": 1, "test": 2}),
        Step("pairs", "users", 4, 3, {"over max users": 1}),
    ]


def test_the_summary_equals_that_of_the_pairs_file(
    summary: DataSummary, tables: Tables, pairs: Pairs
) -> None:
    """Oracle: the flat file in plain pandas."""
    frame = pd.read_parquet(pairs.path).astype({"user_id": str, "user_ctx": str, "book_text": str})
    users = frame.groupby("user_id")["label"]
    assert summary.n == {
        "pairs": len(frame),
        "positives": (frame["label"] == 1).sum(),
        "negatives": (frame["label"] == 0).sum(),
        "users": frame["user_id"].nunique(),
        "books": frame["book_id"].nunique(),
        "contexts": frame["user_id"].nunique(),
        "duplicate_pairs": 0,
        "catalogue_books": 40,
    }
    assert summary.per_user["positives"].mean == pytest.approx(users.sum().mean())
    assert summary.per_user["negatives"].stats()["max"] == (users.size() - users.sum()).max()
    both = frame["user_ctx"].str.len() + frame["book_text"].str.len()
    assert summary.chars["pair"].stats()["p95"] == pytest.approx(np.percentile(both, 95))
    tokens = frame["user_ctx"].str.split().str.len() + frame["book_text"].str.split().str.len()
    assert summary.tokens["pair"].mean == pytest.approx(tokens.mean())
    assert summary.truncation.pair_fraction == pytest.approx((tokens > MAX_WORDS).mean())
    assert 0 < summary.truncation.pair_fraction < 1  # otherwise the line above tests nothing


def test_popularity_excludes_the_users_own_rating(tables: Tables, pairs: Pairs) -> None:
    """Oracle: for every pair, the other users with a known rating of its book."""
    codes = pairs.codes.copy()
    rated = tables.histories.groupby("user")["book"].first()
    # Some negatives are books that the user rated, as disliked books are.
    codes.loc[1::4, "book"] = rated[codes.loc[1::4, "user"]].to_numpy()
    raters = tables.known().groupby("book")["user"].agg(set).to_dict()
    expected = [
        len(raters.get(b, set()) - {u}) for u, b in zip(codes["user"], codes["book"], strict=True)
    ]
    assert data_report.summary.popularity_by_others(tables, codes).tolist() == expected


def test_the_auc_of_popularity_equals_that_of_evaluation(
    summary: DataSummary, tables: Tables, pairs: Pairs
) -> None:
    popularity = data_report.summary.popularity_by_others(tables, pairs.codes)
    positive, uniform = summary.sources
    assert positive.popularity.mean == pytest.approx(popularity[pairs.codes["label"] == 1].mean())
    assert uniform.popularity.mean == pytest.approx(popularity[pairs.codes["label"] == 0].mean())
    assert uniform.popularity_auc == pytest.approx(
        eval_metrics.auc(pairs.codes["label"], popularity)
    )


def test_negatives_are_counted_by_source(tables: Tables, pairs: Pairs) -> None:
    codes = pairs.codes
    names = np.where(
        codes["label"] == 1,
        "positive",
        np.where(np.arange(len(codes)) % 4 == 1, "popularity", "uniform"),
    )
    marked = dataclasses.replace(pairs, codes=codes.assign(source=pd.Categorical(names)))
    sources = summarise(tables, marked, AUDIT, encoder=WordCounter()).sources
    n = len(codes) // 4
    assert {s.name: s.n_pairs for s in sources} == {
        "positive": n,
        "popularity": n,
        "uniform": 2 * n,
    }
    assert [s.name for s in sources] == ["positive", "popularity", "uniform"]


def test_duplicate_pairs_are_counted(tables: Tables, pairs: Pairs, tmp_path: Path) -> None:
    # The second row occurs twice, both times among the rows of its context.
    order = np.r_[0:4, 1, 4 : len(pairs.codes)]
    path = tmp_path / "pairs.parquet"
    pq.write_table(pq.read_table(pairs.path).take(pa.array(order)), path)
    twice = dataclasses.replace(
        pairs, codes=pairs.codes.iloc[order].reset_index(drop=True), path=path
    )
    assert summarise(tables, twice, AUDIT, encoder=WordCounter()).n["duplicate_pairs"] == 1


def test_tokens_are_counted_for_all_pairs_of_some_users(
    tables: Tables, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_report.summary, "MAX_MEASURED", 40)
    counted: set[str] = set()

    class Recorder(WordCounter):
        def count_tokens(self, texts: list[str]) -> IntArray:
            counted.update(texts)
            return words(texts)

    found = summarise(tables, pairs, AUDIT, encoder=Recorder()).truncation
    rows = pd.read_parquet(pairs.path).astype({"user_id": str, "user_ctx": str})
    rows = rows[rows["user_ctx"].isin(counted)]
    assert (found.n_pairs, found.n_users) == (len(rows), rows["user_id"].nunique())
    assert 40 - 12 < found.n_pairs <= 40
    monkeypatch.setattr(data_report.summary, "MAX_MEASURED", 1)
    assert summarise(tables, pairs, AUDIT, encoder=WordCounter()).truncation.n_users == 1


def test_books_are_counted_by_the_origin_of_their_text(
    raw: Callable[..., Path], cache: Cache
) -> None:
    cfg = DataConfig(
        name="bookdb", root=str(raw(texts={1: "A given text.", 2: "Another."})), genres=GENRES
    )
    tables = load_tables(cfg, cache)
    pairs = drawn(tables, build_contexts(tables, cfg), cache)
    books = summarise(tables, pairs, AUDIT, encoder=WordCounter()).books
    assert (books["given"], books["rendered"]) == (2 / 40, 38 / 40)
    # Every third book has a description.
    assert (books["description"], books["genres"], books["series"]) == (13 / 40, 1.0, 0.0)


def test_examples_are_complete_groups_of_the_file(summary: DataSummary, pairs: Pairs) -> None:
    frame = pd.read_parquet(pairs.path)
    assert len({e.user_id for e in summary.examples}) == data_report.summary.N_EXAMPLES
    for example in summary.examples:
        group = frame[frame["user_id"].astype(str) == example.user_id].iloc[:4]
        assert set(group["user_ctx"]) == {example.context}
        assert group["book_text"].tolist() == [
            example.positive,
            *(text for _, text in example.negatives),
        ]
        assert [source for source, _ in example.negatives] == ["uniform"] * 3
        assert example.n_more == 0


def test_an_example_with_many_negatives_counts_those_left_out(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = drawn(tables, contexts, cache, neg_ratio=10, max_positives=1)
    for example in summarise(tables, pairs, AUDIT, encoder=WordCounter()).examples:
        assert (len(example.negatives), example.n_more) == (8, 2)


def test_every_number_is_a_finite_metric_with_a_valid_name(
    summary: DataSummary, pairs: Pairs
) -> None:
    found = metrics(summary)
    assert all(math.isfinite(value) for value in found.values())
    assert [key for key in found if not re.fullmatch(r"data/[a-z0-9_/]+", key)] == []
    assert (
        found["data/pairs/positives"]
        == found["data/n_positives"]
        == (pairs.codes["label"] == 1).sum()
    )
    assert found["data/source/positive/pair_fraction"] == 0.25
    assert found["data/audit/pairs_checked"] == 12
    assert found["data/truncation/pair_fraction"] == summary.truncation.pair_fraction
    assert found["data/tokens/pair/p95"] == summary.tokens["pair"].stats()["p95"]
