"""Baselines equal brute force, and do not see held-out targets."""

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
from reranker.eval import Baselines, CandidateLists, EvalSet, baselines, build_lists, metrics
from tests.helpers.eval_sets import eval_set, with_contexts, with_tables

CFG = EvalConfig(list_kinds=["uniform"], n_candidates=12, max_positives=3)


@pytest.fixture
def test_set(tables: Tables, contexts: Contexts, cache: Cache) -> EvalSet:
    lists = build_lists(tables, CFG, "test", cache)
    return eval_set(tables, lists, CFG, contexts=contexts)


def scores_of(
    names: Sequence[str],
    q: EvalSet,
    cache: Cache,
    *,
    pairs: pd.DataFrame | None = None,
    embed: baselines.Embed | None = None,
) -> dict[str, np.ndarray]:
    """Return the scores of baselines which have these training pairs."""
    cfg = dataclasses.replace(q.cfg, baselines=list(names))
    return Baselines(cfg, as_pairs(q, pairs), cache, embed=embed).score(q)


def as_pairs(q: EvalSet, pairs: pd.DataFrame | None = None) -> EvalSet:
    """Return training pairs as an evaluation set; the default is no pairs."""
    rows = q.rows.iloc[:0] if pairs is None else pairs
    return dataclasses.replace(q, lists=CandidateLists(rows, "pairs", "train", False, {}))


def test_popularity_counts_known_ratings(test_set: EvalSet) -> None:
    counts = Counter(test_set.tables.known()["book"].tolist())
    assert baselines.popularity(test_set).tolist() == [counts[b] for b in test_set.rows["book"]]


def test_item_knn_is_the_sum_of_cosines_to_the_context_books(test_set: EvalSet) -> None:
    t = test_set.tables
    known = np.zeros((len(t.users), len(t.books)))
    known[t.known()["user"], t.known()["book"]] = 1
    norm = np.linalg.norm(known, axis=0)
    scores = baselines.item_knn(test_set)
    context = test_set.contexts.rows.groupby("user")["book"].apply(list)
    for i in range(0, len(scores), 7):
        user, book = test_set.rows.iloc[i][["user", "book"]]
        mine = [c for c in context[user] if norm[c] > 0]
        expected = (
            sum(known[:, c] @ known[:, book] / (norm[c] * norm[book]) for c in mine)
            if norm[book]
            else 0.0
        )
        assert scores[i] == pytest.approx(expected, abs=1e-12)


def test_the_order_of_a_retriever_list_is_its_first_stages_baseline(
    test_set: EvalSet, cache: Cache
) -> None:
    for name in ("item_knn", "ease"):
        cfg = EvalConfig(list_kinds=["retriever"], n_candidates=12, retriever=name)
        lists = build_lists(test_set.tables, cfg, "test", cache)
        scores = baselines.BASELINES[name](dataclasses.replace(test_set, lists=lists)).astype(
            np.float32
        )
        assert np.array_equal(scores, lists.frame["retrieval_score"])


def test_overlap_is_the_mean_cosine_of_sets_of_names(test_set: EvalSet) -> None:
    t = test_set.tables
    context = test_set.contexts.rows.groupby("user")["book"].apply(list)
    for column in ("genres", "authors"):
        names = [set(text.split(", ")) - {""} for text in t.books[column]]
        names = [n | {"even"} if book % 2 == 0 else n for book, n in enumerate(names)]
        names[3], names[7] = set(), {"one", "two", "three"}
        books = t.books.assign(**{column: [", ".join(sorted(n)) for n in names]})
        q = with_tables(test_set, books=books)
        scores = baselines.BASELINES[column](q)
        assert len(set(scores)) > 3
        for score, user, book in zip(scores, q.rows["user"], q.rows["book"], strict=True):
            shared = [
                len(names[c] & names[book]) / math.sqrt(len(names[c]) * len(names[book]) or 1)
                for c in context[user]
            ]
            assert score == pytest.approx(sum(shared) / len(shared), abs=1e-12)


def test_hidden_targets_change_no_statistic(test_set: EvalSet) -> None:
    t = test_set.tables
    h = t.histories.copy()
    hidden = h["is_target"] & (t.users["split"] != "train").to_numpy()[h["user"]]
    h.loc[hidden, "rating"] = 1.0
    other = with_tables(test_set, histories=h[~hidden])
    for name in ("popularity", "item_knn", "ease", "genres", "authors"):
        assert np.array_equal(baselines.BASELINES[name](test_set), baselines.BASELINES[name](other))


def test_features_lr_is_a_regression_on_the_numeric_features(
    test_set: EvalSet, cache: Cache
) -> None:
    t = test_set.tables
    cfg = DataConfig(name="bookdb", text_features=["authors", "genres"])
    contexts = build_contexts(t, cfg)
    pairs = t.histories.assign(label=(t.histories["rating"] >= 4).astype(int))
    q = with_contexts(test_set, contexts)
    [scores] = scores_of(["features_lr"], q, cache, pairs=pairs).values()
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
    # The gradient of w.w / 2 + sum of log losses is 0, up to the solver's tolerance of 1e-4.
    z = (x - mean) / std
    residual = 1 / (1 + np.exp(-(z @ weights[1:] + weights[0]))) - pairs["label"]
    assert np.append(residual @ z + weights[1:], residual.sum()) / len(x) == pytest.approx(
        0, abs=1e-4
    )


def lengths(texts: Sequence[str]) -> np.ndarray:
    """Unit vectors of two numbers, by the length of the text."""
    angle = np.array([len(text) for text in texts]) / 100
    return np.column_stack([np.cos(angle), np.sin(angle)])


def test_a_baseline_scores_pairs_as_it_scores_lists_and_teachers_do_not_see_the_answers(
    test_set: EvalSet, cache: Cache
) -> None:
    t = test_set.tables
    rows = test_set.rows[["user", "book", "label"]]
    other = t.histories.copy()
    answers = (other["is_target"] & (other["rating"] >= 4)).to_numpy()
    without_answers = with_tables(test_set, histories=other[~answers], digest="other")

    def score_pairs(name: str, q: EvalSet) -> np.ndarray:
        return Baselines(q.cfg, as_pairs(q, rows), cache, embed=lengths).score_pairs(name)

    # features_lr is left out: it is fitted to all labels.
    for name in {*config.TEACHERS, "popularity", "item_knn", "ease"} - {"features_lr"}:
        scores = score_pairs(name, test_set)
        same = scores_of([name], test_set, cache, embed=lengths)[name]
        assert np.array_equal(scores, same)
        unchanged = np.array_equal(scores, score_pairs(name, without_answers))
        assert unchanged == (name in config.TEACHERS), name


def test_without_text_features_there_is_no_features_lr(test_set: EvalSet, cache: Cache) -> None:
    pairs = test_set.tables.histories.assign(label=1)
    names = ["random", "features_lr"]
    assert list(scores_of(names, test_set, cache, pairs=pairs)) == ["random"]


def test_bm25_ranks_the_catalogue_by_shared_rare_words(test_set: EvalSet) -> None:
    """Against BM25 (Lucene's variant, k1=1.5, b=0.75) in ten lines, on texts of plain words."""
    n = len(test_set.tables.books)
    texts = [f"word{i % 5} word{i % 3}x extra{i}" + " filler" * (i % 4) for i in range(n)]
    query = "word1 word2x filler"
    books = test_set.tables.books.assign(book_text=texts)
    contexts = dataclasses.replace(test_set.contexts, text=[query] * len(test_set.tables.users))
    scores = baselines.bm25(with_contexts(with_tables(test_set, books=books), contexts))
    words = [t.split() for t in texts]
    mean = sum(map(len, words)) / n
    for score, book in zip(scores, test_set.rows["book"], strict=True):
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


def test_bi_encoder_is_the_cosine_to_the_mean_context_embedding(test_set: EvalSet) -> None:
    scores = baselines.bi_encoder(test_set, one_hot)
    books = test_set.tables.books["book_text"]
    context = test_set.contexts.rows.groupby("user")["book"].apply(list)
    for i in range(0, len(scores), 5):
        user, book = test_set.rows.iloc[i][["user", "book"]]
        mean = one_hot(books[context[user]].tolist()).sum(axis=0)
        expected = mean @ one_hot([books[book]])[0] / np.linalg.norm(mean)
        assert scores[i] == pytest.approx(expected, abs=1e-12)


def test_bi_encoder_top3_is_the_mean_of_the_three_nearest_context_books(
    test_set: EvalSet,
) -> None:
    def embed(texts: Sequence[str]) -> np.ndarray:
        vectors = np.stack(
            [np.random.default_rng(len(t) * 31 + ord(t[12])).normal(size=8) for t in texts]
        )
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    scores = baselines.bi_encoder_top3(test_set, embed)
    books = test_set.tables.books["book_text"]
    context = test_set.contexts.rows.groupby("user")["book"].apply(list)
    for i in range(0, len(scores), 5):
        user, book = test_set.rows.iloc[i][["user", "book"]]
        cosine = sorted(
            float(embed([books[c]])[0] @ embed([books[book]])[0]) for c in context[user]
        )
        assert scores[i] == pytest.approx(sum(cosine[-3:]) / 3, abs=1e-12)


def test_a_text_is_embedded_once(test_set: EvalSet, cache: Cache) -> None:
    embedded: list[str] = []

    def counted(texts: Sequence[str]) -> np.ndarray:
        embedded.extend(texts)
        return one_hot(texts)

    cfg = dataclasses.replace(CFG, baselines=["bi_encoder", "bi_encoder_top3"])
    made = Baselines(cfg, as_pairs(test_set), cache, embed=counted)
    dev = EvalSet.from_lists(test_set.corpus, cfg, cache, split="dev")
    first, second = made.score(test_set), made.score(dev)
    assert len(embedded) == len(set(embedded)) <= len(test_set.tables.books)
    assert np.array_equal(first["bi_encoder"], baselines.bi_encoder(test_set, one_hot))
    assert np.array_equal(second["bi_encoder_top3"], baselines.bi_encoder_top3(dev, one_hot))


def test_random_and_constant_scorers_have_the_chance_of_the_originals_lists(
    test_set: EvalSet,
) -> None:
    """The lists have 3 positives and 9 negatives. Random is within 3 standard errors."""
    n_users = 3000
    ndcg = (
        3
        / 12
        * sum(1 / math.log2(1 + i) for i in range(1, 11))
        / sum(1 / math.log2(1 + i) for i in range(1, 4))
    )
    # A positive at rank i has 2 others among 11 rows: its precision is (1 + (i - 1) 2/11) / i.
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
    lists = dataclasses.replace(test_set.lists, frame=frame)
    q = dataclasses.replace(with_tables(test_set, users=users), lists=lists)
    for scores, places in ((np.zeros(len(frame)), 1e-12), (baselines.random(q), None)):
        values = metrics.evaluate(user, frame["label"].to_numpy(), scores, cutoffs=[10])
        for column, chance in (("ap", ap), ("ndcg_10", ndcg)):
            error = places or 3 * values[column].std() / math.sqrt(n_users)
            assert values[column].mean() == pytest.approx(chance, abs=error)


def test_random_depends_only_on_ids_and_seed(test_set: EvalSet) -> None:
    scores = baselines.random(test_set)
    shuffled = test_set.rows.sample(frac=1, random_state=1)
    lists = dataclasses.replace(test_set.lists, frame=shuffled)
    again = baselines.random(dataclasses.replace(test_set, lists=lists))
    other_seed = dataclasses.replace(test_set, cfg=dataclasses.replace(CFG, seed=1))
    assert dict(zip(shuffled.index, again, strict=True)) == dict(enumerate(scores))
    assert not np.array_equal(scores, baselines.random(other_seed))


def test_scores_come_from_the_cache_the_second_time(test_set: EvalSet, cache: Cache) -> None:
    def never(texts: Sequence[str]) -> np.ndarray:
        raise AssertionError("embedded again")

    names = [name for name in config.BASELINES if name != "features_lr"]
    first = scores_of(names, test_set, cache, embed=one_hot)
    second = scores_of(names, test_set, cache, embed=never)
    assert list(first) == names
    assert all(np.array_equal(first[n], second[n]) for n in names)


def test_the_bi_encoder_embeds_on_the_given_device(
    test_set: EvalSet, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[object] = []

    def embed(texts: Sequence[str], **options: object) -> np.ndarray:
        devices.append(options["device"])
        return one_hot(texts)

    monkeypatch.setattr(baselines, "embed_texts", embed)
    cfg = dataclasses.replace(CFG, baselines=["bi_encoder"])
    Baselines(cfg, as_pairs(test_set), cache, device="cuda:1").score(test_set)
    assert devices == ["cuda:1"]
