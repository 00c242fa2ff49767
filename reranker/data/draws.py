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
    digests = b"".join(
        hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in texts
    )
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

    A sparse Fisher-Yates shuffle: no rejection, at any density. Draw m does not depend on k: a smaller k gives a prefix
    of a larger one.

    Args:
        n: (n_rows,) sizes, each at least k; a smaller one is the caller's error.
        k: (n_rows,) how many.
        key: (n_rows,) what identifies a row, whatever its place.

    Returns:
        (sum of k,) int32: the draws of the first row in order, then those of the second, and so on.
    """
    from reranker.data import kernels

    start = np.uint64(bits(seed, purpose))
    return kernels.distinct(
        start, np.asarray(n, np.int64), np.asarray(k, np.int64), np.asarray(key, np.uint64)
    )


def unseen(rank: IntArray, k: IntArray, ends: IntArray, seen_book: IntArray) -> IntArray:
    """The rank-th book that a row has not seen (0-based, ascending book codes), by an order-statistic shift.

    With a row's seen books s_0 < s_1 < …, t_i = s_i - i books below s_i are unseen, so the r-th unseen book is r plus
    the number of t_i <= r.

    Args:
        rank: (sum of k,) in [0, all books - seen books of the row), row by row; overwritten by what is returned.
        k: (n_rows,) ranks of each row.
        ends: (n_rows + 1,) where the seen books of each row begin, and where the last end.
        seen_book: (n_seen,) ascending within a row, without duplicates.

    Returns:
        (sum of k,) book codes.
    """
    from reranker.data import kernels

    return kernels.unseen(rank, k, ends, seen_book)
