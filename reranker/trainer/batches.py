"""Assign pairs to steps, ranks and micro-batches as a function of seed and epoch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
# Number of steps whose chunks are sorted by length together. There is then little padding, and
# lengths still vary over an epoch.
BLOCK = 16


class Plan:
    """The rows of every step; those of step s do not depend on the number of steps."""

    def __init__(
        self, chunk: IntArray, length: IntArray, *, n_pairs: int, seed: int, cut_chunks: bool
    ) -> None:
        """Set up the plan; the arguments are those of `steps`."""
        self._epoch = partial(
            steps, chunk, length, n_pairs=n_pairs, seed=seed, cut_chunks=cut_chunks
        )

    def n_steps(self, epochs: float, max_steps: int | None) -> int:
        """Return max_steps if it is given, else the number of steps of `epochs` (may be 0.5)."""
        if max_steps is not None:
            return max_steps
        part, complete = math.modf(epochs)
        n = sum(len(self._epoch(epoch=e)) for e in range(int(complete)))
        return n + (math.ceil(part * len(self._epoch(epoch=int(complete))) - 1e-9) if part else 0)

    def rows(self, first: int, n_steps: int) -> Iterator[IntArray]:
        """Yield the rows of each step from `first` to n_steps - 1, counted from 0."""
        done = 0
        for epoch in count():
            planned = self._epoch(epoch=epoch)
            yield from planned[max(first - done, 0) : n_steps - done]
            done += len(planned)
            if done >= n_steps:
                return


def steps(
    chunk: IntArray, length: IntArray, *, n_pairs: int, seed: int, epoch: int, cut_chunks: bool
) -> list[IntArray]:
    """Return the rows of every optimiser step of an epoch; every row occurs once.

    Chunks are shuffled, sorted by length within blocks of 16 steps, and cut into steps; then the
    steps are shuffled.

    Args:
        chunk: (n_rows,) ids of rows that stay together.
        length: (n_rows,) number of tokens.
        n_pairs: Pairs per step.
        cut_chunks: Whether a step may end within a chunk. If so, all steps but one have exactly
            n_pairs rows; otherwise a step has the chunks that begin within its n_pairs rows.
    """
    rng = np.random.default_rng([seed, epoch])
    n = np.bincount(chunk)
    rows = np.argsort(chunk, kind="stable")
    first = np.cumsum(n) - n
    longest = np.maximum.reduceat(length[rows], first)
    order = rng.permutation(len(n))
    block = (np.cumsum(n[order]) - n[order]) // (BLOCK * n_pairs)
    order = order[np.lexsort((longest[order], block))]
    begin = np.cumsum(n[order]) - n[order]
    within = np.arange(n.sum()) - np.repeat(begin, n[order])
    queue = rows[np.repeat(first[order], n[order]) + within]
    position = np.arange(len(queue)) if cut_chunks else np.repeat(begin, n[order])
    parts = np.split(queue, np.flatnonzero(np.diff(position // n_pairs)) + 1)
    return [parts[i] for i in rng.permutation(len(parts))]


def rank_rows(
    rows: IntArray, chunk: IntArray, length: IntArray, *, rank: int, world_size: int
) -> IntArray:
    """Return one rank's rows of a step: complete chunks; lengths are balanced between ranks."""
    chunks = _by_length(rows, chunk, length)[rank::world_size]
    return np.concatenate(chunks) if chunks else rows[:0]


def micro_batches(
    rows: IntArray, chunk: IntArray, length: IntArray, *, n_tokens: int, packed: bool
) -> Iterator[IntArray]:
    """Yield the rows of every micro-batch of a step: complete chunks, the longest first.

    Args:
        n_tokens: Maximum number of tokens in a micro-batch of several chunks.
        packed: Whether there is no padding. With padding, every row costs as much as the longest.
    """
    batch: list[IntArray] = []
    longest = n_rows = n_real = 0
    for piece in _by_length(rows, chunk, length):
        top, total = int(length[piece].max()), int(length[piece].sum())
        cost = n_real + total if packed else (n_rows + len(piece)) * max(longest, top)
        if batch and cost > n_tokens:
            yield np.concatenate(batch)
            batch, longest, n_rows, n_real = [], 0, 0, 0
        batch.append(piece)
        longest, n_rows, n_real = max(longest, top), n_rows + len(piece), n_real + total
    if batch:
        yield np.concatenate(batch)


def _by_length(rows: IntArray, chunk: IntArray, length: IntArray) -> Sequence[IntArray]:
    """Return a step's rows by chunk, the longest chunk first; rows ascend within a chunk."""
    rows = rows[np.lexsort((rows, chunk[rows]))]
    pieces = np.split(rows, np.flatnonzero(np.diff(chunk[rows])) + 1) if len(rows) else []
    return sorted(pieces, key=lambda piece: -int(length[piece].max()))
