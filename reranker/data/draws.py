"""Random draws as functions of their keys: no state, so no partition, order, worker or retry changes one."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.integer[Any]]
BoolArray = npt.NDArray[np.bool_]
FloatArray = npt.NDArray[np.floating[Any]]
KeyArray = npt.NDArray[np.uint64]

# splitmix64: increment and multipliers of Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators".
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def text_keys(texts: Iterable[str]) -> KeyArray:
    """(n,) stable 64-bit keys of strings, the same in every process and on every machine (BLAKE2b)."""
    digests = b"".join(hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def bits(seed: int, purpose: str, *parts: IntArray | KeyArray | int) -> KeyArray:
    """64 random bits for every row of the parts, which broadcast together.

    Args:
        seed: The stage's seed.
        purpose: Names the draw, so that one seed used in two places gives independent numbers.
        parts: Keys of the row: user key, book id, slot.
    """
    start = int(text_keys([f"{seed}/{purpose}"])[0])
    state: KeyArray = np.asarray(start, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64 by design
        for part in parts:
            state = _splitmix(state ^ _splitmix(np.asarray(part).astype(np.uint64) + _GOLDEN))
    return state


def _splitmix(x: KeyArray) -> KeyArray:
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def uniform(random_bits: KeyArray) -> FloatArray:
    """Floats in the open interval (0, 1), from the upper 53 bits."""
    return ((random_bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def below(random_bits: KeyArray, n: IntArray | int) -> IntArray:
    """Integers in [0, n), n < 2^32, by the high half of bits * n (Lemire 2019); the bias is below n / 2^64."""
    size = np.asarray(n).astype(np.uint64)
    low_half = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    product = (random_bits >> shift) * size + (((random_bits & low_half) * size) >> shift)
    return (product >> shift).astype(np.int64)


def ranges(sizes: IntArray) -> IntArray:
    """0, 1, …, size - 1 for each size in turn, (sum of sizes,) int64."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def distinct(n: IntArray, k: IntArray, *, seed: int, purpose: str, key: KeyArray) -> IntArray:
    """For every row, k distinct integers of [0, n), uniform over ordered subsets.

    A sparse Fisher-Yates shuffle of all rows at once: no rejection at any density, and one sort in place of its steps.
    Step m swaps place m with a place p(m) >= m. So what stands in place m before its step was put there by the last
    earlier step that picked m, and what step m draws by the last earlier step that picked p(m). Draw m does not
    depend on k: a smaller k gives a prefix of a larger one.

    Args:
        n: (n_rows,) sizes, each at least k; a smaller one is the caller's error.
        k: (n_rows,) how many.
        key: (n_rows,) what identifies a row, whatever its place.

    Returns:
        (sum of k,) int64: the draws of the first row in order, then those of the second, and so on.

    Raises:
        ValueError: A row, a place and a step do not fit into 63 bits together; give fewer rows.
    """
    step = ranges(k)
    pick = step + below(bits(seed, purpose, np.repeat(key, k), step), np.repeat(n, k) - step)
    draw, place, again = _by_place(k, pick, step)
    # The last earlier draw that picked the place of a draw's own step; -1: that place was never touched.
    parent = np.full(len(pick), -1)
    early = np.flatnonzero((step[draw] < place) & (place < np.repeat(k, k)[draw]))
    last = early[~again[early] | (step[draw[np.minimum(early + 1, len(draw) - 1)]] >= place[early])]
    parent[draw[last] - step[draw[last]] + place[last]] = draw[last]
    inside = step.copy()  # what stands in place m before step m
    while len(moved := np.flatnonzero(parent >= 0)):  # follow the swaps; the way left is halved each time
        inside[moved], parent[moved] = inside[parent[moved]], parent[parent[moved]]
    repeated = np.flatnonzero(again)
    pick[draw[repeated + 1]] = inside[draw[repeated]]
    return pick


def _by_place(k: IntArray, pick: IntArray, step: IntArray) -> tuple[IntArray, IntArray, npt.NDArray[np.bool_]]:
    """The draws sorted by (row, place, step), their places, and whether the next one has the same row and place."""
    step_bits, place_bits = (int(x.max(initial=1)).bit_length() for x in (k, pick))
    if len(k).bit_length() + place_bits + step_bits > 63:
        raise ValueError(f"{len(k)} rows, places to {pick.max()} and {k.max()} steps do not fit into 63 bits.")
    row = np.repeat(np.arange(len(k)), k)
    packed = np.sort((row << place_bits | pick) << step_bits | step)
    cell = packed >> step_bits
    draw = (np.cumsum(k) - k)[cell >> place_bits] + (packed & ((1 << step_bits) - 1))
    again = np.append(cell[1:] == cell[:-1], False) if len(cell) else np.zeros(0, dtype=bool)
    return draw, cell & ((1 << place_bits) - 1), again


def unseen(rank: IntArray, row: IntArray, seen_row: IntArray, seen_book: IntArray, n_books: int) -> IntArray:
    """The rank-th book that a row has not seen (0-based, ascending book codes), by an order-statistic shift.

    With a row's seen books s_0 < s_1 < …, t_i = s_i - i books below s_i are unseen, so the r-th unseen book is r plus
    the number of t_i <= r.

    Args:
        rank: (n,) in [0, n_books - seen books of the row).
        row: (n,) row of each rank.
        seen_row, seen_book: (n_seen,) sorted by (row, book), without duplicates.

    Returns:
        (n,) int64 book codes.
    """
    size = n_books + 1
    first = np.searchsorted(seen_row, seen_row, side="left")  # start of the row of each seen book
    shifted = seen_book.astype(np.int64) - (np.arange(len(seen_row)) - first)
    sorted_key = seen_row.astype(np.int64) * size + shifted
    below_rank = np.searchsorted(sorted_key, row.astype(np.int64) * size + rank, side="right")
    return rank + below_rank - np.searchsorted(seen_row, row, side="left")
