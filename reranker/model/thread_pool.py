"""Forwards side by side on the cores of a CPU, each on one, so that no core waits for another within a layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """What `work` gives for each item, in their order; as many at once as torch has threads, each with one of them.

    Torch would share out every operation, of which a packed forward has hundreds of small ones: all threads wait
    for the slowest at the end of each, ten times as long where another process holds a core.
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(items) == 1:
        yield from map(work, items)
        return
    try:
        with ThreadPoolExecutor(n_threads, initializer=_one_thread) as pool:
            all_there = Barrier(n_threads + 1)
            try:
                for _ in range(n_threads):
                    pool.submit(all_there.wait)
                all_there.wait()
            except (
                BaseException
            ):  # no thread to be had, or Ctrl-C: those that wait would wait for ever
                all_there.abort()
                raise
            # A thread's own number is also what later threads begin with, as that of a server's next request.
            torch.set_num_threads(n_threads)
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(n_threads)


def _one_thread() -> None:
    torch.get_num_threads()  # a thread's first question gives it the process's number, which would undo the next line
    torch.set_num_threads(1)
