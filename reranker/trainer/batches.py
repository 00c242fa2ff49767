"""Which pairs a step learns from, in which forward passes, in which process: a function of the seed and the epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
BLOCK = 16  # steps whose units are sorted by length together: little padding, and lengths still mix over an epoch


class Plan:
    """The steps of a training of any number of epochs; step s holds the same rows whenever it is asked for."""

    def __init__(
        self, unit: IntArray, length: IntArray, *, n_pairs: int, seed: int, cut: bool
    ) -> None:
        """The arguments are those of `steps`."""
        self._epoch = partial(steps, unit, length, n_pairs=n_pairs, seed=seed, cut=cut)

    def n_steps(self, epochs: float, max_steps: int | None) -> int:
        """The steps of so many epochs, the last of which may be a part; or max_steps, where it is given."""
        if max_steps is not None:
            return max_steps
        part, whole = math.modf(epochs)
        n = sum(len(self._epoch(epoch=e)) for e in range(int(whole)))
        return n + (math.ceil(part * len(self._epoch(epoch=int(whole))) - 1e-9) if part else 0)

    def rows(self, first: int, n_steps: int) -> Iterator[IntArray]:
        """The rows of step `first`, from 0, and of every step after it up to n_steps."""
        done = 0
        for epoch in count():
            planned = self._epoch(epoch=epoch)
            yield from planned[max(first - done, 0) : n_steps - done]
            done += len(planned)
            if done >= n_steps:
                return


def steps(
    unit: IntArray, length: IntArray, *, n_pairs: int, seed: int, epoch: int, cut: bool
) -> list[IntArray]:
    """The rows of every optimiser step of an epoch, every row once.

    Units are shuffled; within blocks of 16 steps they are sorted by length; then they are cut into steps, and the
    steps are shuffled.

    Args:
        unit: (n_rows,) ids of rows that stay together.
        length: (n_rows,) tokens.
        n_pairs: Pairs per step.
        cut: Whether a step may end within a unit: steps then have exactly n_pairs rows, all but one. Else a step holds
            the units that begin within its n_pairs.
    """
    rng = np.random.default_rng([seed, epoch])
    n = np.bincount(unit)
    rows = np.argsort(unit, kind="stable")
    first = np.cumsum(n) - n
    longest = np.maximum.reduceat(length[rows], first)
    order = rng.permutation(len(n))
    block = (np.cumsum(n[order]) - n[order]) // (BLOCK * n_pairs)
    order = order[np.lexsort((longest[order], block))]
    begin = np.cumsum(n[order]) - n[order]
    within = np.arange(n.sum()) - np.repeat(begin, n[order])
    queue = rows[np.repeat(first[order], n[order]) + within]
    number = (np.arange(len(queue)) if cut else np.repeat(begin, n[order])) // n_pairs
    taken = np.split(queue, np.flatnonzero(np.diff(number)) + 1)
    return [taken[i] for i in rng.permutation(len(taken))]


def share(
    rows: IntArray, unit: IntArray, length: IntArray, *, rank: int, n_processes: int
) -> IntArray:
    """The rows of a step that one process computes: whole units, dealt by length so that shares are about equal."""
    pieces = _by_length(rows, unit, length)[rank::n_processes]
    return np.concatenate(pieces) if pieces else rows[:0]


def passes(
    rows: IntArray, unit: IntArray, length: IntArray, *, n_tokens: int, packed: bool
) -> Iterator[IntArray]:
    """The rows of every forward pass of a step, longest units first; a pass holds whole units, one at least.

    Args:
        n_tokens: At most so many tokens in a pass of several units.
        packed: Whether only real tokens count; else every row counts as long as the pass's longest.
    """
    held: list[IntArray] = []
    longest = n_rows = real = 0
    for piece in _by_length(rows, unit, length):
        top, total = int(length[piece].max()), int(length[piece].sum())
        cost = real + total if packed else (n_rows + len(piece)) * max(longest, top)
        if held and cost > n_tokens:
            yield np.concatenate(held)
            held, longest, n_rows, real = [], 0, 0, 0
        held.append(piece)
        longest, n_rows, real = max(longest, top), n_rows + len(piece), real + total
    if held:
        yield np.concatenate(held)


def _by_length(rows: IntArray, unit: IntArray, length: IntArray) -> Sequence[IntArray]:
    """The step's units, each its rows in the order of the file, longest first."""
    rows = rows[np.lexsort((rows, unit[rows]))]
    pieces = np.split(rows, np.flatnonzero(np.diff(unit[rows])) + 1) if len(rows) else []
    return sorted(pieces, key=lambda piece: -int(length[piece].max()))
