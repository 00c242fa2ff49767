"""Slices equal arithmetic on a few positives, and the ranking of a filtered list."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import ndcg_score

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Contexts, Tables
from reranker.eval import CandidateLists, build_lists, evaluate
from reranker.eval.slices import describe_positives, evaluate_slices, truncated_rows, user_columns
from tests.helpers.eval_sets import FakeModel, eval_set, evaluated

CFG = EvalConfig(
    list_kinds=["uniform", "popularity"], n_candidates=12, max_positives=3, n_bootstrap=100
)


@pytest.fixture
def lists(tables: Tables, cache: Cache) -> CandidateLists:
    return build_lists(tables, CFG, "test", cache)


def scores_of(lists: CandidateLists) -> np.ndarray:
    return np.random.default_rng(0).normal(size=len(lists.frame))


def uniform_rows(lists: CandidateLists) -> pd.DataFrame:
    return lists.frame[lists.frame["kind"] == "uniform"].reset_index(drop=True)


def test_positives_are_described_by_their_user_and_book(
    tables: Tables, lists: CandidateLists
) -> None:
    rows = uniform_rows(lists)
    found = describe_positives(tables, rows, None)
    h, known = tables.histories, tables.known()
    assert found.index.tolist() == np.flatnonzero(rows["label"] > 0).tolist()
    authors = tables.books["authors"].str.split(", ").map(set)
    for place, row in found.iterrows():
        user, book = rows.loc[place, ["user", "book"]]
        mine = h[(h["user"] == user) & ~h["is_target"]]["book"]
        assert row["n_context_books"] == len(mine)
        assert row["popularity"] == (known["book"] == book).sum()
        assert row["same_author"] == any(authors[book] & authors[other] for other in mine)
    assert 0 < found["same_author"].mean() < 1


def test_books_without_an_author_share_none(tables: Tables, lists: CandidateLists) -> None:
    nameless = dataclasses.replace(tables, books=tables.books.assign(authors=""))
    assert not describe_positives(nameless, uniform_rows(lists), None)["same_author"].any()


def test_a_bin_ranks_its_own_positives_among_all_negatives(
    tables: Tables, lists: CandidateLists
) -> None:
    scores = scores_of(lists)
    e = evaluated(tables, lists, {"fine_tuned": scores}, CFG)
    rows = uniform_rows(lists).assign(score=scores[(lists.frame["kind"] == "uniform").to_numpy()])
    described = describe_positives(tables, rows, None)
    left = rows.drop(index=described.index[described["same_author"]])
    values = [
        ndcg_score([mine["label"]], [mine["score"]], k=10)
        for _, mine in left.groupby("user")
        if mine["label"].any()
    ]
    found = e.slices.set_index(["kind", "slice"]).loc[("uniform", "without_same_author")]
    assert found["n_users"].item() == len(values)
    assert found["ndcg_10"].item() == pytest.approx(np.mean(values))
    assert (found["low"] < found["ndcg_10"]).item() & (found["ndcg_10"] < found["high"]).item()


def described(**columns: list[object]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows of one positive and one negative for each user, and what is said of the positives."""
    n = len(next(iter(columns.values())))
    rows = pd.DataFrame({"user": np.repeat(np.arange(n), 2), "label": np.tile([1, 0], n)})
    base = {"user": np.arange(n), "n_context_books": 1, "popularity": 1, "same_author": False}
    return rows, pd.DataFrame({**base, **columns}, index=np.arange(0, 2 * n, 2))


def sliced(name: str, **columns: list[object]) -> pd.DataFrame:
    rows, positives = described(**columns)
    oracle = rows["label"].to_numpy(float)
    found = evaluate_slices(rows, positives, {"oracle": oracle}, CFG)
    assert (found["ndcg_10"] == 1).all()
    assert found["chance"].to_numpy() == pytest.approx(
        (1 + 1 / np.log2(3)) / 2
    )  # one positive of two, in any order
    return found[found["slice"] == name]


def test_history_lengths_are_binned_by_powers_of_two() -> None:
    found = sliced("history_length", n_context_books=[1, 2, 3, 4, 7, 8, 8, 100])
    assert dict(zip(found["bin"], found["n_users"], strict=True)) == {
        "1": 1,
        "2-3": 2,
        "4-7": 2,
        "8-15": 2,
        "64-127": 1,
    }
    assert found["step"].tolist() == [1, 2, 4, 8, 64]


def test_equal_popularity_is_one_decile() -> None:
    found = sliced("target_popularity", popularity=[*range(8, 18), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])
    assert found["bin"].tolist()[:2] == ["3 (0-0 ratings)", "6 (8-9 ratings)"]
    assert found["step"].tolist() == [3, 6, 7, 8, 9, 10]
    assert found["n_users"].tolist() == [10, 2, 2, 2, 2, 2]


def test_slices_of_two_sides_have_a_bin_where_there_is_a_positive() -> None:
    cold = sliced("cold_books", popularity=[0, 1, 2])
    assert dict(zip(cold["bin"], cold["n_users"], strict=True)) == {"yes": 1, "no": 2}
    assert sliced("same_author", same_author=[False, False]).empty
    assert sliced("truncated", popularity=[1]).empty
    cut = sliced("truncated", truncated=[True, True, False])
    assert dict(zip(cut["bin"], cut["n_users"], strict=True)) == {"yes": 2, "no": 1}


def test_users_carry_what_slices_go_by() -> None:
    positives = pd.DataFrame(
        {
            "user": [0, 0, 2],
            "popularity": [0, 4, 7],
            "same_author": [False, True, False],
            "n_context_books": 1,
        }
    )
    histories = pd.DataFrame({"user": [0, 0, 1, 2], "is_target": [False, False, False, True]})
    tables = dataclasses.make_dataclass("T", ["histories", "users"])(histories, range(3))
    found = user_columns(tables, np.array([0, 1, 2]), positives)
    assert found["n_context_books"].tolist() == [2, 1, 0]
    assert found["mean_target_popularity"] == pytest.approx([2, np.nan, 7], nan_ok=True)
    assert found["has_same_author"].tolist() == [True, False, False]
    assert found["n_cold"].tolist() == [1, 0, 0]


def test_the_encoder_decides_which_rows_are_truncated_and_each_text_is_counted_once(
    tables: Tables, contexts: Contexts, lists: CandidateLists
) -> None:
    counted: list[str] = []

    class Model(FakeModel):
        def count_tokens(self, texts: Sequence[str]) -> np.ndarray:
            counted.extend(texts)
            return super().count_tokens(texts)

    books = tables.books["book_text"].to_numpy()[lists.frame["book"]]
    n_context = np.array([len(contexts.text[u]) for u in lists.frame["user"]])
    n_book = np.array([len(text) for text in books])
    limit = int(np.median(n_context + 3 * n_book))
    model = Model(
        lambda queries, candidates: np.arange(len(queries), dtype=float),
        lambda query, candidate: query + 3 * candidate > limit,
    )
    test = eval_set(tables, lists, CFG, contexts=contexts, scores={"fine_tuned": scores_of(lists)})
    assert truncated_rows(test, model).tolist() == (n_context + 3 * n_book > limit).tolist()
    assert len(counted) == lists.frame["user"].nunique() + lists.frame["book"].nunique()
    e = evaluate(test, model)
    assert set(e.slices[e.slices["slice"] == "truncated"]["bin"]) == {"yes", "no"}
    assert len(e.checks) == 2
