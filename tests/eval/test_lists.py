"""Frozen lists depend on ids and seeds alone, hold what they promise, and say when they cannot."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EvalConfig
from reranker.data import Tables, load_tables
from reranker.errors import DataError
from reranker.eval import CandidateLists, build_lists, digest_of_kind
from tests.helpers.eval_sets import eval_set

CFG = EvalConfig(list_kinds=["uniform", "popularity"], n_candidates=12, max_positives=3)


def build(tables: Tables, cache: Cache, split: str = "test", **changes: object) -> CandidateLists:
    return build_lists(tables, dataclasses.replace(CFG, **changes), split, cache)


def test_each_list_holds_the_users_positives_and_unrated_books(
    tables: Tables, cache: Cache
) -> None:
    frame = build(tables, cache).frame
    assert (frame.groupby(["kind", "user"]).size() == 12).all()
    assert not frame.duplicated(["kind", "user", "book"]).any()
    positives = tables.positives("test")
    n = np.minimum(positives.groupby("user").size(), 3)
    for kind in CFG.list_kinds:
        rows = frame[frame["kind"] == kind]
        assert rows.groupby("user")["label"].sum().to_dict() == n.to_dict()
        assert len(rows[rows["label"] == 1].merge(positives, on=["user", "book"])) == n.sum()
        assert rows[rows["label"] == 0].merge(tables.histories, on=["user", "book"]).empty


def test_both_kinds_share_their_positives(tables: Tables, cache: Cache) -> None:
    frame = build(tables, cache).frame
    positives = (
        frame[frame["label"] == 1]
        .groupby("kind")[["user", "book"]]
        .apply(lambda f: f.to_numpy().tolist())
    )
    assert positives["uniform"] == positives["popularity"]


def test_uniform_lists_do_not_change_with_another_kind(tables: Tables, cache: Cache) -> None:
    both, alone = build(tables, cache).frame, build(tables, cache, list_kinds=["uniform"]).frame
    assert alone.equals(both[both["kind"] == "uniform"].reset_index(drop=True))


def test_popularity_lists_prefer_books_that_many_rated_and_never_an_unrated_one(
    raw: Callable[..., Path], cache: Cache
) -> None:
    rng = np.random.default_rng(0)
    weight = np.where(np.arange(100) < 60, 1 / (1 + np.arange(100)), 0)
    ratings = [
        (f"u{u}", int(b) + 1, 5)
        for u in range(300)
        for b in rng.choice(100, 6, replace=False, p=weight / weight.sum())
    ]
    tables = load_tables(DataConfig(name="bookdb", root=str(raw(ratings, n_books=100))), cache)
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
    assert build(tables, Cache(tmp_path / "other")).digest == first.digest
    assert build(tables, cache).hit
    others = [
        build(tables, cache, **change).digest
        for change in ({"seed": 1}, {"n_candidates": 11}, {"split": "dev"})
    ]
    assert len({first.digest, *others}) == 4


def test_the_digest_of_a_kind_depends_only_on_its_rows(tables: Tables, cache: Cache) -> None:
    both, swapped = (
        build(tables, cache, list_kinds=kinds) for kinds in (CFG.list_kinds, CFG.list_kinds[::-1])
    )
    alone = build(tables, cache, list_kinds=["uniform"])
    assert (
        both.digest == swapped.digest
    )  # though their headlines, the first of kinds, are of other rows
    assert digest_of_kind(both, tables, "uniform") == digest_of_kind(alone, tables, "uniform")
    assert digest_of_kind(both, tables, "uniform") != digest_of_kind(swapped, tables, "popularity")
    assert digest_of_kind(alone, tables, "uniform") == alone.digest


def test_more_candidates_hold_the_fewer(tables: Tables, cache: Cache) -> None:
    small, large = (build(tables, cache, n_candidates=n).frame for n in (10, 15))
    assert len(small.merge(large)) == len(small)


def test_max_users_is_a_hash_sample_of_its_split(tables: Tables, cache: Cache) -> None:
    few, all_ = build(tables, cache, max_users=3), build(tables, cache)
    assert few.frame["user"].nunique() == 3
    assert len(few.frame.merge(all_.frame)) == len(few.frame)
    assert few.counts["users_dropped_by_limit"] == all_.counts["users"] - 3
    assert build(tables, cache, max_users=3, split="dev").counts["users"] > 0


def test_users_without_a_positive_target_get_no_list_and_are_counted(
    raw: Callable[..., Path], cache: Cache
) -> None:
    ratings = [(f"u{u}", 1 + (u + i) % 40, 2 if u % 2 else 5) for u in range(100) for i in range(6)]
    tables = load_tables(DataConfig(name="bookdb", root=str(raw(ratings))), cache)
    lists = build(tables, cache)
    assert (
        lists.counts["users_in"] == lists.counts["users"] + lists.counts["users_without_positives"]
    )
    assert lists.counts["users_without_positives"] > 0


def test_nothing_to_rank_is_an_error(raw: Callable[..., Path], cache: Cache) -> None:
    ratings = [(f"u{u}", 1 + (u + i) % 40, 2) for u in range(60) for i in range(6)]
    tables = load_tables(DataConfig(name="bookdb", root=str(raw(ratings))), cache)
    with pytest.raises(DataError, match=r"none of \d+ test users has a target book rated 4"):
        build(tables, cache)


def test_more_candidates_than_unrated_books_is_an_error(tables: Tables, cache: Cache) -> None:
    with pytest.raises(
        DataError, match=r"eval.n_candidates=40: user_id=user\d+ has only 30 unrated books"
    ):
        build(tables, cache, n_candidates=40)


def cosines(tables: Tables) -> np.ndarray:
    """(n_books, n_books) of who is known to have rated them; 0 for a book that nobody rated."""
    known = np.zeros((len(tables.users), len(tables.books)))
    known[tables.known()["user"], tables.known()["book"]] = 1
    norm = np.linalg.norm(known, axis=0)
    return known.T @ known / np.where(norm > 0, np.outer(norm, norm), 1)


def test_a_retriever_list_is_the_first_stages_top_outside_the_context(
    tables: Tables, cache: Cache
) -> None:
    frame = build(tables, cache, list_kinds=["retriever"]).frame
    near, h = cosines(tables), tables.histories
    positives = tables.positives("test")
    assert frame["user"].unique().tolist() == sorted(positives["user"].unique())
    for user, rows in frame.groupby("user"):
        context = h[(h["user"] == user) & ~h["is_target"]]["book"].to_numpy()
        score = near[context].sum(axis=0).astype(np.float32)
        score[context] = -1
        assert set(context).isdisjoint(rows["book"])
        assert len(rows) == 12
        assert rows["retrieval_score"].to_numpy() == pytest.approx(score[rows["book"]], abs=1e-6)
        assert rows["retrieval_score"].min() >= np.delete(score, rows["book"]).max() - 1e-6
        liked = set(positives[positives["user"] == user]["book"])
        assert set(rows[rows["label"] == 1]["book"]) == liked & set(rows["book"])
    assert frame["label"].sum() > 0


def test_no_target_changes_a_retrieved_candidate(tables: Tables, cache: Cache) -> None:
    """The targets become other books with other ratings; candidates and scores stay equal."""
    h = tables.histories.copy()
    hidden = (h["is_target"] & (tables.users["split"] != "train").to_numpy()[h["user"]]).to_numpy()
    rated = set(zip(h["user"], h["book"], strict=True))
    free = {
        u: [b for b in range(len(tables.books)) if (u, b) not in rated] for u in h["user"].unique()
    }
    h.loc[hidden, "book"] = np.array([free[u].pop() for u in h.loc[hidden, "user"]], dtype=np.int32)
    h.loc[hidden, "rating"] = np.float32(5)
    other = dataclasses.replace(tables, histories=h.sort_values(["user", "book"]), digest="moved")
    for retriever in ("item_knn", "ease"):
        ours, theirs = (
            build(t, cache, list_kinds=["retriever"], retriever=retriever).frame
            for t in (tables, other)
        )
        assert not ours["label"].equals(theirs["label"])
        columns = ["user", "book", "retrieval_score"]
        both = theirs[theirs["user"].isin(ours["user"])].reset_index(drop=True)
        pd.testing.assert_frame_equal(ours[columns], both[columns])


def test_users_whose_positives_are_not_retrieved_keep_their_list_and_are_counted(
    tables: Tables, cache: Cache
) -> None:
    lists = build(tables, cache, list_kinds=["retriever"], n_candidates=1)
    assert lists.frame["user"].tolist() == sorted(tables.positives("test")["user"].unique())
    assert lists.counts["users"] == len(lists.frame)
    assert lists.counts["users_without_retriever_positive"] == (lists.frame["label"] == 0).sum() > 0
    assert "users_without_retriever_list" not in lists.counts


def test_a_first_stage_that_finds_nothing_is_an_error(
    raw: Callable[..., Path], cache: Cache
) -> None:
    """Every user has ten books of his own; his liked books are rated by no other user."""
    ratings = [
        (f"u{u}", 1 + (u * 11 + i * 3) % 40, 2 + (u + i * i) % 4)
        for u in range(60)
        for i in range(10)
    ]
    tables = load_tables(DataConfig(name="bookdb", root=str(raw(ratings, n_books=200))), cache)
    h = tables.histories.copy()
    hidden = (h["is_target"] & (tables.users["split"] == "test").to_numpy()[h["user"]]).to_numpy()
    h.loc[hidden, "book"] += np.int32(150)
    with pytest.raises(
        DataError, match=r"the 12 books that item_knn ranks highest hold no positive target of any"
    ):
        build(
            dataclasses.replace(tables, histories=h, digest="far"), cache, list_kinds=["retriever"]
        )


def test_no_kind_changes_another(tables: Tables, cache: Cache) -> None:
    kinds = ["bookdb", "retriever", "popularity", "uniform"]
    all_ = build(tables, cache, list_kinds=kinds)
    # bookdb is in the place of its first name, "seed", so that digests stay as they were.
    order = ["popularity", "retriever", "bookdb", "uniform"]
    assert list(all_.frame["kind"].unique()) == order
    for kind in kinds:
        alone = build(tables, cache, list_kinds=[kind], max_positives=3)
        assert alone.digest == digest_of_kind(all_, tables, kind)
        assert all_.frame[all_.frame["kind"] == kind]["retrieval_score"].isna().all() == (
            kind != "retriever"
        )


def test_the_retriever_decides_only_its_own_lists(tables: Tables, cache: Cache) -> None:
    knn, ease = (
        build(tables, cache, list_kinds=["uniform", "retriever"], retriever=r)
        for r in ("item_knn", "ease")
    )
    assert digest_of_kind(knn, tables, "retriever") != digest_of_kind(ease, tables, "retriever")
    assert digest_of_kind(knn, tables, "uniform") == digest_of_kind(ease, tables, "uniform")


def test_a_bookdb_list_has_three_positives_and_nine_different_negatives(
    tables: Tables, cache: Cache
) -> None:
    lists = build(tables, cache, list_kinds=["bookdb"], n_candidates=20, max_positives=1)
    n_positives = tables.positives("test").groupby("user").size()
    per_user = lists.frame.groupby("user")["label"].agg(["size", "sum"])
    assert per_user.index.tolist() == n_positives.index[n_positives >= 3].tolist()
    assert (per_user["size"] == 12).all()
    assert (per_user["sum"] == 3).all()
    assert not lists.frame.duplicated(["user", "book"]).any()
    assert lists.counts.get("users_without_bookdb_list", 0) == (n_positives < 3).sum()


def test_named_lists_hold_ids_that_give_the_hash_again(tables: Tables, cache: Cache) -> None:
    lists = build(tables, cache, list_kinds=["retriever", "uniform"])
    named = eval_set(tables, lists, CFG).with_ids()
    rows = named[["kind", "user_id", "book_id", "label"]].astype(str).agg("\t".join, axis=1)
    assert hashlib.sha256("\n".join(rows).encode()).hexdigest() == lists.digest
    assert named["retrieval_score"].equals(lists.frame["retrieval_score"])
