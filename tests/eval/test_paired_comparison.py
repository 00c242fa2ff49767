"""Differences to a reference equal arithmetic; undefined values stay undefined."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reranker.errors import ComparisonError
from reranker.eval.paired_comparison import Measured, adjust, align, compare, main_effects

BASE = np.array([0.1, 0.2, 0.3, 0.4])
MOVED = np.array([0.1, 0.1, -0.1, 0.1])


def one(name: str, values: np.ndarray) -> Measured:
    return Measured(name, ("",), np.atleast_2d(values))


def against(ours: Measured, reference: Measured) -> dict[str, object]:
    """Our row of the comparison."""
    _, row = compare([reference, ours]).to_dict("records")
    return {str(key): value for key, value in row.items()}


def test_users_are_aligned_by_id_whatever_their_order() -> None:
    first = pd.Series([0.1, 0.2], index=["a", "b"])
    values = align({"r1": first, "r2": first[::-1]})
    assert list(values.index) == ["a", "b"]
    assert values["r1"].tolist() == values["r2"].tolist() == [0.1, 0.2]


def test_runs_with_different_users_are_refused_with_both_named() -> None:
    runs = {"r1": pd.Series(0.5, index=["a", "b", "c"]), "r2": pd.Series(0.5, index=["b", "x"])}
    words = (
        r"runs r1 and r2 ranked for different users: 2 only in r1 and 1 only in r2 "
        r"\(first: user_id='a'\)"
    )
    with pytest.raises(ComparisonError, match=words):
        align(runs)


def test_the_difference_its_effect_and_the_users_won_are_arithmetic() -> None:
    row = against(one("b", BASE + MOVED), one("a", BASE))
    assert (row["mean"], row["difference"]) == (pytest.approx(0.3), pytest.approx(0.05))
    assert row["effect_size"] == pytest.approx(
        0.05 / 0.1
    )  # the standard deviation of +.1 +.1 -.1 +.1 is .1
    assert (row["n_users"], row["n_wins"], row["n_ties"], row["n_losses"]) == (4, 3, 0, 1)
    assert row["p"] == pytest.approx(10 / 16, abs=0.02)  # 10 of the 16 sign patterns reach |+.2|
    assert row["interval_over"] == "users"


def test_a_difference_of_the_same_size_for_everyone_has_an_interval_of_one_point() -> None:
    values = np.random.default_rng(1).uniform(0, 0.8, 30)
    row = against(one("b", values + 0.05), one("a", values))
    assert [row["difference"], row["difference_low"], row["difference_high"]] == pytest.approx(
        [0.05] * 3
    )
    assert row["p"] == pytest.approx(
        1e-4
    )  # no permutation of 9,999 is as extreme, for one in 5e8 would be


def test_the_reference_has_its_own_mean_and_no_difference_to_itself() -> None:
    reference, _ = compare([one("a", BASE), one("b", BASE)]).to_dict("records")
    assert reference["mean"] == pytest.approx(0.25)
    assert reference["low"] < 0.25 < reference["high"]
    assert all(
        pd.isna(reference[key]) for key in ("difference", "p", "n_wins", "minimal_detectable")
    )


def test_equal_configurations_are_all_ties_and_need_infinitely_many_users() -> None:
    row = against(one("b", BASE), one("a", BASE))
    assert (row["difference"], row["n_ties"], row["p"]) == (0, 4, 1)
    assert row["n_users_needed"] == np.inf


def test_a_user_without_positives_is_left_out_of_everything() -> None:
    with_one = np.append(BASE, np.nan)
    row = against(one("b", with_one + 0.1), one("a", with_one))
    assert (row["n_users"], row["difference"], row["n_wins"]) == (4, pytest.approx(0.1), 4)


def test_the_same_seeds_are_paired_and_the_interval_is_over_them_too() -> None:
    reference = np.random.default_rng(2).uniform(0, 0.5, (2, 200))
    ours = reference + np.array([[0.1], [0.3]])
    seeds = ("trainer.seed=1", "trainer.seed=2")
    row = against(Measured("b", seeds, ours), Measured("a", seeds, reference))
    assert (row["interval_over"], row["n_seeds"], row["difference"]) == (
        "users and seeds",
        2,
        pytest.approx(0.2),
    )
    # Two draws of two seeds: a quarter of them is the first seed twice, a quarter the second twice.
    assert [row["difference_low"], row["difference_high"]] == pytest.approx([0.1, 0.3])
    means = ours.mean(axis=1)
    assert row["seed_std"] == pytest.approx(abs(means[0] - means[1]) / np.sqrt(2))


def test_other_seeds_are_not_paired_and_the_interval_says_that_it_is_over_users() -> None:
    values = np.tile(BASE, (2, 1))
    row = against(
        Measured("b", ("s=1", "s=3"), values + 0.1), Measured("a", ("s=1", "s=2"), values)
    )
    assert (row["interval_over"], row["difference"]) == ("users", pytest.approx(0.1))


def test_holms_family_is_every_comparison_of_the_table() -> None:
    table = pd.DataFrame(
        {"kind": list("uuupp"), "p": [np.nan, 0.01, 0.04, np.nan, 0.03], "n_wins": 1}
    )
    adjusted = adjust(table)
    assert list(adjusted.columns) == ["kind", "p", "p_holm", "n_wins"]
    assert adjusted["p_holm"].fillna(-1).tolist() == pytest.approx([-1, 0.03, 0.06, -1, 0.06])


def test_a_main_effect_is_the_mean_over_the_other_keys() -> None:
    grid = [("1", "x", 0.1), ("1", "y", 0.3), ("2", "x", 0.5), ("2", "y", 0.7)]
    measured = [one(f"{a}{b}", np.full(5, value)) for a, b, value in grid]
    effects = main_effects(measured, [{"a": a, "b": b} for a, b, _ in grid])
    rows = effects[["key", "value", "n_configurations"]].to_records(index=False).tolist()
    assert rows == [("a", "1", 2), ("a", "2", 2), ("b", "x", 2), ("b", "y", 2)]
    assert effects["mean"].tolist() == pytest.approx([0.2, 0.6, 0.3, 0.5])
    short = main_effects(measured[:3], [{"a": a, "b": b} for a, b, _ in grid[:3]])
    assert short["n_configurations"].tolist() == [2, 1, 2, 1]
