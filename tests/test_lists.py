"""Frozen lists depend on ids and seeds alone, hold what they promise, and say when they cannot."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EvalConfig
from reranker.data import Tables, load
from reranker.errors import DataError
from reranker.eval import Lists, build_lists, hash_kind

CFG = EvalConfig(kinds=["uniform", "popularity"], n_candidates=12, max_positives=3)


def build(tables: Tables, cache: Cache, fold: str = "test", **changes: object) -> Lists:
    return build_lists(tables, dataclasses.replace(CFG, **changes), fold, cache)


def test_each_list_holds_the_users_positives_and_unrated_books(tables: Tables, cache: Cache) -> None:
    frame = build(tables, cache).frame
    assert (frame.groupby(["kind", "user"]).size() == 12).all()
    assert not frame.duplicated(["kind", "user", "book"]).any()
    positives = tables.positives("test")
    n = np.minimum(positives.groupby("user").size(), 3)
    for kind in CFG.kinds:
        rows = frame[frame["kind"] == kind]
        assert rows.groupby("user")["label"].sum().to_dict() == n.to_dict()
        assert len(rows[rows["label"] == 1].merge(positives, on=["user", "book"])) == n.sum()
        assert rows[rows["label"] == 0].merge(tables.histories, on=["user", "book"]).empty


def test_both_kinds_share_their_positives(tables: Tables, cache: Cache) -> None:
    frame = build(tables, cache).frame
    positives = frame[frame["label"] == 1].groupby("kind")[["user", "book"]].apply(lambda f: f.to_numpy().tolist())
    assert positives["uniform"] == positives["popularity"]


def test_uniform_lists_do_not_change_with_a_kind_beside_them(tables: Tables, cache: Cache) -> None:
    both, alone = build(tables, cache).frame, build(tables, cache, kinds=["uniform"]).frame
    assert alone.equals(both[both["kind"] == "uniform"].reset_index(drop=True))


def test_popularity_lists_prefer_books_that_many_rated_and_never_an_unrated_one(
    raw: Callable[..., Path], cache: Cache
) -> None:
    rng = np.random.default_rng(0)
    weight = np.where(np.arange(100) < 60, 1 / (1 + np.arange(100)), 0)
    ratings = [
        (f"u{u}", int(b) + 1, 5) for u in range(300) for b in rng.choice(100, 6, replace=False, p=weight / weight.sum())
    ]
    tables = load(DataConfig(name="bookdb", root=str(raw(ratings, n_books=100))), cache)
    frame = build(tables, cache, max_users=None).frame
    count = np.bincount(tables.known()["book"], minlength=100)
    negatives = frame[frame["label"] == 0]
    mean = count[negatives["book"]]
    by_kind = pd.Series(mean).groupby(negatives["kind"].to_numpy()).mean()
    assert by_kind["popularity"] > 1.5 * by_kind["uniform"]
    assert mean[(negatives["kind"] == "popularity").to_numpy()].min() >= 1
    assert mean.min() == 0


def test_the_hash_follows_the_content(tables: Tables, cache: Cache, tmp_path: Path) -> None:
    first = build(tables, cache)
    assert build(tables, Cache(tmp_path / "other")).hash == first.hash
    assert build(tables, cache).hit
    others = [build(tables, cache, **change).hash for change in ({"seed": 1}, {"n_candidates": 11}, {"fold": "dev"})]
    assert len({first.hash, *others}) == 4


def test_the_hash_of_a_kind_follows_its_rows_alone(tables: Tables, cache: Cache) -> None:
    both, swapped = (build(tables, cache, kinds=kinds) for kinds in (CFG.kinds, CFG.kinds[::-1]))
    alone = build(tables, cache, kinds=["uniform"])
    assert both.hash == swapped.hash  # though their headlines, the first of kinds, are of other rows
    assert hash_kind(both, tables, "uniform") == hash_kind(alone, tables, "uniform")
    assert hash_kind(both, tables, "uniform") != hash_kind(swapped, tables, "popularity")
    assert hash_kind(alone, tables, "uniform") == alone.hash


def test_more_candidates_hold_the_fewer(tables: Tables, cache: Cache) -> None:
    small, large = (build(tables, cache, n_candidates=n).frame for n in (10, 15))
    assert len(small.merge(large)) == len(small)


def test_max_users_is_a_hash_sample_of_its_fold_alone(tables: Tables, cache: Cache) -> None:
    few, all_ = build(tables, cache, max_users=3), build(tables, cache)
    assert few.frame["user"].nunique() == 3
    assert len(few.frame.merge(all_.frame)) == len(few.frame)
    assert few.counts["users_dropped_by_limit"] == all_.counts["users"] - 3
    assert build(tables, cache, max_users=3, fold="dev").counts["users"] > 0


def test_users_without_a_positive_target_get_no_list_and_are_counted(raw: Callable[..., Path], cache: Cache) -> None:
    ratings = [(f"u{u}", 1 + (u + i) % 40, 2 if u % 2 else 5) for u in range(100) for i in range(6)]
    tables = load(DataConfig(name="bookdb", root=str(raw(ratings))), cache)
    lists = build(tables, cache)
    assert lists.counts["users_in"] == lists.counts["users"] + lists.counts["users_without_positives"]
    assert lists.counts["users_without_positives"] > 0


def test_nothing_to_rank_is_an_error(raw: Callable[..., Path], cache: Cache) -> None:
    ratings = [(f"u{u}", 1 + (u + i) % 40, 2) for u in range(60) for i in range(6)]
    tables = load(DataConfig(name="bookdb", root=str(raw(ratings))), cache)
    with pytest.raises(DataError, match=r"none of \d+ test users has a target book rated 4"):
        build(tables, cache)


def test_more_candidates_than_unrated_books_is_an_error(tables: Tables, cache: Cache) -> None:
    with pytest.raises(DataError, match=r"eval.n_candidates=40: user_id=user\d+ has only 30 unrated books"):
        build(tables, cache, n_candidates=40)
