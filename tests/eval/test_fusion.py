"""Fusion: standardised within lists, weighted by dev lists, each kind by itself."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.eval import (
    CandidateLists,
    build_lists,
    fusion,
    mean_ndcg_10,
)

FOUR = CandidateLists(
    pd.DataFrame(
        {"kind": "uniform", "user": [0, 0, 1, 1], "book": [0, 1, 0, 1], "label": [1, 0, 1, 0]}
    ),
    digest="",
    split="dev",
    hit=False,
    counts={},
)


@pytest.fixture
def dev(tables: Tables, cache: Cache) -> CandidateLists:
    return build_lists(
        tables, EvalConfig(list_kinds=["uniform", "popularity"], n_candidates=12), "dev", cache
    )


@pytest.fixture
def noise(dev: CandidateLists) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(2, len(dev.frame)))


def test_scores_are_standardised_within_each_list() -> None:
    assert fusion.standardise(FOUR, np.array([3.0, 1.0, 100.0, 300.0])).tolist() == [1, -1, -1, 1]
    assert fusion.standardise(FOUR, np.array([5.0, 5.0, 0.0, 2.0])).tolist() == [0, 0, -1, 1]


@settings(max_examples=20)
@given(st.floats(0.1, 10), st.floats(-5, 5))
def test_neither_unit_nor_origin_of_a_score_matters(unit: float, origin: float) -> None:
    a, b = np.array([3.0, 1.0, 2.0, 7.0]), np.array([0.0, 1.0, 5.0, 4.0])
    assert fusion.fuse(FOUR, unit * a + origin, b, weight=0.3) == pytest.approx(
        fusion.fuse(FOUR, a, b, weight=0.3), abs=1e-9
    )


def test_a_fusion_is_the_weighted_sum() -> None:
    fused = fusion.fuse(
        FOUR, np.array([3.0, 1.0, 1.0, 3.0]), np.array([0.0, 8.0, 0.0, 8.0]), weight=0.75
    )
    assert fused.tolist() == [0.5, -0.5, -1, 1]


def test_a_perfect_scorer_gets_all_the_weight(dev: CandidateLists, noise: np.ndarray) -> None:
    label = dev.frame["label"].to_numpy(float)
    assert fusion.choose_weight(dev, label, -label, kind="uniform") == 1.0
    assert fusion.choose_weight(dev, -label, label, kind="uniform") < 0.5
    assert (
        fusion.choose_weight(dev, noise[0], np.zeros(len(label)), kind="uniform") == 1.0
    )  # nothing is added by it


def test_the_weight_is_the_best_of_the_grid_on_its_kind(
    dev: CandidateLists, noise: np.ndarray
) -> None:
    model, other = dev.frame["label"].to_numpy() + noise
    for kind in ("uniform", "popularity"):
        weight = fusion.choose_weight(dev, model, other, kind=kind)
        value = [
            mean_ndcg_10(dev, fusion.fuse(dev, model, other, weight=i / 20), kind)
            for i in range(21)
        ]
        assert mean_ndcg_10(dev, fusion.fuse(dev, model, other, weight=weight), kind) == max(value)
        assert 0 < weight < 1


def test_each_kind_has_its_own_partner_and_weight(dev: CandidateLists, noise: np.ndarray) -> None:
    label, uniform = dev.frame["label"].to_numpy(float), (dev.frame["kind"] == "uniform").to_numpy()
    scores = {
        "popularity": np.where(uniform, label, -label),
        "bm25": np.where(uniform, -label, label),
        "fine_tuned": noise[0],
    }
    fusions = fusion.choose_fusions(dev, scores)
    assert dict(zip(fusions["kind"], fusions["other"], strict=True)) == {
        "uniform": "popularity",
        "popularity": "bm25",
    }
    fused = fusion.fuse_lists(dev, scores, fusions)
    assert (
        fusions["dev_ndcg_10"].tolist()
        == [mean_ndcg_10(dev, fused, kind) for kind in fusions["kind"]]
        == [1, 1]
    )
    assert fusions["weight"].max() < 0.9
