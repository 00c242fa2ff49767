"""Metrics against scikit-learn, against every order of every tie, and against arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, ndcg_score, roc_auc_score

from reranker.eval import metrics

NAN = float("nan")
METRICS = ("ndcg_1", "ndcg_3", "ndcg_10", "ap", "mrr_10")


def one(label, score):
    """The row of `evaluate` for a single group."""
    frame = metrics.evaluate(
        np.zeros(len(label), int), np.array(label), np.array(score), cutoffs=[1, 3, 10]
    )
    return frame.iloc[0]


def random_groups(seed, n_groups, *, max_size, n_labels, n_scores, min_size=1):
    """Ragged groups; with few distinct scores, nearly all of them have ties."""
    rng = np.random.default_rng(seed)
    size = rng.integers(min_size, max_size + 1, size=n_groups)
    group = np.repeat(np.arange(n_groups), size)
    label = rng.integers(0, n_labels, size=len(group))
    score = (rng.integers(0, n_scores, size=len(group)) / 4).astype(np.float32)
    return group, label, score


# The definitions of one strict order, and their mean over all orders that the scores allow.


def dcg(labels, k):
    return sum(label / math.log2(rank + 1) for rank, label in enumerate(labels[:k], start=1))


def order_ndcg(labels, k):
    return dcg(labels, k) / dcg(sorted(labels, reverse=True), k)


def order_ap(labels):
    ranks = [rank for rank, label in enumerate(labels, start=1) if label > 0]
    return sum(hits / rank for hits, rank in enumerate(ranks, start=1)) / len(ranks)


def order_mrr(labels, k):
    first = next(rank for rank, label in enumerate(labels, start=1) if label > 0)
    return 1 / first if first <= k else 0.0


def mean_over_orders(label, score, value):
    orders = [
        o for o in itertools.permutations(range(len(label))) if all(np.diff(score[list(o)]) <= 0)
    ]
    return sum(value([int(label[i]) for i in o]) for o in orders) / len(orders)


def test_every_metric_is_its_mean_over_all_orders_of_the_ties():
    group, label, score = random_groups(0, 50, max_size=6, n_labels=3, n_scores=2)
    ranking = metrics.rank(group, label, score)
    ap, mrr_2, mrr_10 = (
        metrics.average_precision(ranking),
        metrics.mrr(ranking, 2),
        metrics.mrr(ranking, 10),
    )
    ndcg = {k: metrics.ndcg(ranking, k) for k in (1, 2, 3, 10)}
    n_checked = 0
    for g in range(50):
        own = group == g
        if not label[own].any():
            continue
        n_checked += 1
        assert ap[g] == pytest.approx(mean_over_orders(label[own], score[own], order_ap), abs=1e-12)
        for k, values in ndcg.items():
            expected = mean_over_orders(
                label[own], score[own], lambda labels, k=k: order_ndcg(labels, k)
            )
            assert values[g] == pytest.approx(expected, abs=1e-12)
        for k, values in ((2, mrr_2), (10, mrr_10)):
            expected = mean_over_orders(
                label[own], score[own], lambda labels, k=k: order_mrr(labels, k)
            )
            assert values[g] == pytest.approx(expected, abs=1e-12)
    assert n_checked > 30


rows = st.lists(
    st.tuples(st.sampled_from([0, 0, 1, 2, 0.5]), st.sampled_from([-1.5, -0.0, 0.0, 0.25, 3.0])),
    min_size=2,  # scikit-learn refuses an NDCG of one row
    max_size=15,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(groups=st.lists(rows, min_size=1, max_size=5), k=st.integers(1, 20))
def test_ndcg_equals_scikit_learn_with_ties(groups, k):
    group = np.repeat(np.arange(len(groups)), [len(g) for g in groups])
    label, score = np.array([row for g in groups for row in g], dtype=float).T
    values = metrics.ndcg(metrics.rank(group, label, score), k)
    for g in range(len(groups)):
        own = group == g
        expected = ndcg_score(label[None, own], score[None, own], k=k) if label[own].any() else NAN
        assert values[g] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_average_precision_equals_scikit_learn_without_ties():
    rng = np.random.default_rng(1)
    group, label, _ = random_groups(1, 200, max_size=30, n_labels=2, n_scores=1)
    score = rng.permutation(len(group)).astype(np.float32)
    values = metrics.average_precision(metrics.rank(group, label, score))
    for g in range(200):
        own = group == g
        expected = average_precision_score(label[own], score[own]) if label[own].any() else NAN
        assert values[g] == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_a_list_done_by_hand():
    row = one([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1])  # relevant at ranks 1 and 3
    assert row["ap"] == pytest.approx((1 + 2 / 3) / 2)
    assert row["mrr_10"] == 1
    assert row["ndcg_1"] == 1
    assert row["ndcg_3"] == pytest.approx((1 + 1 / 2) / (1 + 1 / math.log2(3)))
    assert (row["n_candidates"], row["n_positives"], row["tie_fraction"]) == (4, 2, 0)


def test_a_tie_done_by_hand():
    row = one([0, 1, 0], [0.5, 0.5, 0.1])  # relevant at rank 1 or 2, each half of the time
    assert row["ap"] == row["mrr_10"] == pytest.approx((1 + 1 / 2) / 2)
    assert row["ndcg_10"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert row["ndcg_1"] == pytest.approx(1 / 2)
    assert row["tie_fraction"] == pytest.approx(2 / 3)


def test_ndcg_gains_are_the_labels_themselves():
    row = one([1, 3], [2.0, 1.0])  # 2^label - 1 would give (1 + 7 / log2 3) / (7 + 1 / log2 3)
    assert row["ndcg_10"] == pytest.approx((1 + 3 / math.log2(3)) / (3 + 1 / math.log2(3)))


def test_mrr_is_zero_below_the_cut_off():
    label, score = np.arange(12) == 10, -np.arange(12.0)  # the one positive at rank 11
    ranking = metrics.rank(np.zeros(12, int), label, score)
    assert metrics.mrr(ranking, 10) == 0
    assert metrics.mrr(ranking, 11) == pytest.approx(1 / 11)


def test_mrr_of_a_long_tie_stays_exact():
    n, r = 100_000, 50_000
    label = np.arange(n) < r  # half of the rows relevant: nearly geometric, sum of 2^-j / j = ln 2
    ranking = metrics.rank(np.zeros(n, int), label, np.zeros(n))
    exact = sum(
        math.prod(((r - i) / (n - i)) for i in range(j - 1)) * r / (n - j + 1) / j
        for j in range(1, 200)
    )
    assert metrics.mrr(ranking, 200)[0] == pytest.approx(exact, rel=1e-12)
    assert exact == pytest.approx(math.log(2), rel=1e-4)


def test_an_oracle_gets_one():
    group, label, _ = random_groups(2, 100, max_size=25, n_labels=4, n_scores=1)
    frame = metrics.evaluate(group, label, label.astype(float), cutoffs=[1, 3, 10])
    frame = frame[frame.n_positives > 0]
    assert len(frame) > 80
    np.testing.assert_allclose(frame[list(METRICS)], 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("n_positives", "n_negatives"), [(1, 1), (3, 9), (2, 20), (4, 7)])
def test_positives_at_the_very_end_give_the_minimum(n_positives, n_negatives):
    n = n_positives + n_negatives
    row = one([1] * n_positives + [0] * n_negatives, np.arange(n))
    last = range(n_negatives + 1, n + 1)
    ideal = sum(1 / math.log2(rank + 1) for rank in range(1, n_positives + 1))
    assert row["ap"] == pytest.approx(
        sum(i / rank for i, rank in enumerate(last, start=1)) / n_positives
    )
    assert row["mrr_10"] == pytest.approx(1 / last[0] if last[0] <= 10 else 0)
    assert row["ndcg_10"] == pytest.approx(
        sum(1 / math.log2(rank + 1) for rank in last if rank <= 10) / ideal
    )


@pytest.mark.parametrize(("n_positives", "n_negatives"), [(3, 9), (3, 15), (3, 97), (1, 99)])
def test_a_constant_scorer_gets_chance(n_positives, n_negatives):
    p, n = n_positives, n_positives + n_negatives
    row = one([1] * p + [0] * n_negatives, np.full(n, 0.3))
    harmonic = sum(1 / rank for rank in range(1, n + 1))
    discounts = [1 / math.log2(rank + 1) for rank in range(1, n + 1)]
    # With a positive at rank t, 1 + (t - 1) (p - 1) / (n - 1) relevant rows are expected down to
    # rank t. t is uniform.
    assert row["ap"] == pytest.approx(
        (harmonic + (n - harmonic) * (p - 1) / (n - 1)) / n, rel=1e-12
    )
    assert row["ndcg_10"] == pytest.approx(
        p / n * sum(discounts[:10]) / sum(discounts[:p]), rel=1e-12
    )
    first = sum(
        math.comb(n - t, p - 1) / math.comb(n, p) / t
        for t in range(1, min(10, n_negatives + 1) + 1)
    )
    assert row["mrr_10"] == pytest.approx(first, rel=1e-12)
    assert row["tie_fraction"] == 1


@pytest.mark.parametrize(
    ("n_positives", "n_negatives", "ndcg_10", "ap"),
    [(3, 9, 0.533, 0.393), (3, 15, 0.355, 0.289), (3, 97, 0.064, 0.071), (1, 99, 0.045, 0.052)],
)
def test_chance_depends_on_the_list_as_the_known_table_says(n_positives, n_negatives, ndcg_10, ap):
    row = one([1] * n_positives + [0] * n_negatives, np.zeros(n_positives + n_negatives))
    assert (round(row["ndcg_10"], 3), round(row["ap"], 3)) == (ndcg_10, ap)


def test_chance_is_the_mean_of_random_scores():
    n_groups, n, p = 20_000, 12, 3
    group, label = np.repeat(np.arange(n_groups), n), np.tile(np.arange(n) < p, n_groups)
    random = metrics.evaluate(
        group, label, np.random.default_rng(3).random(n_groups * n), cutoffs=[1, 3, 10]
    )
    constant = one([1] * p + [0] * (n - p), np.zeros(n))
    for name in METRICS:
        error = random[name].std() / math.sqrt(n_groups)
        assert random[name].mean() == pytest.approx(constant[name], abs=4 * error)


def test_order_of_rows_changes_nothing():
    group, label, score = random_groups(4, 300, max_size=20, n_labels=3, n_scores=5)
    order = np.random.default_rng(4).permutation(len(group))
    frame = metrics.evaluate(group, label, score, cutoffs=[3, 10])
    assert metrics.evaluate(group[order], label[order], score[order], cutoffs=[3, 10]).equals(frame)


def test_groups_come_back_in_ascending_order_of_id_each_with_its_own_values():
    group, label, score = random_groups(5, 50, max_size=9, n_labels=2, n_scores=4)
    renamed = np.random.default_rng(5).permutation(1000)[:50][group] - 500
    frame = metrics.evaluate(renamed, label, score, cutoffs=[3])
    assert frame.group.is_monotonic_increasing
    for row in frame.itertuples():
        own = renamed == row.group
        alone = metrics.evaluate(renamed[own], label[own], score[own], cutoffs=[3])
        np.testing.assert_allclose(frame.loc[[row.Index]], alone, rtol=0, atol=1e-12)


def test_a_group_without_positives_has_no_value_and_does_not_affect_others():
    group, label, score = np.array([1, 1, 2, 2, 3, 3]), np.array([0, 1, 0, 0, 1, 0]), np.arange(6.0)
    frame = metrics.evaluate(group, label, score, cutoffs=[3])
    np.testing.assert_array_equal(frame["ap"], [1, NAN, 0.5])
    np.testing.assert_array_equal(frame["mrr_10"], [1, NAN, 0.5])
    np.testing.assert_allclose(frame["ndcg_3"], [1, NAN, 1 / math.log2(3)])
    np.testing.assert_array_equal(frame["n_positives"], [1, 0, 1])
    np.testing.assert_array_equal(frame["tie_fraction"], [0, 0, 0])


def test_one_candidate_and_only_positives_are_defined():
    frame = metrics.evaluate(
        np.array([1, 2, 2]), np.array([1, 2, 1]), np.array([0.0, 1, 2]), cutoffs=[10]
    )
    np.testing.assert_array_equal(frame["ap"], [1, 1])
    np.testing.assert_array_equal(frame["mrr_10"], [1, 1])
    np.testing.assert_allclose(
        frame["ndcg_10"], [1, (1 + 2 / math.log2(3)) / (2 + 1 / math.log2(3))]
    )


def test_no_rows_give_no_groups():
    nothing = np.array([], dtype=int)
    frame = metrics.evaluate(nothing, nothing, nothing.astype(float), cutoffs=[3])
    assert (len(frame), "ndcg_3" in frame) == (0, True)
    assert metrics.curves(nothing, nothing, nothing.astype(float), max_k=4)[1].shape == (0, 4)


def test_minus_zero_ties_with_zero():
    row = one([0, 1], [0.0, -0.0])
    assert (row["tie_fraction"], row["mrr_10"]) == (1, 0.75)


def test_scores_that_are_equal_in_float32_are_tied():
    assert one([0, 1], [1.0, 1.0 + 1e-9])["tie_fraction"] == 1
    assert one([0, 1], [1.0, 1.0 + 1e-6])["mrr_10"] == 1


def test_equal_scores_tie_within_a_group_only():
    frame = metrics.evaluate(
        np.array([1, 2, 2]), np.array([1, 1, 0]), np.array([0.5, 0.5, 0.1]), cutoffs=[3]
    )
    np.testing.assert_array_equal(frame["tie_fraction"], [0, 0])


def test_evaluate_gives_the_columns_that_reports_read():
    columns = list(
        metrics.evaluate(np.zeros(2, int), np.array([0, 1]), np.array([0.0, 1]), cutoffs=[5, 2])
    )
    expected = [
        "group",
        "n_candidates",
        "n_positives",
        "tie_fraction",
        "ap",
        "ndcg_5",
        "ndcg_2",
        "mrr_10",
    ]
    assert columns == [*expected, "recall_10", "hit_10", "precision_10", "ndcg_exp_10"]


def test_the_curves_are_ndcg_and_average_precision_at_every_cut_off():
    group, label, score = random_groups(6, 60, max_size=30, n_labels=3, n_scores=6)
    ndcg, ap = metrics.curves(group, label, score)
    ranking = metrics.rank(group, label, score)
    assert ndcg.shape == ap.shape == (60, 20)
    for k in range(1, 21):
        np.testing.assert_array_equal(ndcg[:, k - 1], metrics.ndcg(ranking, k))
        np.testing.assert_array_equal(ap[:, k - 1], metrics.average_precision_at(ranking, k))


def test_average_precision_at_k_divides_by_the_smaller_of_k_and_the_positives():
    ranking = metrics.rank([0] * 4, [1, 0, 1, 1], [0.9, 0.8, 0.7, 0.6])
    for k, expected in ((1, 1), (2, 1 / 2), (3, (1 + 2 / 3) / 3), (4, (1 + 2 / 3 + 3 / 4) / 3)):
        assert metrics.average_precision_at(ranking, k) == pytest.approx([expected])


@given(
    label=st.lists(st.integers(0, 1), min_size=1, max_size=7).filter(any),
    k=st.integers(1, 8),
    data=st.data(),
)
def test_average_precision_at_k_is_the_mean_over_all_orders_of_tied_rows(label, k, data):
    """Reference: every order of the rows that the scores allow, one at a time."""
    score = data.draw(st.lists(st.integers(0, 2), min_size=len(label), max_size=len(label)))
    orders = [
        order
        for order in itertools.permutations(range(len(label)))
        if all(score[a] >= score[b] for a, b in itertools.pairwise(order))
    ]
    values = []
    for order in orders:
        hits = np.cumsum([label[i] for i in order])
        terms = [hits[j] / (j + 1) for j, i in enumerate(order[:k]) if label[i]]
        values.append(sum(terms) / min(k, sum(label)))
    ranking = metrics.rank([0] * len(label), label, np.array(score, dtype=float))
    assert metrics.average_precision_at(ranking, k) == pytest.approx([np.mean(values)])
    if k >= len(label):
        expected = metrics.average_precision(ranking)
        assert metrics.average_precision_at(ranking, k) == pytest.approx(expected)


def test_the_global_metrics_are_scikit_learns_over_all_rows():
    _, label, score = random_groups(7, 40, max_size=9, n_labels=3, n_scores=5)
    assert metrics.auc(label, score) == roc_auc_score(label > 0, score)
    assert metrics.global_average_precision(label, score) == average_precision_score(
        label > 0, score
    )


def test_the_global_metrics_done_by_hand():
    label, score = np.array([1, 0, 1, 0]), np.array([3.0, 2, 1, 1])
    assert metrics.auc(label, score) == pytest.approx(
        (2 + 0.5) / 4
    )  # the pair tied at 1 counts half
    assert metrics.global_average_precision(label, score) == pytest.approx(
        (1 + 2 / 4) / 2
    )  # that tie ends at rank 4


def test_the_global_metrics_have_no_value_for_one_class():
    score = np.array([0.1, 0.2])
    assert math.isnan(metrics.auc(np.array([0, 0]), score))
    assert math.isnan(metrics.auc(np.array([1, 1]), score))
    assert math.isnan(metrics.global_average_precision(np.array([0, 0]), score))
    assert metrics.global_average_precision(np.array([1, 1]), score) == 1


@pytest.mark.parametrize(
    ("label", "score", "message"),
    [
        (
            [0, 1, 1],
            [0.0, NAN, math.inf],
            r"2 of 3 scores are NaN or infinite in float32 \(first: row 1, value nan\)",
        ),
        ([0, 1, 1], [0.0, 1.0, 1e300], r"1 of 3 scores .* \(first: row 2, value 1e\+300\)"),
        (
            [0, -1, -2],
            [0.0, 1.0, 2.0],
            r"2 of 3 labels are negative, NaN or infinite \(first: row 1, value -1\)",
        ),
        ([0, NAN, 1], [0.0, 1.0, 2.0], r"1 of 3 labels .* \(first: row 1, value nan\)"),
        ([0, 1], [0.0, 1.0, 2.0], r"label has shape \(2,\), score has \(3,\)"),
        ([[0, 1, 1]], [[0.0, 1.0, 2.0]], r"must be \(n_pairs,\)"),
    ],
)
def test_impossible_rows_are_refused_by_count_and_first_row(label, score, message):
    label, score = np.array(label), np.array(score)
    with pytest.raises(ValueError, match=message):
        metrics.evaluate(np.zeros(3, int), label, score, cutoffs=[3])
    with pytest.raises(ValueError, match=message):
        metrics.auc(label, score)
    with pytest.raises(ValueError, match=message):
        metrics.global_average_precision(label, score)


def test_a_group_column_of_another_length_is_refused():
    with pytest.raises(ValueError, match=r"group has shape \(2,\), label and score have \(3,\)"):
        metrics.rank(np.zeros(2, int), np.array([0, 1, 1]), np.arange(3.0))


def test_a_cut_off_below_one_is_refused():
    group, label, score = np.zeros(2, int), np.array([0, 1]), np.arange(2.0)
    ranking = metrics.rank(group, label, score)
    for call in (
        lambda: metrics.ndcg(ranking, 0),
        lambda: metrics.mrr(ranking, 0),
        lambda: metrics.evaluate(group, label, score, cutoffs=[3, 0]),
        lambda: metrics.curves(group, label, score, max_k=0),
    ):
        with pytest.raises(ValueError, match="k=0 is not a cut-off rank"):
            call()
