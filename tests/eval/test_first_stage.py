"""Recall, ceiling and depth curve against lists that are sorted one user at a time."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.eval import CandidateLists, build_lists
from reranker.eval.first_stage import depth_curve, summarise_first_stage
from tests.helpers.eval_sets import evaluated

N = 12


@pytest.fixture
def lists(tables: Tables, cache: Cache) -> CandidateLists:
    cfg = EvalConfig(list_kinds=["retriever", "uniform"], n_candidates=N, max_positives=2)
    lists = build_lists(tables, cfg, "test", cache)
    first = lists.frame["user"] == lists.frame["user"].iloc[0]
    frame = lists.frame.assign(
        label=lists.frame["label"].where(~first, 0)
    )  # a user none of whose positives is found
    return dataclasses.replace(lists, frame=frame)


def gain(labels: list[int]) -> float:
    return sum(label / math.log2(2 + i) for i, label in enumerate(labels[:10]))


def wanted(tables: Tables) -> dict[int, int]:
    return {int(str(u)): len(rows) for u, rows in tables.positives("test").groupby("user")}


def test_recall_and_ceiling_count_what_the_lists_miss(
    tables: Tables, lists: CandidateLists
) -> None:
    rows = lists.frame[lists.frame["kind"] == "retriever"]
    targets = wanted(tables)
    found = {int(str(user)): int(mine["label"].sum()) for user, mine in rows.groupby("user")}
    ceiling = [gain([1] * n) / gain([1] * targets[user]) for user, n in found.items()]
    assert summarise_first_stage(tables, lists) == pytest.approx(
        {
            "n_users": len(targets),
            "hit_fraction": sum(n > 0 for n in found.values()) / len(targets),
            "recall_12": np.mean([n / targets[user] for user, n in found.items()]),
            "ceiling_ndcg_10": np.mean(ceiling),
        }
    )
    assert min(found.values()) == 0 < max(found.values())


def test_the_depth_curve_is_what_sorting_each_users_list_gives(
    tables: Tables, lists: CandidateLists
) -> None:
    rng = np.random.default_rng(0)
    noise = rng.permutation(len(lists.frame)).astype(float)
    curve = depth_curve(tables, lists, {"noise": noise}, depths=(4, 11, 12, 50)).set_index("depth")
    assert curve.index.tolist() == [4, 11, 12]  # lists of 12 have no first 50
    targets = wanted(tables)
    rows = lists.frame.assign(score=noise)[lists.frame["kind"] == "retriever"]
    for depth, means in curve.iterrows():
        values = []
        for user, mine in rows.groupby("user"):
            first = mine.sort_values("retrieval_score", ascending=False, kind="stable")
            head = first.iloc[:depth].sort_values("score", ascending=False)
            order = pd.concat([head, first.iloc[depth:]])["label"].tolist()
            n = targets[int(str(user))]
            own = gain(order) / gain(sorted(order, reverse=True)) if any(order) else math.nan
            values.append((gain(order) / gain([1] * n), sum(order[:10]) / n, own))
        expected = np.array(values)
        assert means["ndcg_10"] == pytest.approx(expected[:, 0].mean())
        assert means["recall_10"] == pytest.approx(expected[:, 1].mean())
        assert means["ndcg_10_retrieved"] == pytest.approx(np.nanmean(expected[:, 2]))


def test_at_full_depth_an_oracle_reaches_the_ceiling_and_a_constant_its_tie_value(
    tables: Tables, lists: CandidateLists
) -> None:
    label = lists.frame["label"].to_numpy(float)
    scores = {"oracle": label, "constant": 0 * label}
    curve = depth_curve(tables, lists, scores, depths=(N,)).set_index("scorer")
    ceiling = summarise_first_stage(tables, lists)["ceiling_ndcg_10"]
    assert curve.loc["oracle", ["ndcg_10", "ndcg_10_retrieved"]].tolist() == pytest.approx(
        [ceiling, 1.0]
    )
    summary = evaluated(
        tables, lists, scores, EvalConfig(list_kinds=["retriever"], n_bootstrap=100)
    ).summary
    table = summary[summary["kind"] == "retriever"].set_index("scorer")["ndcg_10"]
    assert curve["ndcg_10_retrieved"].to_dict() == pytest.approx(table.to_dict())
    recall = summarise_first_stage(tables, lists)["recall_12"]
    assert curve.loc["constant", "recall_10"] == pytest.approx(recall * 10 / 12)


def test_the_first_stages_own_order_is_the_same_at_every_depth(
    tables: Tables, lists: CandidateLists
) -> None:
    own = (
        lists.frame["retrieval_score"].fillna(0).to_numpy() - np.arange(len(lists.frame)) * 1e-5
    )  # no ties
    curve = depth_curve(tables, lists, {"own": own}, depths=(1, 5, 12))
    assert curve["ndcg_10"].nunique() == 1
