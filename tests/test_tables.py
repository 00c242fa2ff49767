"""Tables: folds by a hash of the user, disjoint sides of a history, the seed's tables, and every drop counted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import Tables, load

from .conftest import some_ratings

Raw = Callable[..., Path]


def fold_of(tables: Tables) -> dict[str, str]:
    return dict(zip(tables.users["user_id"], tables.users["fold"], strict=True))


def test_codes_are_row_numbers_and_histories_are_sorted(tables: Tables) -> None:
    assert tables.books["book_id"].is_monotonic_increasing
    assert tables.users["user_id"].is_monotonic_increasing
    keys = tables.histories["user"].to_numpy() * 1000 + tables.histories["book"].to_numpy()
    assert np.all(np.diff(keys) > 0)
    assert tables.histories.dtypes.astype(str).to_dict() == {
        "user": "int32", "book": "int32", "rating": "float32", "timestamp": "int64", "is_target": "bool"
    }  # fmt: skip


def test_folds_do_not_move_when_users_are_added(raw: Raw, tmp_path: Path) -> None:
    few = load(DataConfig(name="bookdb", root=str(raw(some_ratings(40)))), Cache(tmp_path / "a"))
    many = load(DataConfig(name="bookdb", root=str(raw(some_ratings(60)))), Cache(tmp_path / "b"))
    before, after = fold_of(few), fold_of(many)
    assert {u: after[u] for u in before} == before


def test_fold_sizes_follow_the_fractions(raw: Raw, cache: Cache) -> None:
    ratings = [(f"u{u}", 1 + (u + i) % 40, 4) for u in range(3000) for i in range(4)]
    counts = load(DataConfig(name="bookdb", root=str(raw(ratings))), cache).counts
    # Binomial standard deviations of 3000 draws: 22 at 0.2, 16 at 0.1; four of them either way.
    assert abs(counts["users_test"] - 600) < 88
    assert abs(counts["users_dev"] - 300) < 66


def test_half_of_each_history_is_target_and_both_sides_hold_a_book(tables: Tables) -> None:
    n_targets = tables.histories.groupby("user")["is_target"].agg(["sum", "size"])
    assert (n_targets["sum"] == 5).all()
    assert (n_targets["size"] == 10).all()


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_extreme_fractions_leave_a_book_on_each_side(data_cfg: DataConfig, cache: Cache, fraction: float) -> None:
    tables = load(dataclasses.replace(data_cfg, target_fraction=fraction), cache)
    n_targets = tables.histories.groupby("user")["is_target"].sum()
    assert set(n_targets) == {1 if fraction < 0.5 else 9}


def test_targets_come_after_context_where_there_are_timestamps(raw: Raw, cache: Cache) -> None:
    ratings = [(u, b, r, 1_000_000 + (i * 7919) % 1000) for i, (u, b, r) in enumerate(some_ratings())]
    h = load(DataConfig(name="bookdb", root=str(raw(ratings))), cache).histories
    last_known = h[~h["is_target"]].groupby("user")["timestamp"].max()
    first_hidden = h[h["is_target"]].groupby("user")["timestamp"].min()
    assert (last_known <= first_hidden).all()


def test_a_user_with_one_book_is_dropped_and_counted(raw: Raw, cache: Cache) -> None:
    tables = load(DataConfig(name="bookdb", root=str(raw([*some_ratings(), ("loner", 1, 5)])), min_ratings=2), cache)
    assert tables.counts["users_in"] == 61
    assert tables.counts["users_dropped_few_ratings"] == 1
    assert "loner" not in set(tables.users["user_id"])


def test_two_editions_in_one_history_count_once_the_latest(raw: Raw, cache: Cache) -> None:
    titles = {1: "Dune", 2: "Dune (Paperback)"}
    ratings = [("a", 1, 2, 10), ("a", 2, 5, 20), *[("a", b, 4, 1) for b in range(3, 9)]]
    ratings += [(f"u{u}", b, 4, 1) for u in range(50) for b in range(3, 9)]
    tables = load(DataConfig(name="bookdb", root=str(raw(ratings, titles=titles, authors={1: ["1"], 2: ["1"]}))), cache)
    a = tables.users.index[tables.users["user_id"] == "a"][0]
    mine = tables.histories[tables.histories["user"] == a].merge(tables.editions, on="book").query("book_id == 2")
    assert mine["rating"].tolist() == [5.0]
    assert tables.counts["ratings_dropped_same_work"] == 1


def test_ratings_of_books_outside_the_catalogue_are_counted(raw: Raw, cache: Cache) -> None:
    tables = load(DataConfig(name="bookdb", root=str(raw([*some_ratings(), ("user000", 999, 5)]))), cache)
    assert tables.counts["ratings_dropped_unknown_book"] == 1


def test_max_users_samples_by_id(data_cfg: DataConfig, tmp_path: Path) -> None:
    few, more = (load(dataclasses.replace(data_cfg, max_users=n), Cache(tmp_path / str(n))) for n in (30, 45))
    assert (len(few.users), few.counts["users_dropped_by_max_users"]) == (30, 30)
    assert set(few.users["user_id"]) < set(more.users["user_id"])


def test_known_hides_the_targets_of_dev_and_test_users_alone(tables: Tables) -> None:
    known = tables.known()
    hidden = known[known["is_target"]]
    assert set(tables.users["fold"].to_numpy()[hidden["user"]]) == {"train"}
    n_train = (tables.users["fold"] == "train").sum()
    assert len(known) == n_train * 10 + (len(tables.users) - n_train) * 5


def test_the_seeds_feature_tables_are_written(tables: Tables) -> None:
    books = pd.read_parquet(tables.path / "reduce_books_df.parquet")
    assert list(books.columns) == ["book_id", "title", "description", "genre", "authors"]
    assert books["genre"].map(type).eq(str).all()
    users = pd.read_parquet(tables.path / "sampled_users_book.parquet")
    assert list(users.columns) == ["user_id", "books_read"]
    code = tables.users.index[tables.users["user_id"] == users["user_id"][3]][0]
    mine = tables.histories[tables.histories["user"] == code]
    rating = dict(zip(tables.books["book_id"].to_numpy()[mine["book"]], mine["rating"], strict=True))
    read = [rating[b] for b in users["books_read"][3]]
    assert len(read) == len(mine)
    assert read == sorted(read, reverse=True)


def test_the_second_load_comes_from_the_cache(data_cfg: DataConfig, cache: Cache) -> None:
    first = load(data_cfg, cache)
    file = first.path / "users.parquet"
    stamp = file.stat().st_mtime_ns
    assert load(data_cfg, cache).digest == first.digest
    assert file.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "change", [{"genres": {"fantasy": ["fantasy"]}}, {"book_template": "{title}"}, {"context_template": "{titles}"}]
)
def test_other_genres_or_templates_are_other_tables(
    data_cfg: DataConfig, cache: Cache, change: dict[str, object]
) -> None:
    first, second = load(data_cfg, cache), load(dataclasses.replace(data_cfg, **change), cache)
    assert not second.hit
    assert second.digest != first.digest


def test_shuffled_input_rows_give_the_same_tables(raw: Raw, tmp_path: Path) -> None:
    ratings = some_ratings()
    a, b = (
        load(DataConfig(name="bookdb", root=str(raw(rows))), Cache(tmp_path / name))
        for name, rows in (("a", ratings), ("b", ratings[::-1]))
    )
    assert a.digest == b.digest
