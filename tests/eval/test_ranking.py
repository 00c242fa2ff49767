"""Metrics on 1e5 random lists equal all orders of ties, scikit-learn and pytrec_eval."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, ndcg_score

from reranker.eval import metrics, ranking

K = 2  # cut-off that lists of 2 to 5 rows reach
METRICS = [
    "ap",
    "ndcg_3",
    "ndcg_10",
    "mrr_10",
    "recall_10",
    "hit_10",
    "precision_10",
    "ndcg_exp_10",
]


def lists(seed, n_lists, size, *, n_labels=4, n_scores=None):
    """Return (n_lists, size) labels and scores; `n_scores` is the number of distinct scores."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, n_labels, size=(n_lists, size))
    untied = rng.permuted(np.tile(np.arange(size), (n_lists, 1)), axis=1)
    score = untied if n_scores is None else rng.integers(0, n_scores, size=(n_lists, size))
    return label, score.astype(np.float32)


def ranked(label, score):
    return metrics.rank(
        np.repeat(np.arange(len(label)), label.shape[1]), label.ravel(), score.ravel()
    )


def ours(r, k):
    """(n_lists, 7) values of every metric at k."""
    at_k = [
        f(r, k) for f in (metrics.ndcg, metrics.mrr, metrics.recall, metrics.hit, metrics.precision)
    ]
    exponential = metrics.ndcg(r, k, gain="exponential")
    return np.stack([metrics.average_precision(r), *at_k, exponential], axis=1)


def of_order(label, k):
    """Return (n_lists, 7) as `ours`, by definition, for lists whose rows are in rank order."""
    rank = np.arange(1, label.shape[1] + 1)
    relevant, best = label > 0, -np.sort(-label, axis=1)
    n, top = relevant.sum(axis=1), relevant[:, :k]
    discount = 1 / np.log2(rank + 1)[:k]
    linear = (label[:, :k] @ discount) / (best[:, :k] @ discount)
    exponential = ((2.0**label - 1)[:, :k] @ discount) / ((2.0**best - 1)[:, :k] @ discount)
    ap = (relevant * np.cumsum(relevant, axis=1) / rank).sum(axis=1) / n
    mrr = np.where(top.any(axis=1), 1 / (1 + top.argmax(axis=1)), 0)
    hits = top.sum(axis=1)
    return np.stack([ap, linear, mrr, hits / n, hits > 0, hits / k, exponential], axis=1)


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_every_metric_of_25_000_tied_lists_is_its_mean_over_all_orders(size):
    label, score = lists(size, 25_000, size, n_scores=3)
    total, n_orders = np.zeros((25_000, 7)), np.zeros((25_000, 1))
    with np.errstate(invalid="ignore"):  # lists without positives: 0 / 0
        for order in itertools.permutations(range(size)):
            allowed = (np.diff(score[:, order], axis=1) <= 0).all(axis=1)
            total[allowed] += of_order(label[allowed][:, order], K)
            n_orders[allowed] += 1
    assert (n_orders > 1).mean() > 0.3
    np.testing.assert_allclose(
        ours(ranked(label, score), K), _or_nan(label, total / n_orders), rtol=0, atol=1e-12
    )


def _or_nan(label, values):
    return np.where((label > 0).any(axis=1)[:, None], values, np.nan)


@pytest.mark.parametrize("size", range(3, 13))
def test_ndcg_of_10_000_lists_is_scikit_learns_without_ties(size):
    label, score = lists(20 + size, 10_000, size)
    value = metrics.ndcg(ranked(label, score), 5)
    found = ~np.isnan(value)
    assert (found == (label > 0).any(axis=1)).all()
    assert value[found].mean() == pytest.approx(
        ndcg_score(label[found], score[found], k=5, ignore_ties=True), abs=1e-12
    )


def test_single_lists_are_scikit_learns():
    label, score = lists(40, 300, 12, n_scores=5)
    tied = metrics.ndcg(ranked(label, score), 5)
    assert not np.isnan(tied).any()
    expected = [ndcg_score(y[None], s[None], k=5) for y, s in zip(label, score, strict=True)]
    np.testing.assert_allclose(tied, expected, rtol=0, atol=1e-12)
    label, score = lists(41, 100, 12)
    expected = [average_precision_score(y > 0, s) for y, s in zip(label, score, strict=True)]
    np.testing.assert_allclose(
        metrics.average_precision(ranked(label, score)), expected, rtol=0, atol=1e-12
    )


def test_10_000_lists_are_pytrec_evals_without_ties():
    trec = pytest.importorskip("pytrec_eval")
    label, score = lists(42, 10_000, 12)
    kept = (label > 0).any(axis=1)
    label, score = label[kept], score[kept]
    books = [str(i) for i in range(12)]
    qrel, run = (
        {str(i): dict(zip(books, row, strict=True)) for i, row in enumerate(values.tolist())}
        for values in (label, score)
    )
    names = ["map", "ndcg_cut_5", "recall_5", "success_5", "P_5"]
    found = trec.RelevanceEvaluator(
        qrel, {"map", "ndcg_cut.5", "recall.5", "success.5", "P.5"}
    ).evaluate(run)
    theirs = np.array([[found[str(i)][name] for name in names] for i in range(len(label))])
    mine = ours(ranked(label, score), 5)[:, [0, 1, 3, 4, 5]]
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)


def test_an_oracle_gets_the_maximum_of_every_metric():
    label, _ = lists(43, 500, 14)
    frame = metrics.evaluate(
        np.repeat(np.arange(500), 14), label.ravel(), label.ravel().astype(float), cutoffs=[3, 10]
    )
    n = frame.pop("n_positives").to_numpy()
    assert (n > 10).any()  # more than fit into the first 10 rows
    np.testing.assert_allclose(frame.pop("recall_10"), np.minimum(10 / n, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame.pop("precision_10"), np.minimum(n / 10, 1), rtol=0, atol=1e-12)
    np.testing.assert_allclose(frame[[m for m in METRICS if m in frame]], 1, rtol=0, atol=1e-12)


def test_a_reversed_scorer_gets_the_minimum_of_every_metric():
    label, score = lists(44, 300, 12, n_labels=3)
    group = np.repeat(np.arange(300), 12)
    worst = metrics.evaluate(group, label.ravel(), -label.ravel().astype(float), cutoffs=[3, 10])[
        METRICS
    ]
    other = metrics.evaluate(group, label.ravel(), score.ravel(), cutoffs=[3, 10])[METRICS]
    assert (worst <= other + 1e-12).all(axis=None)
    last = np.array([[0] * 9 + [1] * 3])
    values = ours(ranked(last, -np.arange(12.0)[None].astype(np.float32)), 10)[0]
    dcg, ideal = 1 / np.log2(11), sum(1 / np.log2([2, 3, 4]))
    expected = [(1 / 10 + 2 / 11 + 3 / 12) / 3, dcg / ideal, 1 / 10, 1 / 3, 1, 1 / 10, dcg / ideal]
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)


def test_chance_is_arithmetic_where_it_is_easy_and_the_mean_of_random_scores_everywhere():
    n, r, n_lists = 25, 4, 20_000
    row = metrics.chance(np.zeros(n, int), np.arange(n) < r, cutoffs=[3, 10]).iloc[0]
    assert row["recall_10"] == pytest.approx(10 / n)
    assert row["precision_10"] == pytest.approx(r / n)
    none = np.prod([(n - r - i) / (n - i) for i in range(10)])
    assert row["hit_10"] == pytest.approx(1 - none)
    label = np.tile(np.arange(n) < r, n_lists) * np.tile(np.arange(n) % 3 + 1, n_lists)
    group = np.repeat(np.arange(n_lists), n)
    score = np.random.default_rng(45).random(len(group))
    random = metrics.evaluate(group, label, score, cutoffs=[3, 10])[METRICS]
    graded = metrics.chance(group[:n], label[:n], cutoffs=[3, 10])[METRICS].iloc[0]
    error = random.std() / np.sqrt(n_lists)
    assert ((random.mean() - graded).abs() < 4 * error).all()


def test_renaming_groups_and_reordering_rows_changes_no_value():
    label, score = lists(46, 2000, 7, n_scores=4)
    group, rng = np.repeat(np.arange(2000), 7), np.random.default_rng(46)
    name = rng.permutation(10**12 + np.arange(2000) * 10**6)
    row = rng.permutation(len(group))
    plain = metrics.evaluate(group, label.ravel(), score.ravel(), cutoffs=[3, 10])
    renamed = metrics.evaluate(
        name[group][row], label.ravel()[row], score.ravel()[row], cutoffs=[3, 10]
    )
    assert renamed["group"].tolist() == sorted(name)
    assert (
        plain.drop(columns="group")
        .iloc[np.argsort(name)]
        .reset_index(drop=True)
        .equals(renamed.drop(columns="group"))
    )


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int64, np.uint64, str])
def test_ids_of_any_type_come_back_ascending(dtype):
    ids = np.array([7, 120, 3]).astype(dtype)
    frame = metrics.evaluate(np.repeat(ids, 2), np.array([1, 0] * 3), np.arange(6.0), cutoffs=[3])
    assert frame["group"].tolist() == np.sort(ids).tolist()


def test_the_widest_ids_do_not_wrap():
    ends = np.array([np.iinfo(np.int64).min, np.iinfo(np.int64).max])
    assert metrics.rank(ends, np.array([1, 0]), np.zeros(2)).group.tolist() == ends.tolist()
    bytes_ = np.repeat(np.arange(-128, 128).astype(np.int8), 2)
    ordered = metrics.rank(bytes_, np.tile([1, 0], 256), np.zeros(512))
    assert ordered.group.tolist() == list(range(-128, 128))
    assert (ordered.n_positives == 1).all()


@pytest.mark.parametrize("scale", [1, 0.37])
def test_both_sorts_give_the_same_ranking(monkeypatch, scale):
    label, score = lists(47, 300, 9, n_scores=6)
    packed = ranked(label * scale, score)
    monkeypatch.setattr(ranking, "KEY_BITS", 0)
    other = ranked(label * scale, score)
    for name in vars(packed):
        np.testing.assert_array_equal(getattr(packed, name), getattr(other, name), err_msg=name)


def test_scores_of_every_sign_and_size_keep_their_order():
    score = np.array(
        [-np.float32(3e38), -1.0, -1e-40, 0.0, 1e-45, 1e-40, 0.5, 2.0, 3e38], dtype=np.float32
    )
    for i in range(len(score)):
        value = metrics.mrr(
            metrics.rank(np.zeros(len(score), int), np.arange(len(score)) == i, score), 20
        )
        assert value[0] == pytest.approx(1 / (len(score) - i))


def test_a_label_too_large_for_exponential_gain_is_refused():
    r = metrics.rank(np.zeros(2, int), np.array([0, 1001]), np.arange(2.0))
    with pytest.raises(
        ValueError, match="label 1001 is too large for exponential gain; at most 1000"
    ):
        metrics.ndcg(r, 3, gain="exponential")
