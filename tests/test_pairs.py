"""Pairs: exact, nested, reproducible to the byte, and in the seed's schema."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, SamplingConfig
from reranker.data import Contexts, Tables, build_contexts, load
from reranker.errors import DataError
from reranker.sampling import Pairs, build_pairs


def build(
    tables: Tables, contexts: Contexts, cache: Cache, engine: EngineConfig | None = None, **sampling: object
) -> Pairs:
    cfg = dataclasses.replace(SamplingConfig(), **sampling)
    return build_pairs(tables, contexts, cfg, engine or EngineConfig("synchronous", 1), cache)


def rows(pairs: Pairs) -> set[tuple[str, int, int]]:
    frame = pd.read_parquet(pairs.path)
    return set(zip(frame["user_id"].astype(str), frame["book_id"], frame["label"], strict=True))


def test_the_file_has_the_seeds_schema_and_the_texts_of_its_ids(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build(tables, contexts, cache)
    schema = pq.read_schema(pairs.path)
    assert schema.names == ["user_id", "user_ctx", "book_id", "book_text", "label"]
    assert pa.types.is_dictionary(schema.field("user_ctx").type)
    frame = pd.read_parquet(pairs.path)
    text = dict(zip(tables.books["book_id"], tables.books["book_text"], strict=True))
    context = dict(zip(tables.users["user_id"], contexts.text, strict=True))
    assert [text[b] for b in frame["book_id"]] == frame["book_text"].astype(str).tolist()
    assert [context[u] for u in frame["user_id"].astype(str)] == frame["user_ctx"].astype(str).tolist()


def test_each_positive_has_its_negatives_distinct_and_never_rated(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    codes = build(tables, contexts, cache, neg_ratio=4).codes
    assert (codes["label"].to_numpy().reshape(-1, 5) == [1, 0, 0, 0, 0]).all()
    assert (codes["user"].to_numpy().reshape(-1, 5) == codes["user"].to_numpy()[::5, None]).all()
    assert not codes.duplicated(["user", "book"]).any()
    rated = tables.histories[["user", "book"]]
    assert codes[codes["label"] == 0].merge(rated).empty
    assert len(codes[codes["label"] == 1].merge(tables.positives("train"))) == (codes["label"] == 1).sum()


def test_refinement_drops_and_caps_and_counts(tables: Tables, contexts: Contexts, cache: Cache) -> None:
    pairs = build(tables, contexts, cache, min_positives=2, max_positives=2)
    n = tables.positives("train").groupby("user").size()
    per_user = pairs.codes[pairs.codes["label"] == 1].groupby("user").size()
    assert per_user.to_dict() == dict.fromkeys(n.index[n >= 2], 2)
    c = pairs.counts
    assert c["users_in"] == c["users"] + c["users_dropped_few_positives"] == (tables.users["fold"] == "train").sum()
    assert c["positives_in"] == c["positives"] + c["positives_dropped_by_refinement"]
    assert c["pairs"] == len(pairs.codes) == 4 * c["positives"]


def test_the_pairs_of_a_smaller_ratio_are_among_those_of_a_larger(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    three, five = (rows(build(tables, contexts, cache, neg_ratio=k)) for k in (3, 5))
    assert three < five


def test_negatives_differ_between_positives_and_users(tables: Tables, contexts: Contexts, cache: Cache) -> None:
    """The original drew the same three negatives for each positive."""
    codes = build(tables, contexts, cache).codes
    draws = codes[codes["label"] == 0]["book"].to_numpy().reshape(-1, 3)
    assert len({tuple(sorted(d)) for d in draws.tolist()}) > 0.9 * len(draws)


def test_negatives_are_uniform_over_unrated_books(tables: Tables, contexts: Contexts, cache: Cache) -> None:
    codes = pd.concat(build(tables, contexts, cache, seed=s, neg_ratio=5).codes for s in range(30))
    drawn = np.bincount(codes[codes["label"] == 0]["book"], minlength=40)
    users = codes[codes["label"] == 0].groupby("user").size()
    seen = tables.histories[tables.histories["user"].isin(users.index)]
    open_ = np.ones((len(tables.users), 40))
    open_[seen["user"], seen["book"]] = 0
    expected = sum(open_[u] * n / open_[u].sum() for u, n in users.items())
    # Draws of a user are distinct, so counts vary less than Poisson's; 5 standard deviations of it bound them.
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected))


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_one_two_and_seven_partitions_give_the_same_bytes(
    tables: Tables, contexts: Contexts, tmp_path: Path, scheduler: str
) -> None:
    partitions = [2] if scheduler == "processes" else [1, 2, 7]
    digests = {
        hashlib.sha256(
            build(tables, contexts, Cache(tmp_path / f"{n}"), EngineConfig(scheduler, n)).path.read_bytes()
        ).hexdigest()
        for n in partitions
    }
    alone = build(tables, contexts, Cache(tmp_path / "alone"), EngineConfig("synchronous", 3))
    assert digests == {hashlib.sha256(alone.path.read_bytes()).hexdigest()}


def test_users_with_the_same_context_share_one_text_in_the_file(
    tables: Tables, contexts: Contexts, tmp_path: Path
) -> None:
    """Arrow writes a dictionary with a repeated value as plain strings, and bytes that it never set before them."""
    same = dataclasses.replace(contexts, text=["Likes: the same."] * len(contexts.text))
    built = [build(tables, same, Cache(tmp_path / f"{i}")) for i in range(2)]
    assert built[0].digest == built[1].digest
    column = pq.read_metadata(built[0].path).row_group(0).column(1)
    assert (column.path_in_schema, column.total_uncompressed_size < 500) == ("user_ctx", True)
    assert pq.read_table(built[0].path)["user_ctx"].unique().to_pylist() == ["Likes: the same."]


HASH_SEED_SCRIPT = """
import hashlib, sys
from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, SamplingConfig
from reranker.data import build_contexts, load
from reranker.sampling import build_pairs
cfg = DataConfig(name="bookdb", root=sys.argv[1])
cache = Cache(sys.argv[2])
tables = load(cfg, cache)
pairs = build_pairs(tables, build_contexts(tables, cfg), SamplingConfig(), EngineConfig("threads", 3), cache)
print(hashlib.sha256(pairs.path.read_bytes()).hexdigest())
"""


def test_three_hash_seeds_give_the_same_bytes(data_cfg: DataConfig, tmp_path: Path) -> None:
    outputs = {
        subprocess.run(
            [sys.executable, "-c", HASH_SEED_SCRIPT, str(data_cfg.root), str(tmp_path / seed)],
            env=os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("0", "1", "31337")
    }
    assert len(outputs) == 1


def test_the_second_build_comes_from_the_cache_and_regenerate_builds_again(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    first, second = build(tables, contexts, cache), build(tables, contexts, cache)
    again = build(tables, contexts, cache, regenerate=True)
    assert [p.hit for p in (first, second, again)] == [False, True, False]
    assert first.digest == second.digest == again.digest


@pytest.mark.parametrize("change", [{"context_titles": 1}, {"positive_rating": 5.0}])
def test_data_settings_that_leave_the_files_alone_still_give_other_pairs(
    data_cfg: DataConfig, cache: Cache, change: dict[str, float]
) -> None:
    built = []
    for cfg in (data_cfg, dataclasses.replace(data_cfg, **change)):
        tables = load(cfg, cache)
        built.append(build(tables, build_contexts(tables, cfg), cache))
    assert not built[1].hit
    assert not pd.read_parquet(built[0].path).equals(pd.read_parquet(built[1].path))


def test_a_ratio_larger_than_the_catalogue_is_refused_and_leaves_nothing(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    with pytest.raises(
        DataError, match=r"sampling.neg_ratio=100: .* needs .* x 100 distinct negatives, has 30 unrated of"
    ):
        build(tables, contexts, cache, neg_ratio=100)
    assert not list((cache.root / "pairs").glob("*/*"))


def test_every_unrated_book_can_be_drawn(raw: object, tmp_path: Path) -> None:
    """10 unrated books, 2 positives, neg_ratio=5: each user's negatives are exactly the unrated books."""
    ratings = [(f"u{u}", 1 + (u + i) % 14, 5) for u in range(40) for i in range(4)]
    cfg = DataConfig(name="bookdb", root=str(raw(ratings, n_books=14)))  # type: ignore[operator]
    tables = load(cfg, Cache(tmp_path))
    codes = build(tables, build_contexts(tables, cfg), Cache(tmp_path), neg_ratio=5).codes
    assert (codes[codes["label"] == 0].groupby("user")["book"].nunique() == 10).all()


def test_no_train_user_with_enough_positives_is_an_error(tables: Tables, contexts: Contexts, cache: Cache) -> None:
    with pytest.raises(DataError, match=r"has 6 positives among the target books. Lower sampling.min_positives"):
        build(tables, contexts, cache, min_positives=6, max_positives=6)


def test_max_users_keeps_a_hash_sample(tables: Tables, contexts: Contexts, cache: Cache) -> None:
    few, more = (build(tables, contexts, cache, max_users=n) for n in (5, 10))
    assert few.codes["user"].nunique() == 5
    assert rows(few) < rows(more)
