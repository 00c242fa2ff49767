"""Baselines against brute force, and against what they may not see."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from reranker import config
from reranker.cache import Cache
from reranker.config import DataConfig, EvalConfig
from reranker.data import Contexts, Tables, build_contexts
from reranker.eval import Questions, baselines, build_lists, memoised, metrics, score_baselines


@pytest.fixture
def questions(tables: Tables, contexts: Contexts, cache: Cache) -> Questions:
    cfg = EvalConfig(list_kinds=["uniform"], n_candidates=12, max_positives=3)
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
        expected = (
            sum(known[:, c] @ known[:, book] / (norm[c] * norm[book]) for c in mine)
            if norm[book]
            else 0.0
        )
        assert scores[i] == pytest.approx(expected, abs=1e-12)


def test_the_order_of_a_retriever_list_is_its_first_stages_baseline(
    questions: Questions, cache: Cache
) -> None:
    for name in ("item_knn", "ease"):
        cfg = EvalConfig(list_kinds=["retriever"], n_candidates=12, retriever=name)
        lists = build_lists(questions.tables, cfg, "test", cache)
        scores = baselines.BASELINES[name](dataclasses.replace(questions, lists=lists)).astype(
            np.float32
        )
        assert np.array_equal(scores, lists.frame["retrieval_score"])


def test_overlap_is_the_mean_cosine_of_sets_of_names(questions: Questions) -> None:
    t = questions.tables
    context = questions.contexts.rows.groupby("user")["book"].apply(list)
    for column in ("genres", "authors"):
        names = [set(text.split(", ")) - {""} for text in t.books[column]]
        names = [n | {"even"} if book % 2 == 0 else n for book, n in enumerate(names)]
        names[3], names[7] = set(), {"one", "two", "three"}
        books = t.books.assign(**{column: [", ".join(sorted(n)) for n in names]})
        q = dataclasses.replace(questions, tables=dataclasses.replace(t, books=books))
        scores = baselines.BASELINES[column](q)
        assert len(set(scores)) > 3
        for score, user, book in zip(scores, q.rows["user"], q.rows["book"], strict=True):
            shared = [
                len(names[c] & names[book]) / math.sqrt(len(names[c]) * len(names[book]) or 1)
                for c in context[user]
            ]
            assert score == pytest.approx(sum(shared) / len(shared), abs=1e-12)


def test_hidden_targets_change_no_statistic(questions: Questions) -> None:
    t = questions.tables
    h = t.histories.copy()
    hidden = h["is_target"] & (t.users["split"] != "train").to_numpy()[h["user"]]
    h.loc[hidden, "rating"] = 1.0
    other = dataclasses.replace(questions, tables=dataclasses.replace(t, histories=h[~hidden]))
    for name in ("popularity", "item_knn", "ease", "genres", "authors"):
        assert np.array_equal(
            baselines.BASELINES[name](questions), baselines.BASELINES[name](other)
        )


def test_the_numbers_alone_are_a_regression_on_what_the_model_is_shown(
    questions: Questions, cache: Cache
) -> None:
    t = questions.tables
    cfg = DataConfig(name="bookdb", text_features=["authors", "genres"])
    contexts = build_contexts(t, cfg)
    pairs = t.histories.assign(label=(t.histories["rating"] >= 4).astype(int))
    q = dataclasses.replace(questions, contexts=contexts, pairs=pairs)
    [scores] = score_baselines(["features_lr"], q, lambda texts: np.empty(0), cache).values()
    readers = np.log1p(np.bincount(contexts.rows["book"], minlength=len(t.books)))
    x, y = (
        np.column_stack(
            [
                np.rint(3 * readers)[f["book"]],
                *contexts.levels(f["user"].to_numpy(), f["book"]).values(),
            ]
        )
        for f in (pairs, q.rows)
    )
    mean, std = x.mean(axis=0), x.std(axis=0)
    design = np.column_stack([np.ones(len(y)), (y - mean) / std])
    weights = np.linalg.lstsq(design, scores, rcond=None)[0]
    assert design @ weights == pytest.approx(scores, abs=1e-9)  # linear in the levels
    # ... and where the gradient of w.w / 2 + sum of log losses is 0, to the solver's tolerance of 1e-4 a pair
    z = (x - mean) / std
    residual = 1 / (1 + np.exp(-(z @ weights[1:] + weights[0]))) - pairs["label"]
    assert np.append(residual @ z + weights[1:], residual.sum()) / len(x) == pytest.approx(
        0, abs=1e-4
    )


def lengths(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of two numbers, by the length of the text."""
    angle = np.array([len(text) for text in texts]) / 100
    return np.column_stack([np.cos(angle), np.sin(angle)])


def test_what_a_baseline_tells_of_pairs_is_what_it_tells_of_lists_and_its_teachers_know_no_answer(
    questions: Questions, cache: Cache
) -> None:
    t = questions.tables
    asked = questions.rows[["user", "book", "label"]]
    other = t.histories.copy()
    answers = (other["is_target"] & (other["rating"] >= 4)).to_numpy()
    mended = dataclasses.replace(t, histories=other[~answers], digest="other")

    def tell(name: str, tables: Tables) -> np.ndarray:
        q = Questions.about(asked, "pairs", tables, questions.contexts, EvalConfig())
        return score_baselines([name], q, lengths, cache)[name]

    for name in {*config.TEACHERS, "popularity", "item_knn", "ease"} - {
        "features_lr"
    }:  # it has learnt from all labels
        told = tell(name, t)
        assert np.array_equal(told, score_baselines([name], questions, lengths, cache)[name])
        assert np.array_equal(told, tell(name, mended)) == (name in config.TEACHERS), name


def test_where_nothing_is_shown_there_is_no_baseline_of_features(
    questions: Questions, cache: Cache
) -> None:
    pairs = questions.tables.histories.assign(label=1)
    q = dataclasses.replace(questions, pairs=pairs)
    assert list(
        score_baselines(["random", "features_lr"], q, lambda texts: np.empty(0), cache)
    ) == ["random"]


def test_bm25_ranks_the_catalogue_by_shared_rare_words(questions: Questions) -> None:
    """Against BM25 (Lucene's variant, k1=1.5, b=0.75) in ten lines, on texts of plain words."""
    n = len(questions.tables.books)
    texts = [f"word{i % 5} word{i % 3}x extra{i}" + " filler" * (i % 4) for i in range(n)]
    query = "word1 word2x filler"
    books = questions.tables.books.assign(book_text=texts)
    contexts = dataclasses.replace(questions.contexts, text=[query] * len(questions.tables.users))
    scores = baselines.bm25(
        dataclasses.replace(
            questions, tables=dataclasses.replace(questions.tables, books=books), contexts=contexts
        )
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


def test_bi_encoder_top3_is_the_mean_of_the_three_nearest_context_books(
    questions: Questions,
) -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors = np.stack(
            [np.random.default_rng(len(t) * 31 + ord(t[12])).normal(size=8) for t in texts]
        )
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    scores = baselines.bi_encoder_top3(questions, embed)
    books = questions.tables.books["book_text"]
    context = questions.contexts.rows.groupby("user")["book"].apply(list)
    for i in range(0, len(scores), 5):
        user, book = questions.rows.iloc[i][["user", "book"]]
        cosine = sorted(
            float(embed([books[c]])[0] @ embed([books[book]])[0]) for c in context[user]
        )
        assert scores[i] == pytest.approx(sum(cosine[-3:]) / 3, abs=1e-12)


def test_a_text_is_embedded_once(questions: Questions, contexts: Contexts, cache: Cache) -> None:
    asked: list[str] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        asked.extend(texts)
        return one_hot(texts)

    embed = memoised(counted)
    names = ["bi_encoder", "bi_encoder_top3"]
    first = score_baselines(names, questions, embed, cache)
    cfg = EvalConfig(list_kinds=["uniform"], n_candidates=12)
    dev = Questions.of(
        questions.tables, contexts, build_lists(questions.tables, cfg, "dev", cache), cfg
    )
    second = score_baselines(names, dev, embed, cache)
    assert len(asked) == len(set(asked)) <= len(questions.tables.books)
    assert np.array_equal(first["bi_encoder"], baselines.bi_encoder(questions, one_hot))
    assert np.array_equal(second["bi_encoder_top3"], baselines.bi_encoder_top3(dev, one_hot))


def test_random_and_constant_scorers_have_the_chance_of_the_originals_lists(
    questions: Questions,
) -> None:
    """3 positives and 9 negatives: a constant scorer by arithmetic, random within 3 standard errors of it."""
    n_users = 3000
    ndcg = (
        3
        / 12
        * sum(1 / math.log2(1 + i) for i in range(1, 11))
        / sum(1 / math.log2(1 + i) for i in range(1, 4))
    )
    # Precision at the place i of a positive, which has 2 others among 11 rows: (1 + (i - 1) 2/11) / i.
    ap = sum((1 + (i - 1) * 2 / 11) / i for i in range(1, 13)) / 12
    assert (round(ap, 3), round(ndcg, 3)) == (0.393, 0.533)
    user = np.repeat(np.arange(n_users), 12)
    frame = pd.DataFrame(
        {
            "user": user,
            "book": np.tile(np.arange(12), n_users),
            "label": np.tile([1, 0, 0, 0], 3 * n_users),
        }
    )
    users = pd.DataFrame({"key": np.arange(n_users, dtype=np.uint64)})
    q = dataclasses.replace(
        questions,
        tables=dataclasses.replace(questions.tables, users=users),
        lists=dataclasses.replace(questions.lists, frame=frame),
    )
    for scores, places in ((np.zeros(len(frame)), 1e-12), (baselines.random(q), None)):
        values = metrics.evaluate(user, frame["label"].to_numpy(), scores, cutoffs=[10])
        for column, chance in (("ap", ap), ("ndcg_10", ndcg)):
            error = places or 3 * values[column].std() / math.sqrt(n_users)
            assert values[column].mean() == pytest.approx(chance, abs=error)


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

    names = [
        name for name in config.BASELINES if name != "features_lr"
    ]  # no numbers are shown here
    first = score_baselines(names, questions, one_hot, cache)
    second = score_baselines(names, questions, never, cache)
    assert list(first) == names
    assert all(np.array_equal(first[n], second[n]) for n in names)
