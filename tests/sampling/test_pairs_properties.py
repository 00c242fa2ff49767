"""Invariants of the pairs of random raw tables, checked without the audit's code."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, MixConfig, SamplingConfig
from reranker.data import load
from reranker.sampling import audit, build_pairs
from tests.conftest import GENRES, Rating, write_raw

N_BOOKS, N_TITLES = 30, 24  # six books are second editions with the same title and author
MIX = MixConfig(uniform=0.4, popularity=0.2, retriever=0.2, disliked=0.2)


def world(seed: int, folder: Path) -> tuple[dict[tuple[str, int], int], DataConfig]:
    """Write raw tables of a random world; return the rating of every (user, title number)."""
    rng = np.random.default_rng(seed)
    rated: dict[tuple[str, int], int] = {}
    rows: list[Rating] = []
    for u in range(60):
        for book in rng.choice(N_BOOKS, rng.integers(3, 12), replace=False):
            stars = int(rng.integers(1, 6))
            rows.append((f"u{u}", int(book) + 1, stars))
            key = (f"u{u}", int(book) % N_TITLES)
            rated[key] = max(stars, rated.get(key, 0))
    titles = {i + 1: f"Title No{i % N_TITLES:02d}" for i in range(N_BOOKS)}
    authors = {i + 1: [str(i % N_TITLES % 7)] for i in range(N_BOOKS)}
    write_raw(folder, rows, n_books=N_BOOKS, titles=titles, authors=authors)
    return rated, DataConfig(
        name="bookdb", root=str(folder), genres=GENRES, min_ratings=3, dev_fraction=0.3, seed=seed
    )


@pytest.mark.parametrize("context", ["holdout", "leave_one_out"])
@pytest.mark.parametrize("strategy", ["uniform", "mix"])
@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**31),
    neg_ratio=st.integers(1, 3),
    max_positives=st.none() | st.integers(1, 3),
    negatives_per_positive=st.none() | st.just(1),
)
def test_no_pair_contains_its_answer_and_negatives_are_unrated(
    context: str,
    strategy: str,
    seed: int,
    neg_ratio: int,
    max_positives: int | None,
    negatives_per_positive: int | None,
) -> None:
    cfg = SamplingConfig(
        context=context,
        strategy=strategy,
        mix=MIX if strategy == "mix" else MixConfig(),
        neg_ratio=neg_ratio,
        max_positives=max_positives,
        negatives_per_positive=negatives_per_positive,
        shortfall="truncate",
        retriever_depth=5,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        rated, data = world(seed, Path(folder) / "raw")
        cache = Cache(Path(folder) / "cache")
        corpus = load(data, cache)
        pairs = build_pairs(corpus, cfg, EngineConfig("synchronous", 1), cache)
        audit(corpus, pairs)
        frame = pd.read_parquet(pairs.path).astype(
            {"user_id": str, "user_ctx": str, "book_text": str}
        )
        books = corpus.tables.books
        title_of = dict(zip(books["book_id"], books["title"].str[-2:].astype(int), strict=True))
    frame["title"] = frame["book_id"].map(title_of)
    positive = frame[frame["label"] == 1]
    for row in positive.itertuples():
        assert rated[row.user_id, row.title] >= 4
        assert f"No{row.title:02d}" not in row.user_ctx
    negative = frame[frame["label"] == 0].assign(
        source=pairs.codes["source"][pairs.codes["label"] == 0].to_numpy()
    )
    for row in negative.itertuples():
        stars = rated.get((row.user_id, row.title))
        assert stars is None if row.source != "disliked" else stars <= 2
    assert not frame.duplicated(["user_id", "title"]).any()
    n_positives, n_negatives = Counter(positive["user_id"]), Counter(negative["user_id"])
    n_unrated = {u: N_TITLES - sum(user == u for user, _ in rated) for u in n_positives}
    for user, n in n_positives.items():
        assert n <= (max_positives or N_TITLES)
        wanted = n * (negatives_per_positive or neg_ratio)
        assert n_negatives[user] <= wanted
        if strategy == "uniform":  # other strategies reserve books for the retriever
            assert n_negatives[user] == min(wanted, n_unrated[user])
