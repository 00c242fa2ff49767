"""Intervals and tests against the sampling distributions that they claim, and against scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reranker.eval import metrics, statistics
from reranker.eval.statistics import (
    bootstrap_mean,
    effect_size,
    holm,
    minimal_detectable_difference,
    over_seeds,
    paired_lift,
    paired_permutation,
    users_needed,
    wins_ties_losses,
)

NAN = float("nan")


def test_intervals_cover_the_true_mean_as_often_as_a_percentile_interval_can():
    n_simulations, n = 1000, 40
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(n_simulations):
        _, low, high = bootstrap_mean(rng.normal(1.5, 2, size=n), n_resamples=500, seed=seed)
        hits += low <= 1.5 <= high
    # The bootstrap divides by n, not n - 1, and its quantiles are normal, not Student's.
    coverage = 2 * stats.t(n - 1).cdf(stats.norm.ppf(0.975) * math.sqrt((n - 1) / n)) - 1
    least, most = stats.binom(n_simulations, coverage).interval(0.999)
    assert least <= hits <= most


def test_the_interval_is_scipys_percentile_interval():
    values = np.random.default_rng(1).beta(0.5, 2, size=60)
    _, low, high = bootstrap_mean(values, n_resamples=20_000, seed=0)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile"
    ).confidence_interval
    noise = 0.03 * (
        high - low
    )  # an end's standard error is about 0.5 % of the width at 20,000 resamples
    assert low == pytest.approx(theirs.low, abs=noise)
    assert high == pytest.approx(theirs.high, abs=noise)


def test_two_users_give_the_ends_that_enumeration_gives():
    # With two users, a resample's mean is 0, 0.5 or 1 with probability 1/4, 1/2, 1/4.
    assert bootstrap_mean(np.array([0.0, 1.0]), n_resamples=2000, seed=0) == (0.5, 0.0, 1.0)


@pytest.mark.parametrize("n_users", [2, 7, 129, 5000])
def test_a_constant_has_no_width(n_users):
    for value in (0.0, 0.1, 1 / 3):
        mean, low, high = bootstrap_mean(np.full(n_users, value), n_resamples=200, seed=0)
        assert low == mean == high == pytest.approx(value, rel=1e-12)


def test_users_without_a_value_are_left_out():
    values = np.random.default_rng(2).random(30)
    with_gaps = np.insert(values, [0, 10, 30], NAN)
    expected = bootstrap_mean(values, n_resamples=300, seed=5)
    assert bootstrap_mean(with_gaps, n_resamples=300, seed=5) == expected
    assert expected[0] == pytest.approx(values.mean())


@pytest.mark.parametrize(
    ("values", "mean"), [([], NAN), ([NAN, NAN], NAN), ([0.4], 0.4), ([NAN, 0.4], 0.4)]
)
def test_fewer_than_two_users_have_no_interval(values, mean):
    result = bootstrap_mean(np.array(values), n_resamples=200, seed=0)
    np.testing.assert_array_equal(result, [mean, NAN, NAN])


def test_the_seed_decides_the_interval_and_nothing_else_does(monkeypatch):
    values = np.random.default_rng(3).random(41)
    first = bootstrap_mean(values, n_resamples=300, seed=7)
    assert bootstrap_mean(values, n_resamples=300, seed=7) == first
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert bootstrap_mean(values, n_resamples=300, seed=7) == first
    assert bootstrap_mean(values, n_resamples=300, seed=8)[1:] != first[1:]


def test_paired_lift_is_the_bootstrap_of_the_differences():
    rng = np.random.default_rng(4)
    theirs = rng.random(80)
    ours = theirs + rng.normal(0.05, 0.02, size=80)
    lift = paired_lift(ours, theirs, n_resamples=500, seed=1)
    assert lift == bootstrap_mean(ours - theirs, n_resamples=500, seed=1)
    assert lift[0] == pytest.approx(ours.mean() - theirs.mean())


def test_pairing_removes_what_users_share():
    rng = np.random.default_rng(5)
    difficulty = rng.normal(0, 1, size=200)
    ours, theirs = difficulty + rng.normal(0.1, 0.1, size=200), difficulty
    _, low, high = paired_lift(ours, theirs, n_resamples=2000, seed=0)
    width = 2 * 1.96 * 0.1 / math.sqrt(200)  # unpaired, the deviation would be 1.4, not 0.1
    assert high - low == pytest.approx(width, rel=0.2)


def test_paired_lift_uses_users_with_both_values_only():
    ours, theirs = np.array([1.0, NAN, 0.5, 0.7]), np.array([0.5, 0.5, NAN, 0.6])
    lift = paired_lift(ours, theirs, n_resamples=200, seed=0)
    assert lift == bootstrap_mean(np.array([0.5, 0.7 - 0.6]), n_resamples=200, seed=0)
    assert lift[0] == pytest.approx(0.3)


def test_unequal_shapes_are_refused():
    with pytest.raises(ValueError, match=r"ours has shape \(3,\), theirs \(2,\)"):
        paired_lift(np.zeros(3), np.zeros(2), n_resamples=200, seed=0)
    with pytest.raises(ValueError, match=r"values has shape \(3, 1\)"):
        bootstrap_mean(np.zeros((3, 1)), n_resamples=200, seed=0)


# Comparing two scorers: two copies of one model, and one of them made better.


def user_values(rng, n_simulations, n_users, *, n_candidates=12, n_positives=3):
    """Return (2, n_simulations, n_users) NDCG@10 of a model whose scores are noisy."""
    label = np.tile(np.arange(n_candidates) < n_positives, n_simulations * n_users)
    user = np.repeat(np.arange(n_simulations * n_users), n_candidates)
    signal = label + rng.normal(size=len(label))
    copies = (
        metrics.ndcg(metrics.rank(user, label, signal + rng.normal(size=len(label))), 10)
        for _ in range(2)
    )
    return np.stack([copy.reshape(n_simulations, n_users) for copy in copies])


def test_two_copies_of_one_model_differ_as_often_as_the_level_says():
    n_simulations = 1000
    ours, theirs = user_values(np.random.default_rng(6), n_simulations, 60)
    p = [
        paired_permutation(a, b, n_permutations=199, seed=i)
        for i, (a, b) in enumerate(zip(ours, theirs, strict=True))
    ]
    least, most = stats.binom(n_simulations, 0.05).interval(0.95)
    assert least <= (np.array(p) <= 0.05).sum() <= most


@pytest.mark.parametrize("n_users", [20, 80])
def test_a_planted_detectable_difference_is_found_with_the_power_that_is_reported(n_users):
    n_simulations, rng = 1000, np.random.default_rng(7)
    differences = rng.normal(size=(n_simulations, n_users))
    pilot = np.sqrt((n_users - 1) / n_users) * np.where(
        np.arange(n_users) % 2, 1.0, -1.0
    )  # deviation 1 exactly
    planted, zeros = minimal_detectable_difference(pilot), np.zeros(n_users)
    p = [
        paired_permutation(d + planted, zeros, n_permutations=999, seed=i)
        for i, d in enumerate(differences)
    ]
    least, most = stats.binom(n_simulations, 0.8).interval(0.95)
    assert least <= (np.array(p) <= 0.05).sum() <= most


def test_power_holds_for_users_of_a_real_metric():
    n_simulations, n_users, rng = 1000, 80, np.random.default_rng(8)
    ours, theirs = user_values(rng, 1, n_users)
    population = (ours - theirs)[0] - (
        ours - theirs
    ).mean()  # drawn from, its deviation divides by n, not n - 1
    planted = minimal_detectable_difference(population) * math.sqrt((n_users - 1) / n_users)
    draws = rng.choice(population, size=(n_simulations, n_users)) + planted
    p = [
        paired_permutation(d, np.zeros(n_users), n_permutations=999, seed=i)
        for i, d in enumerate(draws)
    ]
    least, most = stats.binom(n_simulations, 0.8).interval(0.95)
    assert least <= (np.array(p) <= 0.05).sum() <= most


def test_the_permutation_test_is_scipys_over_all_sign_flips():
    differences = np.random.default_rng(9).normal(0.4, 1, size=12)
    exact = stats.permutation_test(
        (differences,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    p = paired_permutation(differences, np.zeros(12), n_permutations=20_000, seed=0)
    assert p == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))
    assert paired_permutation(-differences, np.zeros(12), n_permutations=20_000, seed=0) == p


def test_permutation_counts_the_observed_signs_and_leaves_out_users_without_a_value(monkeypatch):
    far = np.full(40, 0.5)  # every other pattern of signs is nearer to 0
    assert paired_permutation(far, 0 * far, n_permutations=99, seed=0) == 1 / 100
    assert paired_permutation(far, far, n_permutations=99, seed=0) == 1
    assert math.isnan(paired_permutation(np.array([NAN]), np.zeros(1), n_permutations=99, seed=0))
    rng = np.random.default_rng(10)
    ours, theirs = rng.random(70) + 0.05, rng.random(70)
    p = paired_permutation(ours, theirs, n_permutations=500, seed=3)
    gaps = np.insert(ours, [0, 70], NAN), np.insert(theirs, [0, 70], 0.5)
    assert paired_permutation(*gaps, n_permutations=500, seed=3) == p
    monkeypatch.setattr(statistics, "CHUNK", 100)
    assert paired_permutation(ours, theirs, n_permutations=500, seed=3) == p


def test_holm_done_by_hand():
    # Ascending: .01 * 3, then max(.03, .02 * 2), then max(.04, .03 * 1).
    np.testing.assert_allclose(holm(np.array([0.02, NAN, 0.03, 0.01])), [0.04, NAN, 0.04, 0.03])
    np.testing.assert_allclose(holm(np.array([0.9, 0.6])), [1, 1])
    assert holm(np.array([])).shape == (0,)


def test_holm_keeps_the_family_at_its_level():
    p = np.random.default_rng(11).random((1000, 8))
    n_false = sum((holm(row) <= 0.05).any() for row in p)
    least, most = stats.binom(1000, 1 - (1 - 0.05 / 8) ** 8).interval(0.99)
    assert least <= n_false <= most


def test_the_effect_size_is_the_paired_t_over_the_root_of_n():
    rng = np.random.default_rng(12)
    ours, theirs = rng.normal(0.3, 1, size=50), rng.normal(size=50)
    assert effect_size(ours, theirs) == pytest.approx(
        stats.ttest_rel(ours, theirs).statistic / math.sqrt(50)
    )
    assert effect_size(np.append(ours, NAN), np.append(theirs, 1)) == effect_size(ours, theirs)
    assert effect_size(ours, ours) == 0
    assert effect_size(theirs - 1, theirs) == -math.inf
    assert math.isnan(effect_size(np.array([1.0, NAN]), np.zeros(2)))


def test_wins_ties_and_losses_count_users_with_both_values():
    ours, theirs = np.array([1, 0.1 + 0.2, 0.2, NAN, 0.5]), np.array([0.5, 0.3, 0.4, 0.1, NAN])
    assert wins_ties_losses(ours, theirs) == (1, 1, 1)


def test_users_needed_is_the_least_number_that_detects_the_difference():
    differences = np.append(np.random.default_rng(13).normal(size=30), NAN)
    s = np.nanstd(differences, ddof=1)
    for aim in (0.05, -0.4, 3.0):
        n = int(users_needed(differences, aim))
        detectable = [
            (stats.t.ppf(0.975, m - 1) + stats.t.ppf(0.8, m - 1)) * s / math.sqrt(m)
            for m in (n, n - 1)
        ]
        assert detectable[0] <= abs(aim) < detectable[1]
    assert users_needed(differences, minimal_detectable_difference(differences) + 1e-9) == 30
    assert users_needed(differences, 0.0) == math.inf
    assert users_needed(np.full(5, 0.1), 0.1) == 2
    assert minimal_detectable_difference(np.full(5, 0.1)) == 0
    assert math.isnan(users_needed(np.array([0.3, NAN]), 0.1))
    assert math.isnan(users_needed(differences, NAN))
    assert math.isnan(minimal_detectable_difference(np.array([0.3])))


def test_more_power_or_a_stricter_level_needs_more_users():
    differences = np.random.default_rng(14).normal(size=30)
    usual = users_needed(differences, 0.2)
    assert users_needed(differences, 0.2, power=0.9) > usual
    assert users_needed(differences, 0.2, alpha=0.01) > usual


def test_one_seed_over_seeds_is_the_bootstrap_of_users():
    values = np.random.default_rng(15).random(40)
    assert over_seeds(values[None], n_resamples=300, seed=2) == bootstrap_mean(
        values, n_resamples=300, seed=2
    )


def test_seeds_that_agree_have_the_users_interval_and_seeds_that_differ_a_wider_one():
    values = np.random.default_rng(16).random(40)
    users = bootstrap_mean(values, n_resamples=300, seed=2)
    assert over_seeds(np.tile(values, (5, 1)), n_resamples=300, seed=2) == pytest.approx(
        users, abs=1e-12
    )
    shift = np.array([-0.5, -0.25, 0, 0.25, 0.5])
    mean, low, high = over_seeds(values + shift[:, None], n_resamples=4000, seed=2)
    assert mean == pytest.approx(users[0])
    expected = math.hypot(
        values.std() / math.sqrt(40), shift.std() / math.sqrt(5)
    )  # both parts, independent
    assert high - low == pytest.approx(2 * 1.96 * expected, rel=0.05)


def test_over_seeds_leaves_out_users_that_a_seed_has_no_value_for():
    values = np.random.default_rng(17).random((3, 20))
    with_gaps = np.insert(values, [0, 20], 0.9, axis=1)
    with_gaps[1, [0, -1]] = NAN
    assert over_seeds(with_gaps, n_resamples=200, seed=0) == over_seeds(
        values, n_resamples=200, seed=0
    )
    mean, low, high = over_seeds(np.array([[0.2, NAN], [0.4, NAN]]), n_resamples=200, seed=0)
    assert mean == pytest.approx(0.3)
    assert math.isnan(low)
    assert math.isnan(high)


def test_comparisons_of_unequal_shapes_are_refused():
    for compare in (
        effect_size,
        wins_ties_losses,
        lambda a, b: paired_permutation(a, b, n_permutations=9, seed=0),
    ):
        with pytest.raises(ValueError, match=r"ours has shape \(3,\), theirs \(2,\)"):
            compare(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match=r"values has shape \(3,\)"):
        over_seeds(np.zeros(3), n_resamples=200, seed=0)
