"""Baselines against brute force, and against what they may not see."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Contexts, Tables
from reranker.eval import Questions, baselines, build_lists, score_baselines


@pytest.fixture
def questions(tables: Tables, contexts: Contexts, cache: Cache) -> Questions:
    cfg = EvalConfig(kinds=["uniform"], n_candidates=12, max_positives=3)
    return Questions(tables, contexts, build_lists(tables, cfg, "test", cache), seed=0)


def test_popularity_counts_known_ratings(questions: Questions) -> None:
    counts = Counter(questions.tables.known()["book"].tolist())
    assert baselines.popularity(questions).tolist() == [counts[b] for b in questions.rows["book"]]


def test_item_knn_is_the_sum_of_cosines_to_the_context_books(questions: Questions) -> None:
    t = questions.tables
    known = np.zeros((len(t.users), len(t.books)))
    known[t.known()["user"], t.known()["book"]] = 1
    norm = np.linalg.norm(known, axis=0)
    scores = baselines.item_knn(questions)
    context = questions.contexts.rows.groupby("user")["book"].apply(list)
    for i in range(0, len(scores), 7):
        user, book = questions.rows.iloc[i][["user", "book"]]
        mine = [c for c in context[user] if norm[c] > 0]
        expected = sum(known[:, c] @ known[:, book] / (norm[c] * norm[book]) for c in mine) if norm[book] else 0.0
        assert scores[i] == pytest.approx(expected, abs=1e-12)


def test_hidden_targets_change_no_statistic(questions: Questions) -> None:
    t = questions.tables
    h = t.histories.copy()
    hidden = h["is_target"] & (t.users["fold"] != "train").to_numpy()[h["user"]]
    h.loc[hidden, "rating"] = 1.0
    other = dataclasses.replace(questions, tables=dataclasses.replace(t, histories=h[~hidden]))
    for name in ("popularity", "item_knn"):
        assert np.array_equal(baselines.BASELINES[name](questions), baselines.BASELINES[name](other))


def test_bm25_ranks_the_catalogue_by_shared_rare_words(questions: Questions) -> None:
    """Against BM25 (Lucene's variant, k1=1.5, b=0.75) in ten lines, on texts of plain words."""
    n = len(questions.tables.books)
    texts = [f"word{i % 5} word{i % 3}x extra{i}" + " filler" * (i % 4) for i in range(n)]
    query = "word1 word2x filler"
    books = questions.tables.books.assign(book_text=texts)
    contexts = dataclasses.replace(questions.contexts, text=[query] * len(questions.tables.users))
    scores = baselines.bm25(
        dataclasses.replace(questions, tables=dataclasses.replace(questions.tables, books=books), contexts=contexts)
    )
    words = [t.split() for t in texts]
    mean = sum(map(len, words)) / n
    for score, book in zip(scores, questions.rows["book"], strict=True):
        expected = 0.0
        for term in query.split():
            df = sum(term in w for w in words)
            tf = words[book].count(term)
            idf = math.log(1 + (n - df + 0.5) / (df + 0.5))
            expected += idf * tf / (tf + 1.5 * (0.25 + 0.75 * len(words[book]) / mean))
        assert score == pytest.approx(expected, rel=1e-5)


def one_hot(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors by the book's number modulo 7, as the tests' authors are."""
    out = np.zeros((len(texts), 7))
    out[np.arange(len(texts)), [int(t.split("Author ")[1][0]) for t in texts]] = 1
    return out


def test_bi_encoder_is_the_cosine_to_the_mean_context_embedding(questions: Questions) -> None:
    scores = baselines.bi_encoder(questions, one_hot)
    books = questions.tables.books["book_text"]
    context = questions.contexts.rows.groupby("user")["book"].apply(list)
    for i in range(0, len(scores), 5):
        user, book = questions.rows.iloc[i][["user", "book"]]
        mean = one_hot(books[context[user]].tolist()).sum(axis=0)
        expected = mean @ one_hot([books[book]])[0] / np.linalg.norm(mean)
        assert scores[i] == pytest.approx(expected, abs=1e-12)


def test_random_depends_on_ids_and_seed_alone(questions: Questions) -> None:
    scores = baselines.random(questions)
    shuffled = questions.rows.sample(frac=1, random_state=1)
    lists = dataclasses.replace(questions.lists, frame=shuffled)
    again = baselines.random(dataclasses.replace(questions, lists=lists))
    assert dict(zip(shuffled.index, again, strict=True)) == dict(enumerate(scores))
    assert not np.array_equal(scores, baselines.random(dataclasses.replace(questions, seed=1)))


def test_scores_come_from_the_cache_the_second_time(questions: Questions, cache: Cache) -> None:
    def never(texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("embedded again")

    names = ["random", "popularity", "item_knn", "bm25", "bi_encoder"]
    first = score_baselines(names, questions, one_hot, cache)
    second = score_baselines(names, questions, never, cache)
    assert list(first) == names
    assert all(np.array_equal(first[n], second[n]) for n in names)
