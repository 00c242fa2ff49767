"""Training pairs are correct, nested, reproducible to the byte, and have the published schema."""

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
from reranker.data import Corpus, load
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
    corpus: Corpus, cache: Cache, engine: EngineConfig | None = None, **sampling: object
) -> Pairs:
    cfg = dataclasses.replace(SamplingConfig(), **sampling)
    return build_pairs(corpus, cfg, engine or EngineConfig("synchronous", 1), cache)


def rows(pairs: Pairs) -> set[tuple[str, int, int]]:
    frame = pd.read_parquet(pairs.path)
    return set(zip(frame["user_id"].astype(str), frame["book_id"], frame["label"], strict=True))


def test_the_file_has_the_published_schema_and_the_texts_of_its_ids(
    corpus: Corpus, cache: Cache
) -> None:
    pairs = build(corpus, cache)
    schema = pq.read_schema(pairs.path)
    assert schema.names == ["user_id", "user_ctx", "book_id", "book_text", "label"]
    assert pa.types.is_dictionary(schema.field("user_ctx").type)
    frame = pd.read_parquet(pairs.path).astype({"user_ctx": str, "book_text": str})
    books, users = corpus.tables.books, corpus.tables.users
    text = dict(zip(books["book_id"], books["book_text"], strict=True))
    context = dict(zip(users["user_id"], corpus.contexts.text, strict=True))
    assert [text[b] for b in frame["book_id"]] == frame["book_text"].tolist()
    assert [context[u] for u in frame["user_id"].astype(str)] == frame["user_ctx"].tolist()


def test_each_positive_has_distinct_negatives_that_its_user_never_rated(
    corpus: Corpus, cache: Cache
) -> None:
    codes = build(corpus, cache, neg_ratio=4).codes
    assert (codes["label"].to_numpy().reshape(-1, 5) == [1, 0, 0, 0, 0]).all()
    assert (codes["user"].to_numpy().reshape(-1, 5) == codes["user"].to_numpy()[::5, None]).all()
    assert not codes.duplicated(["user", "book"]).any()
    rated = corpus.tables.histories[["user", "book"]]
    assert codes[codes["label"] == 0].merge(rated).empty
    positives = codes[codes["label"] == 1]
    assert len(positives.merge(corpus.tables.positives("train"))) == len(positives)


def test_refinement_drops_users_and_caps_positives_and_counts_both(
    corpus: Corpus, cache: Cache
) -> None:
    pairs = build(corpus, cache, min_positives=2, max_positives=2)
    n = corpus.tables.positives("train").groupby("user").size()
    per_user = pairs.codes[pairs.codes["label"] == 1].groupby("user").size()
    assert per_user.to_dict() == dict.fromkeys(n.index[n >= 2], 2)
    c = pairs.counts
    n_train = (corpus.tables.users["split"] == "train").sum()
    assert c["users_in"] == c["users"] + c["users_dropped_few_positives"] == n_train
    assert c["positives_in"] == c["positives"] + c["positives_dropped_by_refinement"]
    assert c["pairs"] == len(pairs.codes) == 4 * c["positives"]


def test_the_pairs_of_a_smaller_ratio_are_a_subset_of_those_of_a_larger(
    corpus: Corpus, cache: Cache
) -> None:
    three, five = (rows(build(corpus, cache, neg_ratio=k)) for k in (3, 5))
    assert three < five


@pytest.mark.parametrize("context", ["holdout", "leave_one_out"])
@pytest.mark.parametrize(
    "strategy", [{}, {"strategy": "mix", "mix": MixConfig(uniform=0.5, popularity=0.5)}]
)
def test_refinement_keeps_negatives_per_positive_as_if_only_these_were_drawn(
    corpus: Corpus, tmp_path: Path, context: str, strategy: dict[str, object]
) -> None:
    own = {"context": context, "min_positives": 2, "max_positives": 2, **strategy}
    drawn = build(corpus, Cache(tmp_path / "5"), neg_ratio=5, negatives_per_positive=2, **own)
    expected = build(corpus, Cache(tmp_path / "2"), neg_ratio=2, **own)
    pd.testing.assert_frame_equal(drawn.codes, expected.codes)
    assert pq.read_table(drawn.path).cast(PLAIN).equals(pq.read_table(expected.path).cast(PLAIN))
    c, positives = drawn.counts, drawn.counts["positives"]
    assert (c["negatives"], c["negatives_missing"], c["pairs"]) == (2 * positives, 0, 3 * positives)
    assert c["pairs_before_refinement"] == len(pq.read_table(drawn.parts))
    # Positives that refinement drops may have fewer than five.
    assert 1 / 6 <= (pq.read_table(drawn.parts)["label"].to_numpy() == 1).mean() < 1 / 4
    engine = EngineConfig("threads", 3)
    again = build(
        corpus, Cache(tmp_path / "t"), engine, neg_ratio=5, negatives_per_positive=2, **own
    )
    assert hashes(again) == hashes(drawn)


def test_refinement_that_keeps_all_negatives_changes_no_file(
    corpus: Corpus, tmp_path: Path
) -> None:
    null, all_of_them = (
        build(corpus, Cache(tmp_path / str(n)), negatives_per_positive=n) for n in (None, 3)
    )
    assert hashes(null) == hashes(all_of_them)


def test_negatives_differ_between_positives_and_users(corpus: Corpus, cache: Cache) -> None:
    """The original system drew the same three negatives for each positive."""
    codes = build(corpus, cache).codes
    draws = codes[codes["label"] == 0]["book"].to_numpy().reshape(-1, 3)
    assert len({tuple(sorted(d)) for d in draws.tolist()}) > 0.9 * len(draws)


def test_negatives_are_uniform_over_unrated_books(corpus: Corpus, cache: Cache) -> None:
    codes = pd.concat(build(corpus, cache, seed=s, neg_ratio=5).codes for s in range(30))
    drawn = np.bincount(codes[codes["label"] == 0]["book"], minlength=40)
    users = codes[codes["label"] == 0].groupby("user").size()
    histories = corpus.tables.histories
    rated = histories[histories["user"].isin(users.index)]
    is_unrated = np.ones((len(corpus.tables.users), 40))
    is_unrated[rated["user"], rated["book"]] = 0
    expected = sum(is_unrated[u] * n / is_unrated[u].sum() for u, n in users.items())
    # The draws of a user are distinct, so counts vary less than Poisson counts; the bound is 5 of
    # their standard deviations.
    assert np.all(np.abs(drawn - expected) < 5 * np.sqrt(expected))


def hashes(pairs: Pairs) -> dict[str, str]:
    """Return the SHA-256 of every file of the pairs."""
    files = (p for p in pairs.path.parent.rglob("*") if p.is_file() and p.name != "manifest.json")
    return {p.relative_to(pairs.path.parent).as_posix(): digest_file(p) for p in files}


@pytest.mark.parametrize(
    "scheduler", ["synchronous", "threads", pytest.param("processes", marks=pytest.mark.slow)]
)
def test_one_two_and_seven_partitions_give_the_same_bytes(
    corpus: Corpus, tmp_path: Path, scheduler: str
) -> None:
    def built(engine: EngineConfig, folder: str) -> Pairs:
        return build(corpus, Cache(tmp_path / folder), engine, part_pairs=60)

    partitions = [2] if scheduler == "processes" else [1, 2, 7]
    expected = built(EngineConfig("synchronous", 3), "expected")
    assert len(list(expected.parts.glob("part-*.parquet"))) == 7
    for n in partitions:
        assert hashes(built(EngineConfig(scheduler, n), str(n))) == hashes(expected)


def test_the_size_of_parts_changes_the_files_but_not_the_rows(
    corpus: Corpus, tmp_path: Path
) -> None:
    few, many = (build(corpus, Cache(tmp_path / f"{n}"), part_pairs=n) for n in (10**6, 50))
    assert len(list(few.parts.glob("*.parquet"))) == 1 < len(list(many.parts.glob("*.parquet")))
    pd.testing.assert_frame_equal(few.codes, many.codes)
    for folder in ("path", "parts"):
        one, other = (pq.read_table(getattr(p, folder)).cast(PLAIN) for p in (few, many))
        assert one.equals(other)


def test_the_manifest_lists_rows_and_hashes_of_every_part(corpus: Corpus, cache: Cache) -> None:
    pairs = build(corpus, cache, part_pairs=60)
    manifest = json.loads((pairs.parts / "_manifest.json").read_text())
    files = {
        p.name: {"rows": pq.read_metadata(p).num_rows, "sha256": digest_file(p)}
        for p in pairs.parts.glob("*.parquet")
    }
    assert manifest == {"rows": pairs.counts["pairs_before_refinement"], "files": files}


def test_part_files_hold_every_positive_and_the_refined_pairs(corpus: Corpus, cache: Cache) -> None:
    pairs = build(corpus, cache, min_positives=2, max_positives=2, part_pairs=60)
    unrefined, refined = (
        pd.read_parquet(p).astype({"user_id": str}) for p in (pairs.parts, pairs.path)
    )
    positives = corpus.tables.positives("train")
    assert (unrefined["label"] == 1).sum() == len(positives)
    assert len(unrefined) == 4 * len(positives) == pairs.counts["pairs_before_refinement"]
    assert not unrefined.duplicated(["user_id", "book_id"]).any()
    n = positives.groupby("user").size()
    assert (refined["label"] == 1).sum() == 2 * (n >= 2).sum() < len(positives)
    assert len(refined.merge(unrefined, on=["user_id", "book_id", "label"])) == len(refined)


def test_pandas_duckdb_and_polars_read_the_same_rows(corpus: Corpus, cache: Cache) -> None:
    import duckdb
    import polars

    pairs = build(corpus, cache, part_pairs=60)
    files = f"{pairs.parts}/*.parquet"
    frame = pd.read_parquet(pairs.parts).astype(object)
    expected = [tuple(row) for row in frame.itertuples(index=False)]
    query = f"SELECT * FROM '{files}' ORDER BY filename, file_row_number"
    assert duckdb.sql(query).fetchall() == expected
    assert polars.read_parquet(files).rows() == expected
    n_rows = len(duckdb.sql(f"FROM '{pairs.path}'").fetchall())
    assert polars.read_parquet(pairs.path).height == n_rows


def test_users_with_the_same_context_share_one_text_in_the_file(
    corpus: Corpus, tmp_path: Path
) -> None:
    """Arrow writes a dictionary with a repeated value as plain strings after undefined bytes."""
    text = ["Likes: the same."] * len(corpus.contexts.text)
    same = dataclasses.replace(corpus, contexts=dataclasses.replace(corpus.contexts, text=text))
    built = [build(same, Cache(tmp_path / f"{i}")) for i in range(2)]
    assert built[0].digest == built[1].digest
    column = pq.read_metadata(built[0].path).row_group(0).column(1)
    assert (column.path_in_schema, column.total_uncompressed_size < 500) == ("user_ctx", True)
    assert pq.read_table(built[0].path)["user_ctx"].unique().to_pylist() == ["Likes: the same."]


HASH_SEED_SCRIPT = """
import hashlib, sys
from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, SamplingConfig
from reranker.data import load
from reranker.sampling import build_pairs
cache = Cache(sys.argv[2])
corpus = load(DataConfig(name="bookdb", root=sys.argv[1]), cache)
pairs = build_pairs(corpus, SamplingConfig(), EngineConfig("threads", 3), cache)
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
    corpus: Corpus, cache: Cache
) -> None:
    first, second = build(corpus, cache), build(corpus, cache)
    again = build(corpus, cache, regenerate=True)
    assert [p.hit for p in (first, second, again)] == [False, True, False]
    assert first.digest == second.digest == again.digest


@pytest.mark.parametrize("change", [{"context_titles": 1}, {"positive_rating": 5.0}])
def test_data_settings_that_do_not_change_the_tables_files_still_change_the_pairs(
    data_cfg: DataConfig, cache: Cache, change: dict[str, float]
) -> None:
    changed = dataclasses.replace(data_cfg, **change)
    built = [build(load(cfg, cache), cache) for cfg in (data_cfg, changed)]
    assert not built[1].hit
    assert not pd.read_parquet(built[0].path).equals(pd.read_parquet(built[1].path))


def test_a_ratio_larger_than_the_catalogue_is_an_error_and_leaves_no_files(
    corpus: Corpus, cache: Cache
) -> None:
    message = r"sampling.neg_ratio=100: .* needs .* x 100 distinct negatives, has 30 unrated of"
    with pytest.raises(DataError, match=message):
        build(corpus, cache, neg_ratio=100)
    assert not list((cache.root / "pairs").glob("*/*"))


@pytest.fixture
def dense(raw: Callable[..., Path], tmp_path: Path) -> Corpus:
    """14 books, of which each user rated 4: 10 unrated books and 2 positives."""
    ratings = [(f"u{u}", 1 + (u + i) % 14, 5) for u in range(40) for i in range(4)]
    cfg = DataConfig(name="bookdb", root=str(raw(ratings, n_books=14)))
    return load(cfg, Cache(tmp_path))


def test_every_unrated_book_can_be_drawn(dense: Corpus, tmp_path: Path) -> None:
    """With neg_ratio=5 each user's negatives are exactly the 10 unrated books."""
    codes = build(dense, Cache(tmp_path), neg_ratio=5).codes
    assert (codes[codes["label"] == 0].groupby("user")["book"].nunique() == 10).all()


def test_no_train_user_with_enough_positives_is_an_error(corpus: Corpus, cache: Cache) -> None:
    message = r"has 6 positives among the target books. Lower sampling.min_positives"
    with pytest.raises(DataError, match=message):
        build(corpus, cache, min_positives=6, max_positives=6)


def test_max_users_keeps_a_hash_sample(corpus: Corpus, cache: Cache) -> None:
    few, more = (build(corpus, cache, max_users=n) for n in (5, 10))
    assert few.codes["user"].nunique() == 5
    assert rows(few) < rows(more)


def test_shortfall_truncate_gives_fewer_negatives(dense: Corpus, tmp_path: Path) -> None:
    """10 of 2 positives x 6 negatives can be drawn: slot by slot, the first positive first."""
    pairs = build(dense, Cache(tmp_path), neg_ratio=6, shortfall="truncate")
    n_users = pairs.codes["user"].nunique()
    negatives = pairs.codes[pairs.codes["label"] == 0]
    assert negatives.groupby("user")["book"].nunique().tolist() == [10] * n_users
    assert pairs.counts["negatives_missing"] == 2 * n_users
    assert set(pairs.codes.groupby("user").size()) == {12}


EVEN_MIX = MixConfig(uniform=0.25, popularity=0.25, retriever=0.25, disliked=0.25)


@pytest.mark.parametrize(
    ("strategy", "sources"),
    [("popularity", ["popularity"]), ("retriever", ["retriever"]), ("mix", SOURCES)],
)
def test_every_strategy_gives_distinct_unrated_nested_negatives_that_pass_the_audit(
    corpus: Corpus, cache: Cache, strategy: str, sources: list[str]
) -> None:
    mix = EVEN_MIX if strategy == "mix" else MixConfig()
    more = {"strategy": strategy, "mix": mix, "retriever_depth": 4}
    three, five = (build(corpus, cache, neg_ratio=k, **more) for k in (3, 5))
    assert rows(three) < rows(five)
    audit(corpus, five)
    n_of_source = five.codes["source"].value_counts()
    assert all(n_of_source[name] > 0 for name in sources)
    negatives = n_of_source.drop("positive")
    assert {f"negatives_{name}": n for name, n in negatives.items()}.items() <= five.counts.items()


def test_reserving_books_for_the_retriever_can_leave_too_few(corpus: Corpus, cache: Cache) -> None:
    mix = MixConfig(uniform=0.9, retriever=0.1)
    message = r"10 are rated and \d+ are reserved for the retriever\)"
    with pytest.raises(DataError, match=message):
        build(corpus, cache, strategy="mix", mix=mix, neg_ratio=5)


def test_hard_negatives_rank_high_and_stay_below_the_margin(corpus: Corpus, cache: Cache) -> None:
    """Each is among a stage's first 5 unrated books and scores at most 0.9 of the best positive."""
    tables, contexts = corpus.tables, corpus.contexts
    pairs = build(corpus, cache, strategy="retriever", retriever_depth=5, retriever_margin=0.9)
    hard = pairs.codes[pairs.codes["source"] == "retriever"]
    users = np.unique(hard["user"])
    item_knn = ItemKNN(tables.known(), n_users=len(tables.users), n_books=40)
    by_ratings = item_knn.scores(users, contexts.rows).toarray()
    bm25 = Bm25(tables.books["book_text"].tolist())
    positives = tables.positives("train")
    for i, user in enumerate(users):
        rated = tables.histories.loc[tables.histories["user"] == user, "book"]
        liked = positives.loc[positives["user"] == user, "book"]
        allowed: set[int] = set()
        for scores in (by_ratings[i], bm25.scores(contexts.text[user])):
            unrated = np.where(np.isin(np.arange(40), rated), -1.0, scores)
            is_high = (unrated >= np.sort(unrated)[-5]) & (unrated > 0)
            allowed |= set(np.flatnonzero(is_high & (unrated <= 0.9 * scores[liked].max())))
        assert set(hard.loc[hard["user"] == user, "book"]) <= allowed
    assert len(hard) > 20


def test_disliked_negatives_are_targets_rated_low(corpus: Corpus, cache: Cache) -> None:
    pairs = build(corpus, cache, strategy="mix", mix=MixConfig(uniform=0.5, disliked=0.5))
    disliked = pairs.codes[pairs.codes["source"] == "disliked"]
    rated = disliked.merge(corpus.tables.histories, on=["user", "book"])
    assert len(rated) == pairs.counts["negatives_disliked"] > 10
    assert rated["is_target"].all() and (rated["rating"] <= 2).all()


def test_leave_one_out_contexts_contain_the_users_other_books(corpus: Corpus, cache: Cache) -> None:
    tables = corpus.tables
    pairs = build(corpus, cache, context="leave_one_out", max_positives=None, part_pairs=60)
    liked = tables.histories[tables.histories["rating"] >= tables.positive_rating]
    liked = liked[(tables.users["split"] == "train").to_numpy()[liked["user"]]]
    assert pairs.counts["positives"] == len(liked)
    assert pairs.codes.groupby("context")["label"].sum().tolist() == [1] * len(liked)
    text = pd.read_parquet(pairs.path)["user_ctx"]
    positives = pairs.codes[pairs.codes["label"] == 1]
    for user, book, row in zip(positives["user"], positives["book"], positives.index, strict=True):
        h = tables.histories
        others = h[(h["user"] == user) & (h["book"] != book)]
        columns = [others[c].to_numpy() for c in ("user", "book", "rating", "timestamp")]
        assert text[row] == corpus.contexts.builder.render(*columns)[user]
    audit(corpus, pairs)


def test_the_audit_finds_a_target_in_a_leave_one_out_context(
    corpus: Corpus, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def keep_all(histories: pd.DataFrame, targets: pd.DataFrame, n_books: int) -> pd.DataFrame:
        return histories

    monkeypatch.setattr(contexts_module, "drop_targets", keep_all)
    pairs = build(corpus, cache, context="leave_one_out")
    with pytest.raises(LeakError, match="have their title in the text of their own context"):
        audit(corpus, pairs)
