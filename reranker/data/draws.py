"""A counter-based random number generator: every draw is a function of a seed and keys.

There is no state, so partitions, their order, workers and retries do not change a draw.
"""

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

# splitmix64: increment and multipliers of Steele, Lea & Flood 2014, "Fast splittable pseudorandom
# number generators".
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def text_keys(texts: Iterable[str]) -> KeyArray:
    """Return (n,) 64-bit keys of strings (BLAKE2b), equal in all processes and on all machines."""
    digests = b"".join(
        hashlib.blake2b(t.encode("utf-8", "surrogatepass"), digest_size=8).digest() for t in texts
    )
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def bits(seed: int, purpose: str, *parts: IntArray | KeyArray | int) -> KeyArray:
    """Return 64 random bits per row; `parts` are broadcast against each other.

    Args:
        seed: The stage's seed.
        purpose: Name of the draw; with the same seed, two purposes give independent numbers.
        parts: Keys that identify a row, such as user key, book id and slot.

    Example:
        >>> uniform(bits(0, "fold", text_keys(["user1", "user2"])))
        array([0.22538967, 0.19930026])
    """
    start = int(text_keys([f"{seed}/{purpose}"])[0])
    state: KeyArray = np.asarray(start, dtype=np.uint64)
    with np.errstate(over="ignore"):  # arithmetic is modulo 2^64 by design
        for part in parts:
            state = _splitmix(state ^ _splitmix(np.asarray(part).astype(np.uint64) + _GOLDEN))
    return state


def _splitmix(x: KeyArray) -> KeyArray:
    """Return the splitmix64 output for each state."""
    x = x + _GOLDEN
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    return x ^ (x >> np.uint64(31))


def uniform(random_bits: KeyArray) -> FloatArray:
    """Return floats in the open interval (0, 1), made of the upper 53 bits."""
    return ((random_bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def below(random_bits: KeyArray, n: IntArray | int) -> IntArray:
    """Return integers in [0, n) for n < 2^32; their bias is below n / 2^64.

    Source: Lemire 2019; the result is the high half of bits * n.
    """
    size = np.asarray(n).astype(np.uint64)
    low_half = np.uint64(0xFFFFFFFF)
    shift = np.uint64(32)
    product = (random_bits >> shift) * size + (((random_bits & low_half) * size) >> shift)
    return (product >> shift).astype(np.int64)


def ranges(sizes: IntArray) -> IntArray:
    """Return (sum of sizes,) int64: 0, 1, …, size - 1 for each size in turn."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def distinct(n: IntArray, k: IntArray, *, seed: int, purpose: str, key: KeyArray) -> IntArray:
    """Return k distinct integers of [0, n) for every row, uniform over ordered subsets.

    This is a sparse Fisher-Yates shuffle: it rejects no draw, however dense the subset is. Draw m
    does not depend on k, so the draws of a smaller k are a prefix of those of a larger one.

    Args:
        n: (n_rows,) sizes, each at least k; this is not checked.
        k: (n_rows,) numbers of draws.
        key: (n_rows,) keys that identify rows independently of their order.

    Returns:
        (sum of k,) int32: the draws of each row in order, row by row.
    """
    from reranker.data import kernels

    start = np.uint64(bits(seed, purpose))
    return kernels.distinct(
        start, np.asarray(n, np.int64), np.asarray(k, np.int64), np.asarray(key, np.uint64)
    )


def unseen(rank: IntArray, k: IntArray, ends: IntArray, seen_book: IntArray) -> IntArray:
    """Return the book at each rank (0-based, by ascending code) among a row's unseen books.

    With a row's seen books s_0 < s_1 < …, t_i = s_i - i books below s_i are unseen, so the r-th
    unseen book is r plus the number of t_i <= r.

    Args:
        rank: (sum of k,) in [0, all books - seen books of the row), row by row. It is overwritten
            by the result.
        k: (n_rows,) the number of ranks of each row.
        ends: (n_rows + 1,) offsets; row i has the books seen_book[ends[i]:ends[i + 1]].
        seen_book: (n_seen,) ascending within a row, without duplicates.

    Returns:
        (sum of k,) book codes.
    """
    from reranker.data import kernels

    return kernels.unseen(rank, k, ends, seen_book)
