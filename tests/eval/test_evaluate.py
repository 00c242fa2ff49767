"""Evaluation of oracle, constant and worst scorers; the lift is over the best baseline."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from reranker.cache import Cache
from reranker.config import CHOICES, EvalConfig
from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray
from reranker.eval import CandidateLists, build_lists, mean_ndcg_10
from reranker.eval.scoring import dev_metrics
from reranker.model import activations
from tests.helpers.eval_sets import eval_set, evaluated

CFG = EvalConfig(
    list_kinds=["uniform", "popularity"], n_candidates=12, max_positives=3, n_bootstrap=200
)


@pytest.fixture
def lists(tables: Tables, cache: Cache) -> CandidateLists:
    return build_lists(tables, CFG, "test", cache)


def test_oracle_reversed_and_constant_scorers(tables: Tables, lists: CandidateLists) -> None:
    label = lists.frame["label"].to_numpy(float)
    e = evaluated(tables, lists, {"oracle": label, "reversed": -label, "constant": 0 * label}, CFG)
    s = e.summary.set_index(["scorer", "kind"])
    assert (
        s.loc["oracle"][["map", "ndcg_3", "ndcg_5", "ndcg_10", "mrr_10", "auc", "ap"]] == 1
    ).all(axis=None)
    assert (s.loc["reversed"]["auc"] == 0).all()
    assert (s.loc["constant"]["auc"] == 0.5).all()
    assert (s.loc["constant"]["tie_fraction"] == 1).all()
    assert e.lift.empty


def test_per_user_values_are_scikit_learns(tables: Tables, lists: CandidateLists) -> None:
    scores = np.random.default_rng(0).normal(size=len(lists.frame)).astype(np.float32)
    e = evaluated(tables, lists, {"noise": scores}, CFG)
    value = e.per_user.set_index(["kind", "user_id"])["ndcg_10"]
    frame = lists.frame.assign(
        score=scores, user_id=tables.users["user_id"].to_numpy()[lists.frame["user"]]
    )
    for key, rows in frame.groupby(["kind", "user_id"]):
        assert value[key] == pytest.approx(
            ndcg_score([rows["label"]], [rows["score"]], k=10), abs=1e-12
        )
    mean = e.per_user[e.per_user["kind"] == "uniform"]["ndcg_10"].mean()
    assert e.summary.set_index("kind").loc["uniform", "ndcg_10"] == pytest.approx(mean)
    assert mean_ndcg_10(lists, scores, "uniform") == pytest.approx(mean)


def test_the_curve_at_10_is_ndcg_10(tables: Tables, lists: CandidateLists) -> None:
    scores = np.random.default_rng(0).normal(size=len(lists.frame))
    e = evaluated(tables, lists, {"noise": scores}, CFG)
    at_10 = e.curve[e.curve["k"] == 10].set_index("kind")["ndcg"]
    assert at_10.to_dict() == pytest.approx(e.summary.set_index("kind")["ndcg_10"].to_dict())


def test_the_lift_is_over_the_best_of_the_others_and_paired(
    tables: Tables, lists: CandidateLists
) -> None:
    label = lists.frame["label"].to_numpy(float)
    rng = np.random.default_rng(0)
    noise = rng.normal(size=len(label))
    scores = {"random": noise, "popularity": noise + label, "fine_tuned": noise + 3 * label}
    e = evaluated(tables, lists, scores, CFG)
    uniform = e.lift[e.lift["kind"] == "uniform"].set_index("over")
    assert uniform["is_best"].to_dict() == {"random": False, "popularity": True}
    users = e.per_user[e.per_user["kind"] == "uniform"].pivot(
        index="user_id", columns="scorer", values="ndcg_10"
    )
    assert uniform.loc["popularity", "lift"] == pytest.approx(
        (users["fine_tuned"] - users["popularity"]).mean()
    )
    assert (
        0
        < uniform.loc["popularity", "low"]
        < uniform.loc["popularity", "lift"]
        < uniform.loc["popularity", "high"]
    )


def test_one_user_has_means_and_a_lift_without_intervals(
    tables: Tables, lists: CandidateLists
) -> None:
    one = dataclasses.replace(
        lists, frame=lists.frame[lists.frame["user"] == lists.frame["user"].iloc[0]]
    )
    label = one.frame["label"].to_numpy(float)
    e = evaluated(tables, one, {"random": -label, "fine_tuned": label}, CFG)
    assert e.summary["n_users"].tolist() == [1] * 4
    assert e.summary.loc[e.summary["scorer"] == "fine_tuned", "ndcg_10"].tolist() == [1, 1]
    assert e.summary[["ndcg_10_low", "ndcg_10_high"]].isna().all(axis=None)
    assert (e.lift["lift"] > 0.3).all()
    assert e.lift[["low", "high"]].isna().all(axis=None)


def test_lists_are_scored_by_context_and_book_text(
    tables: Tables, contexts: Contexts, lists: CandidateLists
) -> None:
    scored: list[tuple[str, str]] = []

    def scorer(queries: list[str], candidates: list[str]) -> np.ndarray:
        scored.extend(zip(queries, candidates, strict=True))
        return np.arange(len(queries), dtype=np.float32)

    scores = eval_set(tables, lists, CFG, contexts=contexts).score(scorer)
    user, book = lists.frame.iloc[17][["user", "book"]]
    assert scored[17] == (contexts.text[user], tables.books["book_text"][book])
    assert scores.tolist() == list(range(len(lists.frame)))


def test_the_evaluator_scores_only_the_headline_kind(
    tables: Tables, contexts: Contexts, lists: CandidateLists
) -> None:
    uniform = lists.frame["kind"] == "uniform"
    scored: list[int] = []

    def scorer(queries: list[str], candidates: list[str]) -> np.ndarray:
        scored.append(len(queries))
        return lists.frame["label"].to_numpy(np.float32)[uniform]

    found = eval_set(tables, lists, CFG, contexts=contexts).evaluator(scorer)()
    share = 1 - float(lists.frame["label"][uniform].mean())
    assert found == pytest.approx(
        {"ndcg_10": 1, "map": 1, "auc": 1, "accuracy": 1, "majority_share": share}
    )
    assert scored == [uniform.sum()]


@pytest.mark.parametrize("activation", CHOICES["model.activation"])
def test_dev_metrics_agree_with_scikit_learn_and_accuracy_with_the_sign_of_the_logit(
    lists: CandidateLists, activation: str
) -> None:
    rows = lists.frame[lists.frame["kind"] == "uniform"]
    logits = np.random.default_rng(0).normal(size=len(rows))
    scores = activations.apply(activation, logits)
    found = dev_metrics(rows, scores, threshold=activations.threshold(activation))
    label = rows["label"].to_numpy()
    assert found["auc"] == pytest.approx(roc_auc_score(label, scores))
    assert found["accuracy"] == pytest.approx(((logits > 0) == label).mean())
    assert found["majority_share"] == pytest.approx(max(label.mean(), 1 - label.mean()))
    if activation in ("identity", "sigmoid", "tanh"):
        frame = rows.assign(logit=logits)
        aps = [average_precision_score(u["label"], u["logit"]) for _, u in frame.groupby("user")]
        assert found["map"] == pytest.approx(np.mean(aps))
    assert found["ndcg_10"] == pytest.approx(
        mean_ndcg_10(dataclasses.replace(lists, frame=rows), scores, "uniform")
    )


def test_renaming_users_changes_no_value(tables: Tables, lists: CandidateLists) -> None:
    scores = np.random.default_rng(0).normal(size=len(lists.frame))
    mapping = np.random.default_rng(1).permutation(len(tables.users)).astype(np.int32)
    frame = lists.frame.assign(user=mapping[lists.frame["user"]], score=scores).sample(
        frac=1, random_state=0
    )
    renamed = CandidateLists(
        frame.drop(columns="score").reset_index(drop=True), "other", "test", False, {}
    )
    columns = ["kind", "map", "ndcg_3", "ndcg_10", "mrr_10", "auc"]
    a = evaluated(tables, lists, {"x": scores}, CFG).summary[columns]
    b = evaluated(tables, renamed, {"x": frame["score"].to_numpy()}, CFG).summary[columns]
    pd.testing.assert_frame_equal(a, b, rtol=1e-12)


def test_models_are_lifted_over_baselines_and_never_over_each_other(
    tables: Tables, lists: CandidateLists
) -> None:
    label = lists.frame["label"].to_numpy(float)
    noise = np.random.default_rng(0).normal(size=len(label))
    scores = {
        "fused": label,
        "random": noise,
        "untrained": noise + label,
        "fine_tuned": noise + 3 * label,
    }
    e = evaluated(tables, lists, scores, CFG)
    found = e.lift.groupby(["kind", "model"])["over"].apply(list).to_dict()
    assert found == {
        (k, m): ["random", "untrained"] for k in CFG.list_kinds for m in ("fine_tuned", "fused")
    }
    assert set(e.lift[e.lift["is_best"]]["over"]) == {"untrained"}
    assert e.lift.groupby("kind")["is_best"].sum().tolist() == [2, 2]
    assert set(e.slices["scorer"]) == {"fine_tuned", "untrained"}
    assert set(e.bands["scorer"]) == {"fine_tuned", "fused", "untrained"}


def test_a_scorer_is_left_out_of_the_kinds_that_it_does_not_score(
    tables: Tables, lists: CandidateLists
) -> None:
    scores = np.where(lists.frame["kind"] == "uniform", np.arange(len(lists.frame)), np.nan)
    e = evaluated(
        tables, lists, {"fine_tuned": np.arange(len(lists.frame)), "retriever": scores}, CFG
    )
    for frame in (e.per_user, e.summary, e.curve, e.score_distribution):
        assert set(frame[frame["scorer"] == "retriever"]["kind"]) == {"uniform"}
    assert e.lift["kind"].tolist() == ["uniform"]
    with pytest.raises(ValueError, match=r"scores are NaN"):
        evaluated(tables, lists, {"fine_tuned": scores}, CFG)
    scores[np.flatnonzero(lists.frame["kind"] == "uniform")[0]] = np.nan
    with pytest.raises(ValueError, match=r"1 of \d+ scores are NaN"):
        evaluated(tables, lists, {"fine_tuned": np.arange(len(scores)), "retriever": scores}, CFG)


def test_bands_hold_the_curve_and_its_interval_at_10(tables: Tables, lists: CandidateLists) -> None:
    e = evaluated(
        tables, lists, {"fine_tuned": np.random.default_rng(0).normal(size=len(lists.frame))}, CFG
    )
    joined = e.curve.merge(e.bands, on=["scorer", "kind", "k"])
    assert len(joined) == 2 * 20
    assert (joined["low"] <= joined["ndcg"]).all() & (joined["ndcg"] <= joined["high"]).all()
    at_10 = joined[joined["k"] == 10].set_index("kind")["low"]
    assert at_10.to_dict() == e.summary.set_index("kind")["ndcg_10_low"].to_dict()


def test_chance_is_the_value_of_a_constant_scorer(tables: Tables, lists: CandidateLists) -> None:
    e = evaluated(tables, lists, {"constant": np.zeros(len(lists.frame))}, CFG)
    columns = ["kind", "ndcg_10", "map"]
    pd.testing.assert_frame_equal(e.chance[columns], e.summary[columns])


def test_lists_without_any_positive_have_no_value_and_no_slice(
    tables: Tables, lists: CandidateLists
) -> None:
    label = lists.frame["label"].where(lists.frame["kind"] == "uniform", 0)
    e = evaluated(
        tables,
        dataclasses.replace(lists, frame=lists.frame.assign(label=label)),
        {"random": -np.arange(len(label)), "fine_tuned": np.arange(len(label))},
        CFG,
    )
    s = e.summary.set_index(["kind", "scorer"])
    assert s.loc["popularity"]["ndcg_10"].isna().all()
    assert (s.loc["popularity"]["n_without_positives"] == s.loc["popularity"]["n_users"]).all()
    assert set(e.slices["kind"]) == {"uniform"}
    assert e.lift.set_index("kind").loc["popularity", ["lift", "low", "high"]].isna().all()


def test_an_untrained_model_scores_lists_once(
    tables: Tables, contexts: Contexts, lists: CandidateLists, cache: Cache
) -> None:
    scored = []

    def scorer(queries: Sequence[str], candidates: Sequence[str]) -> FloatArray:
        scored.append(len(queries))
        return np.array([len(text) for text in candidates], dtype=np.float32)

    lists_to_score = eval_set(tables, lists, CFG, contexts=contexts)
    exact = lists_to_score.score(scorer)
    for model in ("a", "a", "b"):
        scores = lists_to_score.score_once(scorer, {"model": model}, cache)
        np.testing.assert_array_equal(scores, exact)
    assert len(scored) == 3  # without the cache, for "a", for "b"
