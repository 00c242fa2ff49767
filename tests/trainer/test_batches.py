"""Every row once, units whole, the same steps for the same seed, and forward passes within their budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.trainer.batches import Plan, passes, share, steps

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def units(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The unit of every row, rows in any order, and the row's tokens."""
    rng = np.random.default_rng(seed)
    unit = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return unit, rng.integers(5, 200, len(unit))


@given(sizes=SIZES, n_pairs=st.integers(1, 12), seed=st.integers(0, 9), cut=st.booleans())
def test_an_epoch_holds_every_row_once(
    sizes: list[int], n_pairs: int, seed: int, cut: bool
) -> None:
    unit, length = units(sizes)
    planned = steps(unit, length, n_pairs=n_pairs, seed=seed, epoch=0, cut=cut)
    assert sorted(np.concatenate(planned)) == list(range(len(unit)))
    if cut:
        assert sorted(map(len, planned))[1:] == [n_pairs] * (
            len(planned) - 1
        )  # all but one are full
        assert len(planned) == -(-len(unit) // n_pairs)
    else:
        assert sum(len(np.unique(unit[rows])) for rows in planned) == len(
            sizes
        )  # so no unit stands in two steps
        assert max(map(len, planned)) < n_pairs + max(sizes)


def test_steps_are_a_function_of_seed_and_epoch() -> None:
    unit, length = units([4] * 50)

    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(
            steps(unit, length, n_pairs=8, seed=seed, epoch=epoch, cut=False)
        ).tolist()

    assert flat(1, 2) == flat(1, 2)
    assert len({tuple(flat(*place)) for place in ((1, 2), (2, 1), (1, 3))}) == 3


def test_a_step_of_long_texts_holds_long_texts_alone() -> None:
    unit, length = np.arange(320), np.tile([10, 200], 160)
    planned = steps(unit, length, n_pairs=10, seed=0, epoch=0, cut=True)
    mixed = sum(len(np.unique(length[rows])) > 1 for rows in planned)
    assert mixed <= 2  # 32 steps are two blocks, and each has one border between short and long


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"),
    [(2.0, None, 26), (1.5, None, 20), (0.01, None, 1), (9, 5, 5)],
)
def test_a_plan_counts_its_steps(epochs: float, max_steps: int | None, expected: int) -> None:
    unit, length = units([4] * 50)
    plan = Plan(unit, length, n_pairs=16, seed=0, cut=True)
    assert plan.n_steps(epochs, max_steps) == expected  # an epoch has 200 / 16, rounded up: 13
    assert len(list(plan.rows(0, expected))) == expected


@given(first=st.integers(0, 40))
@settings(max_examples=20)
def test_a_plan_goes_on_where_it_was_left(first: int) -> None:
    unit, length = units([4, 3, 5] * 8)
    plan = Plan(unit, length, n_pairs=8, seed=3, cut=False)
    whole = [rows.tolist() for rows in plan.rows(0, 40)]
    assert [rows.tolist() for rows in plan.rows(first, 40)] == whole[first:]


@given(
    sizes=SIZES, n_processes=st.integers(1, 4), n_tokens=st.integers(1, 2000), packed=st.booleans()
)
def test_shares_and_passes_hold_every_row_once_and_whole_units_within_the_budget(
    sizes: list[int], n_processes: int, n_tokens: int, packed: bool
) -> None:
    unit, length = units(sizes)
    rows = np.arange(len(unit))
    shares = [
        share(rows, unit, length, rank=r, n_processes=n_processes) for r in range(n_processes)
    ]
    parts = [
        p for mine in shares for p in passes(mine, unit, length, n_tokens=n_tokens, packed=packed)
    ]
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert sum(len(np.unique(unit[p])) for p in parts) == len(sizes)
    for p in parts:
        cost = length[p].sum() if packed else len(p) * length[p].max()
        assert cost <= n_tokens or len(np.unique(unit[p])) == 1
