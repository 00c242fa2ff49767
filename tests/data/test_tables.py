"""Tables have splits by user hash, disjoint sides of histories, and counts of all dropped rows."""

from __future__ import annotations

import dataclasses
import itertools
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.cache import Cache
from reranker.config import DataConfig, StorageConfig
from reranker.data import Tables, load_tables
from reranker.data import tables as module
from reranker.data.draws import bits, text_keys
from tests.conftest import some_ratings, write_raw

Raw = Callable[..., Path]
DUNE = {"titles": {1: "Dune", 2: "Dune (Paperback)"}, "authors": {1: ["1"], 2: ["1"]}}


def split_of(tables: Tables) -> dict[str, str]:
    return dict(zip(tables.users["user_id"], tables.users["split"], strict=True))


def test_codes_are_row_numbers_and_histories_are_sorted(tables: Tables) -> None:
    assert tables.books["book_id"].is_monotonic_increasing
    assert tables.users["user_id"].is_monotonic_increasing
    keys = tables.histories["user"].to_numpy() * 1000 + tables.histories["book"].to_numpy()
    assert np.all(np.diff(keys) > 0)
    assert tables.histories.dtypes.astype(str).to_dict() == {
        "user": "int32",
        "book": "int32",
        "rating": "float32",
        "timestamp": "int64",
        "is_target": "bool",
    }


def test_users_keep_their_splits_when_users_are_added(raw: Raw, tmp_path: Path) -> None:
    few, many = (
        load_tables(
            DataConfig(name="bookdb", root=str(raw(some_ratings(n)))), Cache(tmp_path / str(n))
        )
        for n in (40, 60)
    )
    before, after = split_of(few), split_of(many)
    assert {u: after[u] for u in before} == before


def test_split_sizes_follow_the_fractions(raw: Raw, cache: Cache) -> None:
    ratings = [(f"u{u}", 1 + (u + i) % 40, 4) for u in range(3000) for i in range(4)]
    counts = load_tables(DataConfig(name="bookdb", root=str(raw(ratings))), cache).counts
    # Four binomial standard deviations of 3000 draws, which are 22 at 0.2 and 16 at 0.1.
    assert abs(counts["users_test"] - 600) < 88
    assert abs(counts["users_dev"] - 300) < 66


def test_half_of_each_history_is_target(tables: Tables) -> None:
    n_targets = tables.histories.groupby("user")["is_target"].agg(["sum", "size"])
    assert (n_targets["sum"] == 5).all()
    assert (n_targets["size"] == 10).all()


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_extreme_fractions_leave_a_book_on_each_side(
    data_cfg: DataConfig, cache: Cache, fraction: float
) -> None:
    tables = load_tables(dataclasses.replace(data_cfg, target_fraction=fraction), cache)
    n_targets = tables.histories.groupby("user")["is_target"].sum()
    assert set(n_targets) == {1 if fraction < 0.5 else 9}


def test_targets_are_later_than_the_context_if_there_are_timestamps(raw: Raw, cache: Cache) -> None:
    ratings = [
        (u, b, r, 1_000_000 + (i * 7919) % 1000) for i, (u, b, r) in enumerate(some_ratings())
    ]
    h = load_tables(DataConfig(name="bookdb", root=str(raw(ratings))), cache).histories
    last_known = h[~h["is_target"]].groupby("user")["timestamp"].max()
    first_hidden = h[h["is_target"]].groupby("user")["timestamp"].min()
    assert (last_known <= first_hidden).all()


def test_a_user_with_one_book_is_dropped_and_counted(raw: Raw, cache: Cache) -> None:
    root = raw([*some_ratings(), ("loner", 1, 5)])
    tables = load_tables(DataConfig(name="bookdb", root=str(root), min_ratings=2), cache)
    assert tables.counts["users_in"] == 61
    assert tables.counts["users_dropped_few_ratings"] == 1
    assert "loner" not in set(tables.users["user_id"])


def test_of_two_editions_in_one_history_the_latest_rating_is_kept(raw: Raw, cache: Cache) -> None:
    ratings = [("a", 1, 2, 10), ("a", 2, 5, 20), *[("a", b, 4, 1) for b in range(3, 9)]]
    ratings += [(f"u{u}", b, 4, 1) for u in range(50) for b in range(3, 9)]
    tables = load_tables(DataConfig(name="bookdb", root=str(raw(ratings, **DUNE))), cache)
    user = tables.users.index[tables.users["user_id"] == "a"][0]
    history = tables.histories[tables.histories["user"] == user]
    dune = history.merge(tables.editions, on="book").query("book_id == 2")
    assert dune["rating"].tolist() == [5.0]
    assert tables.counts["ratings_dropped_same_work"] == 1


def test_ratings_of_books_outside_the_catalogue_are_counted(raw: Raw, cache: Cache) -> None:
    root = raw([*some_ratings(), ("user000", 999, 5)])
    tables = load_tables(DataConfig(name="bookdb", root=str(root)), cache)
    assert tables.counts["ratings_dropped_unknown_book"] == 1


def test_max_users_samples_by_id(data_cfg: DataConfig, tmp_path: Path) -> None:
    few, more = (
        load_tables(dataclasses.replace(data_cfg, max_users=n), Cache(tmp_path / str(n)))
        for n in (30, 45)
    )
    assert (len(few.users), few.counts["users_dropped_by_max_users"]) == (30, 30)
    assert set(few.users["user_id"]) < set(more.users["user_id"])


def test_known_leaves_out_the_targets_of_dev_and_test_users_only(tables: Tables) -> None:
    known = tables.known()
    hidden = known[known["is_target"]]
    assert set(tables.users["split"].to_numpy()[hidden["user"]]) == {"train"}
    n_train = (tables.users["split"] == "train").sum()
    assert len(known) == n_train * 10 + (len(tables.users) - n_train) * 5


def test_settings_are_written_as_the_flags_of_earlier_versions(data_cfg: DataConfig) -> None:
    """The digests of tables, pairs and lists of earlier versions depend on these flags."""
    for ease, overlap, readers in itertools.product([False, True], repeat=3):
        names = ["readers"] * readers + ["ease"] * ease + ["genres", "authors"] * overlap
        cfg = dataclasses.replace(data_cfg, text_features=names)
        settings = module._settings(cfg)
        expected = {"shows_match": overlap, "shows_ratings": ease, "shows_readers": readers}
        assert settings == module._settings(data_cfg) | expected
        assert "text_features" not in settings


def test_features_without_such_flags_are_other_tables(data_cfg: DataConfig, cache: Cache) -> None:
    digests = [
        load_tables(dataclasses.replace(data_cfg, text_features=names), cache).digest
        for names in ([], ["authors"], ["genres"], ["authors", "ease"], ["authors", "genres"])
    ]
    assert len(set(digests)) == len(digests)


def test_tables_with_features_have_the_folder_of_those_without(
    data_cfg: DataConfig, cache: Cache
) -> None:
    plain = load_tables(data_cfg, cache)
    for names in (["readers"], ["authors"], ["ease", "authors", "genres", "readers"]):
        tables = load_tables(dataclasses.replace(data_cfg, text_features=names), cache)
        assert tables.hit
        assert tables.path == plain.path


def test_the_feature_tables_of_the_original_system_are_written(tables: Tables) -> None:
    books = pd.read_parquet(tables.path / "reduce_books_df.parquet")
    assert list(books.columns) == ["book_id", "title", "description", "genre", "authors"]
    assert books["genre"].map(type).eq(str).all()
    users = pd.read_parquet(tables.path / "sampled_users_book.parquet")
    assert list(users.columns) == ["user_id", "books_read"]
    code = tables.users.index[tables.users["user_id"] == users["user_id"][3]][0]
    history = tables.histories[tables.histories["user"] == code]
    rating = dict(zip(tables.book_ids(history["book"]), history["rating"], strict=True))
    read = [rating[b] for b in users["books_read"][3]]
    assert len(read) == len(history)
    assert read == sorted(read, reverse=True)


def test_the_second_load_comes_from_the_cache(data_cfg: DataConfig, cache: Cache) -> None:
    first = load_tables(data_cfg, cache)
    file = first.path / "users.parquet"
    stamp = file.stat().st_mtime_ns
    assert load_tables(data_cfg, cache).digest == first.digest
    assert file.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    "change",
    [
        {"genres": {"fantasy": ["fantasy"]}},
        {"book_template": "{title}"},
        {"context_template": "{titles}"},
    ],
)
def test_other_genres_or_templates_are_other_tables(
    data_cfg: DataConfig, cache: Cache, change: dict[str, object]
) -> None:
    first, second = (
        load_tables(data_cfg, cache),
        load_tables(dataclasses.replace(data_cfg, **change), cache),
    )
    assert not second.hit
    assert second.digest != first.digest


def shuffle_ratings(root: Path, n_rows: int, order: random.Random) -> Path:
    """Shuffle the ratings of a raw folder and write them in row groups of n_rows."""
    file = root / "reduced_interactions.parquet"
    table = pq.read_table(file)
    shuffled = table.take(order.sample(range(table.num_rows), table.num_rows))
    pq.write_table(shuffled, file, row_group_size=n_rows)
    return root


def expected_histories(
    rows: list[tuple[str, int, int, int | None]], editions: pd.DataFrame, cfg: DataConfig
) -> pd.DataFrame:
    """Return the expected histories, computed by pandas and a loop over users."""
    frame = pd.DataFrame(rows, columns=["user_id", "book_id", "rating", "timestamp"])
    frame = frame[frame["user_id"] != ""].merge(editions, on="book_id")
    frame["timestamp"] = frame["timestamp"].fillna(0).astype(int)
    frame = frame.sort_values(["user_id", "book", "timestamp", "rating"])
    frame = frame.drop_duplicates(["user_id", "book"], keep="last")
    frame = frame[frame.groupby("user_id")["book"].transform("size") >= cfg.min_ratings]
    chance = {
        u: bits(cfg.seed, "sample users", text_keys([u]))[0] for u in frame["user_id"].unique()
    }
    frame = frame[frame["user_id"].isin(sorted(chance, key=chance.__getitem__)[: cfg.max_users])]
    parts = []
    for user, rated in frame.groupby("user_id"):
        hashed = bits(cfg.seed, "split", text_keys([user]), rated["book"].to_numpy())
        rated = rated.assign(hash=hashed)
        by = ["timestamp", "hash"] if (rated["timestamp"] > 0).all() else ["hash"]
        n_targets = min(max(round(len(rated) * cfg.target_fraction), 1), len(rated) - 1)
        targets = rated.sort_values(by).index[-n_targets:]
        parts.append(rated.assign(is_target=rated.index.isin(targets)))
    columns = ["user_id", "book", "rating", "timestamp", "is_target"]
    return pd.concat(parts)[columns].reset_index(drop=True)


WORLD = st.lists(
    st.tuples(
        st.sampled_from(["", "Z", "user003", "z", "é", "￿", "\U0001f600"]),
        st.sampled_from([1, 2, 3, 4, 5, 999]),
        st.integers(1, 5),
        st.none() | st.integers(1, 3),
    ),
    max_size=30,
)


@settings(max_examples=8, deadline=None)
@given(
    WORLD,
    st.integers(20, 300),
    st.integers(20, 300),
    st.sampled_from([None, 25]),
    st.randoms(use_true_random=False),
)
def test_tables_equal_those_of_pandas_for_any_order_and_batch_size(
    rows: list[tuple[str, int, int, int | None]],
    batch_rows: int,
    group: int,
    max_users: int | None,
    order: random.Random,
) -> None:
    some = some_ratings(30, per_user=6)
    rows = [*rows, *((u, b, r, None if b % 9 == 0 else b % 4 + 1) for u, b, r in some)]
    with tempfile.TemporaryDirectory() as temp:
        root = write_raw(Path(temp) / "raw", rows, **DUNE)
        cfg = DataConfig(
            name="bookdb", root=str(root), max_users=max_users, dev_fraction=0.3, test_fraction=0.3
        )
        tables = load_tables(cfg, Cache(Path(temp) / "a"))
        found = tables.histories.assign(user_id=tables.user_ids(tables.histories["user"]))
        expected = expected_histories(rows, tables.editions, cfg)
        pd.testing.assert_frame_equal(found[expected.columns], expected, check_dtype=False)

        shuffle_ratings(root, group, order)
        again = load_tables(
            dataclasses.replace(cfg, batch_rows=batch_rows), Cache(Path(temp) / "b")
        )
        files = sorted(p.name for p in tables.path.glob("*.parquet"))
        assert files == [
            "books.parquet",
            "editions.parquet",
            "histories.parquet",
            "reduce_books_df.parquet",
            "sampled_users_book.parquet",
            "users.parquet",
        ]
        assert all((tables.path / f).read_bytes() == (again.path / f).read_bytes() for f in files)
        assert tables.counts == again.counts


def test_row_groups_hold_complete_users(
    data_cfg: DataConfig, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROW_GROUP", 25)
    tables = load_tables(data_cfg, cache)
    file = pq.ParquetFile(tables.path / "histories.parquet")
    users = [file.read_row_group(g)["user"].to_pylist() for g in range(file.num_row_groups)]
    # Every user has ten rows.
    assert [sorted(set(group)) for group in users[:4]] == [[0, 1, 2], [3, 4], [5, 6, 7], [8, 9]]
    assert tables.histories["user"].tolist() == [u for group in users for u in group]
    read = pd.read_parquet(tables.path / "sampled_users_book.parquet")
    assert read["user_id"].tolist() == tables.users["user_id"].tolist()
    assert read["books_read"].map(len).tolist() == [10] * 60


def test_batch_size_and_storage_do_not_change_the_digest(
    data_cfg: DataConfig, cache: Cache
) -> None:
    first = load_tables(data_cfg, cache)
    other = dataclasses.replace(data_cfg, batch_rows=1000, storage=StorageConfig(region="auto"))
    again = load_tables(other, cache)
    assert again.hit
    assert again.digest == first.digest
