"""Steps have every row once and complete chunks; micro-batches stay within their budget."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.trainer.batches import Plan, micro_batches, rank_rows, steps

SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=60)


def chunks(sizes: list[int], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the chunk of every row, in random order, and the row's tokens."""
    rng = np.random.default_rng(seed)
    chunk = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return chunk, rng.integers(5, 200, len(chunk))


@given(sizes=SIZES, n_pairs=st.integers(1, 12), seed=st.integers(0, 9), cut=st.booleans())
def test_an_epoch_has_every_row_once(sizes: list[int], n_pairs: int, seed: int, cut: bool) -> None:
    chunk, length = chunks(sizes)
    planned = steps(chunk, length, n_pairs=n_pairs, seed=seed, epoch=0, cut_chunks=cut)
    assert sorted(np.concatenate(planned)) == list(range(len(chunk)))
    if cut:
        assert sorted(map(len, planned))[1:] == [n_pairs] * (len(planned) - 1)
        assert len(planned) == -(-len(chunk) // n_pairs)
    else:
        n_chunks = sum(len(np.unique(chunk[rows])) for rows in planned)
        assert n_chunks == len(sizes)  # no chunk is in two steps
        assert max(map(len, planned)) < n_pairs + max(sizes)


def test_steps_are_a_function_of_seed_and_epoch() -> None:
    chunk, length = chunks([4] * 50)

    def flat(seed: int, epoch: int) -> list[int]:
        planned = steps(chunk, length, n_pairs=8, seed=seed, epoch=epoch, cut_chunks=False)
        return np.concatenate(planned).tolist()

    assert flat(1, 2) == flat(1, 2)
    assert len({tuple(flat(*place)) for place in ((1, 2), (2, 1), (1, 3))}) == 3


def test_a_step_with_long_texts_has_only_long_texts() -> None:
    chunk, length = np.arange(320), np.tile([10, 200], 160)
    planned = steps(chunk, length, n_pairs=10, seed=0, epoch=0, cut_chunks=True)
    mixed = sum(len(np.unique(length[rows])) > 1 for rows in planned)
    assert mixed <= 2  # 32 steps are two blocks; in each, one step may have both lengths


@pytest.mark.parametrize(
    ("epochs", "max_steps", "expected"),
    [(2.0, None, 26), (1.5, None, 20), (0.01, None, 1), (9, 5, 5)],
)
def test_a_plan_counts_its_steps(epochs: float, max_steps: int | None, expected: int) -> None:
    chunk, length = chunks([4] * 50)
    plan = Plan(chunk, length, n_pairs=16, seed=0, cut_chunks=True)
    assert plan.n_steps(epochs, max_steps) == expected  # an epoch has 200 / 16, rounded up: 13
    assert len(list(plan.rows(0, expected))) == expected


@given(first=st.integers(0, 40))
@settings(max_examples=20)
def test_a_plan_resumes_at_any_step(first: int) -> None:
    chunk, length = chunks([4, 3, 5] * 8)
    plan = Plan(chunk, length, n_pairs=8, seed=3, cut_chunks=False)
    planned = [rows.tolist() for rows in plan.rows(0, 40)]
    assert [rows.tolist() for rows in plan.rows(first, 40)] == planned[first:]


@given(
    sizes=SIZES, world_size=st.integers(1, 4), n_tokens=st.integers(1, 2000), packed=st.booleans()
)
def test_ranks_and_micro_batches_have_every_row_once_and_keep_the_budget(
    sizes: list[int], world_size: int, n_tokens: int, packed: bool
) -> None:
    chunk, length = chunks(sizes)
    rows = np.arange(len(chunk))
    parts: list[np.ndarray] = []
    for rank in range(world_size):
        mine = rank_rows(rows, chunk, length, rank=rank, world_size=world_size)
        parts += micro_batches(mine, chunk, length, n_tokens=n_tokens, packed=packed)
    assert sorted(np.concatenate(parts)) == rows.tolist()
    assert sum(len(np.unique(chunk[p])) for p in parts) == len(sizes)
    for p in parts:
        cost = length[p].sum() if packed else len(p) * length[p].max()
        assert cost <= n_tokens or len(np.unique(chunk[p])) == 1
