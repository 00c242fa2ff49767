"""Pairs: exact, nested, reproducible to the byte, and in the seed's schema."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache, digest_file
from reranker.config import DataConfig, EngineConfig, MixConfig, SamplingConfig
from reranker.data import Contexts, Tables, build_contexts, load_tables
from reranker.data import contexts as contexts_module
from reranker.data.retrieval.first_stages import Bm25, ItemKNN
from reranker.errors import DataError, LeakError
from reranker.sampling import Pairs, audit, build_pairs
from reranker.sampling.negatives import SOURCES

PLAIN = pa.schema(
    [
        ("user_id", pa.string()),
        ("user_ctx", pa.string()),
        ("book_id", pa.int64()),
        ("book_text", pa.string()),
        ("label", pa.int8()),
    ]
)


def build(
    tables: Tables,
    contexts: Contexts,
    cache: Cache,
    engine: EngineConfig | None = None,
    **sampling: object,
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
    assert [context[u] for u in frame["user_id"].astype(str)] == frame["user_ctx"].astype(
        str
    ).tolist()


def test_each_positive_has_its_negatives_distinct_and_never_rated(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    codes = build(tables, contexts, cache, neg_ratio=4).codes
    assert (codes["label"].to_numpy().reshape(-1, 5) == [1, 0, 0, 0, 0]).all()
    assert (codes["user"].to_numpy().reshape(-1, 5) == codes["user"].to_numpy()[::5, None]).all()
    assert not codes.duplicated(["user", "book"]).any()
    rated = tables.histories[["user", "book"]]
    assert codes[codes["label"] == 0].merge(rated).empty
    assert (
        len(codes[codes["label"] == 1].merge(tables.positives("train")))
        == (codes["label"] == 1).sum()
    )


def test_refinement_drops_and_caps_and_counts(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build(tables, contexts, cache, min_positives=2, max_positives=2)
    n = tables.positives("train").groupby("user").size()
    per_user = pairs.codes[pairs.codes["label"] == 1].groupby("user").size()
    assert per_user.to_dict() == dict.fromkeys(n.index[n >= 2], 2)
    c = pairs.counts
    assert (
        c["users_in"]
        == c["users"] + c["users_dropped_few_positives"]
        == (tables.users["split"] == "train").sum()
    )
    assert c["positives_in"] == c["positives"] + c["positives_dropped_by_refinement"]
    assert c["pairs"] == len(pairs.codes) == 4 * c["positives"]


def test_the_pairs_of_a_smaller_ratio_are_among_those_of_a_larger(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    three, five = (rows(build(tables, contexts, cache, neg_ratio=k)) for k in (3, 5))
    assert three < five


def test_negatives_differ_between_positives_and_users(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    """The original drew the same three negatives for each positive."""
    codes = build(tables, contexts, cache).codes
    draws = codes[codes["label"] == 0]["book"].to_numpy().reshape(-1, 3)
    assert len({tuple(sorted(d)) for d in draws.tolist()}) > 0.9 * len(draws)


def test_negatives_are_uniform_over_unrated_books(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    codes = pd.concat(build(tables, contexts, cache, seed=s, neg_ratio=5).codes for s in range(30))
    drawn = np.bincount(codes[codes["label"] == 0]["book"], minlength=40)
    users = codes[codes["label"] == 0].groupby("user").size()
    seen = tables.histories[tables.histories["user"].isin(users.index)]
    open_ = np.ones((len(tables.users), 40))
    open_[seen["user"], seen["book"]] = 0
    expected = sum(open_[u] * n / open_[u].sum() for u, n in users.items())
    # Draws of a user are distinct, so counts vary less than Poisson's; 5 standard deviations of it bound them.
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected))


def bytes_of(pairs: Pairs) -> dict[str, str]:
    """SHA-256 of every file of the pairs."""
    files = (p for p in pairs.path.parent.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(pairs.path.parent).as_posix(): digest_file(p) for p in files}


@pytest.mark.parametrize(
    "scheduler", ["synchronous", "threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_one_two_and_seven_partitions_give_the_same_bytes(
    tables: Tables, contexts: Contexts, tmp_path: Path, scheduler: str
) -> None:
    partitions = [2] if scheduler == "processes" else [1, 2, 7]
    built = [
        bytes_of(
            build(
                tables,
                contexts,
                Cache(tmp_path / f"{n}"),
                EngineConfig(scheduler, n),
                part_pairs=60,
            )
        )
        for n in partitions
    ]
    alone = build(
        tables, contexts, Cache(tmp_path / "alone"), EngineConfig("synchronous", 3), part_pairs=60
    )
    assert len(list(alone.parts.glob("part-*.parquet"))) == 7
    assert built == [bytes_of(alone)] * len(built)


def test_the_size_of_parts_changes_the_files_and_not_the_rows(
    tables: Tables, contexts: Contexts, tmp_path: Path
) -> None:
    few, many = (
        build(tables, contexts, Cache(tmp_path / f"{n}"), part_pairs=n) for n in (10**6, 50)
    )
    assert len(list(few.parts.glob("*.parquet"))) == 1 < len(list(many.parts.glob("*.parquet")))
    pd.testing.assert_frame_equal(few.codes, many.codes)
    for folder in ("path", "parts"):
        one, other = (pq.read_table(getattr(p, folder)).cast(PLAIN) for p in (few, many))
        assert one.equals(other)


def test_the_manifest_names_rows_and_hashes_of_every_part(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build(tables, contexts, cache, part_pairs=60)
    manifest = json.loads((pairs.parts / "_manifest.json").read_text())
    files = {
        p.name: {"rows": pq.read_metadata(p).num_rows, "sha256": digest_file(p)}
        for p in pairs.parts.glob("*.parquet")
    }
    assert manifest == {"rows": pairs.counts["pairs_before_refinement"], "files": files}


def test_part_files_hold_every_positive_and_the_refined_pairs(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build(tables, contexts, cache, min_positives=2, max_positives=2, part_pairs=60)
    whole, refined = (
        pd.read_parquet(p).astype({"user_id": str}) for p in (pairs.parts, pairs.path)
    )
    positives = tables.positives("train")
    assert (whole["label"] == 1).sum() == len(positives)
    assert len(whole) == 4 * len(positives) == pairs.counts["pairs_before_refinement"]
    assert not whole.duplicated(["user_id", "book_id"]).any()
    n = positives.groupby("user").size()
    assert (refined["label"] == 1).sum() == 2 * (n >= 2).sum() < len(positives)
    assert len(refined.merge(whole, on=["user_id", "book_id", "label"])) == len(refined)


def test_plain_pandas_duckdb_and_polars_read_the_same_rows(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    import duckdb
    import polars

    pairs = build(tables, contexts, cache, part_pairs=60)
    files = f"{pairs.parts}/*.parquet"
    expected = [
        tuple(row) for row in pd.read_parquet(pairs.parts).astype(object).itertuples(index=False)
    ]
    assert (
        duckdb.sql(f"SELECT * FROM '{files}' ORDER BY filename, file_row_number").fetchall()
        == expected
    )
    assert polars.read_parquet(files).rows() == expected
    assert polars.read_parquet(pairs.path).height == len(
        duckdb.sql(f"FROM '{pairs.path}'").fetchall()
    )


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
from reranker.config import DataConfig, EngineConfig, MixConfig, SamplingConfig
from reranker.data import build_contexts, load_tables
from reranker.sampling import build_pairs
cfg = DataConfig(name="bookdb", root=sys.argv[1])
cache = Cache(sys.argv[2])
tables = load_tables(cfg, cache)
pairs = build_pairs(tables, build_contexts(tables, cfg), SamplingConfig(), EngineConfig("threads", 3), cache)
print(hashlib.sha256(pairs.path.read_bytes()).hexdigest())
"""


@pytest.mark.slow
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
        tables = load_tables(cfg, cache)
        built.append(build(tables, build_contexts(tables, cfg), cache))
    assert not built[1].hit
    assert not pd.read_parquet(built[0].path).equals(pd.read_parquet(built[1].path))


def test_a_ratio_larger_than_the_catalogue_is_refused_and_leaves_nothing(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    with pytest.raises(
        DataError,
        match=r"sampling.neg_ratio=100: .* needs .* x 100 distinct negatives, has 30 unrated of",
    ):
        build(tables, contexts, cache, neg_ratio=100)
    assert not list((cache.root / "pairs").glob("*/*"))


def test_every_unrated_book_can_be_drawn(raw: object, tmp_path: Path) -> None:
    """10 unrated books, 2 positives, neg_ratio=5: each user's negatives are exactly the unrated books."""
    ratings = [(f"u{u}", 1 + (u + i) % 14, 5) for u in range(40) for i in range(4)]
    cfg = DataConfig(name="bookdb", root=str(raw(ratings, n_books=14)))
    tables = load_tables(cfg, Cache(tmp_path))
    codes = build(tables, build_contexts(tables, cfg), Cache(tmp_path), neg_ratio=5).codes
    assert (codes[codes["label"] == 0].groupby("user")["book"].nunique() == 10).all()


def test_no_train_user_with_enough_positives_is_an_error(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    with pytest.raises(
        DataError, match=r"has 6 positives among the target books. Lower sampling.min_positives"
    ):
        build(tables, contexts, cache, min_positives=6, max_positives=6)


def test_max_users_keeps_a_hash_sample(tables: Tables, contexts: Contexts, cache: Cache) -> None:
    few, more = (build(tables, contexts, cache, max_users=n) for n in (5, 10))
    assert few.codes["user"].nunique() == 5
    assert rows(few) < rows(more)


def test_too_few_books_truncate_where_that_is_the_policy(
    raw: Callable[..., Path], tmp_path: Path
) -> None:
    """14 books, 4 rated: of 2 positives x 6 negatives 10 can be drawn, slot by slot, the first positive's first."""
    ratings = [(f"u{u}", 1 + (u + i) % 14, 5) for u in range(40) for i in range(4)]
    cfg = DataConfig(name="bookdb", root=str(raw(ratings, n_books=14)))
    tables = load_tables(cfg, Cache(tmp_path))
    pairs = build(
        tables, build_contexts(tables, cfg), Cache(tmp_path), neg_ratio=6, shortfall="truncate"
    )
    n_users = pairs.codes["user"].nunique()
    assert (
        pairs.codes[pairs.codes["label"] == 0].groupby("user")["book"].nunique().tolist()
        == [10] * n_users
    )
    assert pairs.counts["negatives_missing"] == 2 * n_users
    assert set(pairs.codes.groupby("user").size()) == {12}


@pytest.mark.parametrize("strategy", ["popularity", "retriever", "mix"])
def test_every_strategy_gives_distinct_unseen_nested_negatives_that_pass_the_audit(
    tables: Tables, contexts: Contexts, cache: Cache, strategy: str
) -> None:
    mix = (
        MixConfig(uniform=0.25, popularity=0.25, retriever=0.25, disliked=0.25)
        if strategy == "mix"
        else MixConfig()
    )
    own = {"strategy": strategy, "mix": mix, "retriever_depth": 4}
    three, five = (build(tables, contexts, cache, neg_ratio=k, **own) for k in (3, 5))
    assert rows(three) < rows(five)
    audit(tables, contexts, five)
    by_source = five.codes["source"].value_counts()
    asked = (
        ["popularity"]
        if strategy == "popularity"
        else ["retriever"]
        if strategy == "retriever"
        else list(SOURCES)
    )
    assert all(by_source[name] > 0 for name in asked)
    assert {
        f"negatives_{name}": n for name, n in by_source.items() if name != "positive"
    }.items() <= five.counts.items()


def test_a_retriever_that_keeps_all_books_for_itself_leaves_too_few(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    mix = MixConfig(uniform=0.9, retriever=0.1)
    with pytest.raises(DataError, match=r"10 are rated and \d+ kept for the retriever\)"):
        build(tables, contexts, cache, strategy="mix", mix=mix, neg_ratio=5)


def test_hard_negatives_rank_high_and_stay_below_the_margin(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    """Each comes from a stage's first 5 unrated books, with at most .9 of the best score of the user's positives."""
    pairs = build(
        tables, contexts, cache, strategy="retriever", retriever_depth=5, retriever_margin=0.9
    )
    hard = pairs.codes[pairs.codes["source"] == "retriever"]
    users = np.unique(hard["user"])
    knn = (
        ItemKNN(tables.known(), n_users=len(tables.users), n_books=40)
        .scores(users, contexts.rows)
        .toarray()
    )
    bm25 = Bm25(tables.books["book_text"].tolist())
    positives = tables.positives("train")
    for i, user in enumerate(users):
        seen = tables.histories.loc[tables.histories["user"] == user, "book"]
        liked = positives.loc[positives["user"] == user, "book"]
        allowed: set[int] = set()
        for scores in (knn[i], bm25.scores(contexts.text[user])):
            open_ = np.where(np.isin(np.arange(40), seen), -1.0, scores)
            high = np.sort(open_)[-5]
            allowed |= set(
                np.flatnonzero((open_ >= high) & (open_ <= 0.9 * scores[liked].max()) & (open_ > 0))
            )
        assert set(hard.loc[hard["user"] == user, "book"]) <= allowed
    assert len(hard) > 20


def test_disliked_negatives_are_targets_rated_low(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build(tables, contexts, cache, strategy="mix", mix=MixConfig(uniform=0.5, disliked=0.5))
    disliked = pairs.codes[pairs.codes["source"] == "disliked"].merge(
        tables.histories, on=["user", "book"]
    )
    assert len(disliked) == pairs.counts["negatives_disliked"] > 10
    assert disliked["is_target"].all() and (disliked["rating"] <= 2).all()


def test_left_out_contexts_name_the_users_other_books(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build(
        tables, contexts, cache, context="leave_one_out", max_positives=None, part_pairs=60
    )
    liked = tables.histories[tables.histories["rating"] >= tables.positive_rating]
    liked = liked[(tables.users["split"] == "train").to_numpy()[liked["user"]]]
    assert pairs.counts["positives"] == len(liked)
    assert pairs.codes.groupby("context")["label"].sum().tolist() == [1] * len(liked)
    frame = pd.read_parquet(pairs.path)
    positives = pairs.codes[pairs.codes["label"] == 1]
    for user, book, at in zip(positives["user"], positives["book"], positives.index, strict=True):
        mine = tables.histories[
            (tables.histories["user"] == user) & (tables.histories["book"] != book)
        ]
        columns = [mine[c].to_numpy() for c in ("user", "book", "rating", "timestamp")]
        assert frame["user_ctx"][at] == contexts.builder.render(*columns)[user]
    audit(tables, contexts, pairs)


def test_the_audit_finds_a_target_in_a_left_out_context(
    tables: Tables, contexts: Contexts, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts_module, "drop_targets", lambda histories, targets, n_books: histories)
    pairs = build(tables, contexts, cache, context="leave_one_out")
    with pytest.raises(LeakError, match="have their title in the text of their own context"):
        audit(tables, contexts, pairs)
