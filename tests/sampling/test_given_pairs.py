"""Pairs that are given as files: read, refined, without held-out users, and checked for leaks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import SamplingConfig
from reranker.errors import ConfigError, DataError
from reranker.sampling import audit_given, given_warnings, load_given, without_users
from tests.helpers.pair_tables import pairs_frame

KEYS = ["user_id", "user_ctx", "book_text", "label"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "processed_training_pairs_parts_0_to_12.parquet"
    pairs_frame().to_parquet(path)
    return path


def test_a_file_gives_its_pairs(file: Path, cache: Cache) -> None:
    cfg = SamplingConfig(path=str(file))
    given = load_given(cfg, cache, refined=False)
    expected = pairs_frame()
    assert given.read()[KEYS].astype(expected[KEYS].dtypes).equals(expected[KEYS])
    assert given.counts["pairs"] == len(expected)
    assert given.counts["users"] == 40
    again = load_given(cfg, cache, refined=False)
    assert (again.hit, again.digest) == (True, given.digest)


def test_a_folder_of_parts_in_other_types_gives_the_same_pairs(
    tmp_path: Path, file: Path, cache: Cache
) -> None:
    folder = tmp_path / "training_pairs.parquet"
    folder.mkdir()
    frame = pairs_frame().astype({"label": bool, "user_ctx": "category"})
    for i in range(12):  # part.10 comes after part.2
        frame[i * 60 : (i + 1) * 60 if i < 11 else None].to_parquet(folder / f"part.{i}.parquet")
    (folder / "_SUCCESS").touch()
    whole = load_given(SamplingConfig(path=str(folder)), cache, refined=False)
    single = load_given(SamplingConfig(path=str(file)), cache, refined=False)
    assert whole.read()[KEYS].astype(object).equals(single.read()[KEYS].astype(object))
    some = load_given(SamplingConfig(path=str(folder), parts=[0, 2]), cache, refined=False)
    assert some.counts["pairs"] == 120
    with pytest.raises(ConfigError, match="no part 12"):
        load_given(SamplingConfig(path=str(folder), parts=[12]), cache, refined=False)


def test_refinement_that_drops_all_pairs_is_an_error(file: Path, cache: Cache) -> None:
    cfg = SamplingConfig(path=str(file), min_positives=50, max_positives=None)
    with pytest.raises(DataError, match="no user has 50 positives"):
        load_given(cfg, cache, refined=True)


def test_held_out_users_are_left_out_and_counted(file: Path, cache: Cache) -> None:
    given = load_given(SamplingConfig(path=str(file)), cache, refined=False)
    users = ["u001", "u002", "someone else"]
    left = without_users(given, users, cache)
    assert not left.read()["user_id"].isin(users).any()
    n = pairs_frame()["user_id"].isin(users).sum()
    assert (
        left.counts["pairs_of_held_out_users"] == n == given.counts["pairs"] - left.counts["pairs"]
    )
    with pytest.raises(DataError, match="belong to dev or test users"):
        without_users(given, [f"u{i:03d}" for i in range(40)], cache)


def test_the_audit_counts_leaks(tmp_path: Path, cache: Cache) -> None:
    frame = pairs_frame(3)
    leak = {
        "user_id": "u001",
        "user_ctx": "Likes: Middlemarch; Emma.",
        "book_id": 9,
        "book_text": "Title: Middlemarch | Genres: classics",
        "label": 1,
    }
    rows = [leak, leak | {"label": 0}, frame.iloc[0].to_dict()]
    path = tmp_path / "pairs.parquet"
    pd.concat([frame, pd.DataFrame(rows)], ignore_index=True).to_parquet(path)
    given = load_given(SamplingConfig(path=str(path)), cache, refined=False)
    counts = audit_given(given)
    assert counts == {
        "pairs_checked": len(frame) + 3,
        "repeated_pairs": 2,
        "pairs_with_two_labels": 1,
        "positives_named_in_context": 1,
    }
    leaks, labels = given_warnings(counts, given.counts["positives"])
    assert leaks.startswith("1 of 14 positives") and labels.startswith("1 pairs")
    assert given_warnings(dict.fromkeys(counts, 0), 14) == []
