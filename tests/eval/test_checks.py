"""Context checks separate popular from personal scores; broken scores are named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EvalConfig
from reranker.data import load
from reranker.data.draws import FloatArray
from reranker.eval import CandidateLists, EvalSet, check_contexts, evaluate
from reranker.eval.checks import calibrate, describe_scores, find_score_problems
from tests.conftest import GENRES
from tests.helpers.eval_sets import FakeModel, evaluated, with_contexts

CFG = EvalConfig(
    list_kinds=["uniform", "popularity"], n_candidates=20, max_positives=3, n_bootstrap=200
)
Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]


def skewed_ratings(n_users: int = 300, n_books: int = 300) -> list[tuple[str, int, int]]:
    """Return ten liked books per user, where book b is drawn in proportion to 1 / sqrt(b)."""
    rng = np.random.default_rng(0)
    chance = 1 / np.sqrt(np.arange(1, n_books + 1))
    drawn = (
        rng.choice(n_books, 10, replace=False, p=chance / chance.sum()) for _ in range(n_users)
    )
    return [(f"user{u}", 1 + int(book), 5) for u, books in enumerate(drawn) for book in books]


@pytest.fixture
def test_set(raw: Callable[..., Path], cache: Cache) -> EvalSet:
    cfg = DataConfig(name="bookdb", root=str(raw(skewed_ratings(), n_books=300)), genres=GENRES)
    return EvalSet.from_lists(load(cfg, cache), CFG, cache, split="test")


def popularity_scorer(q: EvalSet) -> Scorer:
    """A score that looks at the book alone."""
    n_known = np.bincount(q.tables.known()["book"], minlength=len(q.tables.books)).astype(float)
    score = dict(zip(q.tables.books["book_text"], n_known, strict=True))
    return lambda queries, candidates: np.array([score[text] for text in candidates])


def oracle_scorer(q: EvalSet) -> Scorer:
    """A score of 1 for the positives of whoever the context belongs to, else 0."""
    positive = q.rows[q.rows["label"] > 0]
    texts = q.tables.books["book_text"].to_numpy()[positive["book"]]
    known = {
        (q.contexts.text[user], text) for user, text in zip(positive["user"], texts, strict=True)
    }
    return lambda queries, candidates: np.array(
        [float(pair in known) for pair in zip(queries, candidates, strict=True)]
    )


def test_a_popularity_only_scorer_is_exposed(test_set: EvalSet) -> None:
    scorer = popularity_scorer(test_set)
    scores = test_set.score(scorer)
    test_set.scores["fine_tuned"] = scores
    e = evaluate(test_set, FakeModel(scorer))
    value, chance = e.summary.set_index("kind"), e.chance.set_index("kind")["ndcg_10"]
    assert value.loc["uniform", "ndcg_10_low"] > chance["uniform"] + 0.1
    assert (
        value.loc["popularity", "ndcg_10_low"]
        < chance["popularity"]
        < value.loc["popularity", "ndcg_10_high"]
    )
    assert e.checks["check"].tolist() == ["blank_context", "shuffled_contexts"]
    assert (e.checks[["gap", "low", "high"]] == 0).all(axis=None)


def test_a_personalised_scorer_loses_with_the_context_of_another_user(
    test_set: EvalSet,
) -> None:
    scorer = oracle_scorer(test_set)
    checks = check_contexts(scorer, test_set, test_set.score(scorer)).set_index("check")
    assert (checks["own_value"] == 1).all()
    assert (checks["low"] > 0.4).all()
    assert checks["gap"].to_numpy() == pytest.approx(1 - checks["value"].to_numpy())
    constant = evaluated(
        test_set.tables, test_set.lists, {"constant": np.zeros(len(test_set.rows))}, CFG
    )
    [chance] = constant.chance.loc[constant.chance["kind"] == "uniform", "ndcg_10"]
    assert checks.loc["blank_context", "value"] == pytest.approx(
        chance
    )  # every list has 3 positives of 20


def test_every_user_gets_the_context_of_another_and_the_number_of_users_is_capped(
    test_set: EvalSet,
) -> None:
    contexts = dataclasses.replace(test_set.contexts, text=[f"user {u}" for u in range(300)])
    cfg = dataclasses.replace(CFG, max_check_users=7)
    q = dataclasses.replace(with_contexts(test_set, contexts), cfg=cfg)
    scored: list[tuple[str, str]] = []

    def scorer(queries: Sequence[str], candidates: Sequence[str]) -> FloatArray:
        scored.extend(zip(queries, candidates, strict=True))
        return np.arange(len(queries), dtype=float)

    check_contexts(scorer, q, np.zeros(len(q.rows)))
    shuffled = [query for query, _ in scored if query]
    assert len(shuffled) == 7 * CFG.n_candidates
    assert len(set(shuffled)) == 7
    uniform = q.rows[q.rows["kind"] == "uniform"]
    texts = q.tables.books["book_text"].to_numpy()
    lists = {u: set(texts[rows["book"]]) for u, rows in uniform.groupby("user")}
    for query in set(shuffled):
        offered = {text for query_of, text in scored if query_of == query}
        [user] = [u for u, books in lists.items() if books == offered]
        assert query != f"user {user}"


def test_one_user_has_no_other_context_but_a_blank_one(test_set: EvalSet) -> None:
    first = test_set.rows["user"].iloc[0]
    frame = test_set.rows[test_set.rows["user"] == first].reset_index(drop=True)
    q = dataclasses.replace(test_set, lists=CandidateLists(frame, "hash", "test", False, {}))
    scorer = popularity_scorer(q)
    checks = check_contexts(scorer, q, q.score(scorer))
    assert checks["check"].tolist() == ["blank_context"]
    without = dataclasses.replace(
        q, lists=CandidateLists(frame.assign(label=0), "hash", "test", False, {})
    )
    assert check_contexts(scorer, without, q.score(scorer)).empty


def test_scores_that_are_collapsed_or_saturated_are_named() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=1000)
    assert find_score_problems(before, before) == []
    assert find_score_problems(0.02 * before, before) == []
    [shrunk] = find_score_problems(0.005 * before, before)
    assert shrunk.startswith("collapse: the scores have 0.50% of the spread that they had before")
    assert [w.split(":")[0] for w in find_score_problems(np.ones(1000))] == [
        "collapse",
        "saturation",
    ]
    half = np.where(np.arange(1000) < 500, 1.0, before)
    assert find_score_problems(half, before) == []
    [tied] = find_score_problems(np.where(np.arange(1000) < 501, 1.0, before), before)
    assert tied == "saturation: 50% of the scores are equal to another one"


def test_a_warning_names_the_list_kind(test_set: EvalSet) -> None:
    scores = np.where(test_set.rows["kind"] == "uniform", 1.0, np.arange(len(test_set.rows)))
    warnings = evaluated(test_set.tables, test_set.lists, {"fine_tuned": scores}, CFG).warnings
    assert [w.split(":")[:2] for w in warnings] == [
        ["uniform lists", " collapse"],
        ["uniform lists", " saturation"],
    ]


def test_scores_that_are_equal_as_float32_are_not_unique() -> None:
    [row] = describe_scores({"x": np.array([0.0, 0.0, 1.0, 1.0 + 1e-12])}).to_dict("records")
    assert row.pop("scorer") == "x"
    assert row == pytest.approx(
        {"mean": 0.5, "std": 0.5, "min": 0, "max": 1, "unique_fraction": 0.5}
    )


def test_a_calibrated_score_lies_on_the_diagonal() -> None:
    rng = np.random.default_rng(0)
    chance = rng.uniform(size=50_000)
    label = (rng.uniform(size=len(chance)) < chance).astype(int)
    logit = np.log(chance / (1 - chance))
    curve = calibrate(label, logit, "identity")
    assert curve["bin"].tolist() == list(range(1, 11))
    assert (curve["n_rows"] == 5000).all()
    assert curve["mean_probability"].to_numpy() == pytest.approx(
        (np.arange(10) + 0.5) / 10, abs=0.01
    )
    assert curve["positive_fraction"].to_numpy() == pytest.approx(
        curve["mean_probability"].to_numpy(), abs=0.03
    )
    same = calibrate(label, chance, "sigmoid")
    assert same["mean_probability"].to_numpy() == pytest.approx(
        curve["mean_probability"].to_numpy()
    )
    assert calibrate(label[:3], logit[:3], "identity")["n_rows"].tolist() == [1, 1, 1]
