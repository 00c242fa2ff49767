"""Intervals against the sampling distribution that they claim to cover, and against scipy's bootstrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from reranker.eval import statistics
from reranker.eval.statistics import bootstrap_mean, paired_lift

NAN = float("nan")


def test_intervals_cover_the_true_mean_as_often_as_a_percentile_interval_can():
    n_simulations, n = 1000, 40
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(n_simulations):
        _, low, high = bootstrap_mean(rng.normal(1.5, 2, size=n), n_resamples=500, seed=seed)
        hits += low <= 1.5 <= high
    # The bootstrap's deviation divides by n, not n - 1, and its quantiles are the normal's, not Student's.
    coverage = 2 * stats.t(n - 1).cdf(stats.norm.ppf(0.975) * math.sqrt((n - 1) / n)) - 1
    least, most = stats.binom(n_simulations, coverage).interval(0.999)
    assert least <= hits <= most


def test_the_interval_is_scipys_percentile_interval():
    values = np.random.default_rng(1).beta(0.5, 2, size=60)
    _, low, high = bootstrap_mean(values, n_resamples=20_000, seed=0)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile").confidence_interval
    noise = 0.03 * (high - low)  # an end's standard error is about 0.5 % of the width at 20,000 resamples
    assert low == pytest.approx(theirs.low, abs=noise)
    assert high == pytest.approx(theirs.high, abs=noise)


def test_two_users_give_the_ends_that_enumeration_gives():
    # Of two users, a resample's mean is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4: both ends are certain.
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


@pytest.mark.parametrize(("values", "mean"), [([], NAN), ([NAN, NAN], NAN), ([0.4], 0.4), ([NAN, 0.4], 0.4)])
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
