"""Run forward passes in parallel on a CPU, each on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(work: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield `work(item)` for each item, in the order of the items.

    As many items are computed at once as torch has threads, each of them with one thread. Without
    this, torch splits every operation among its threads. A packed forward pass has hundreds of
    small operations, and at the end of each all threads wait for the slowest one; where another
    process uses a core, this takes ten times as long.

    Example:
        >>> list(parallel_map(lambda n: n * n, [1, 2, 3]))
        [1, 4, 9]
    """
    n_threads = torch.get_num_threads()
    if n_threads == 1 or len(items) == 1:
        yield from map(work, items)
        return
    try:
        with ThreadPoolExecutor(n_threads, initializer=_one_thread) as pool:
            all_started = Barrier(n_threads + 1)
            try:
                for _ in range(n_threads):
                    pool.submit(all_started.wait)
                all_started.wait()
            except BaseException:
                # A thread could not be started, or Ctrl-C: the waiting threads must be released.
                all_started.abort()
                raise
            # The number that a pool thread has set would also be the initial number of threads
            # started later, such as the one of a server's next request.
            torch.set_num_threads(n_threads)
            yield from pool.map(work, items)
    finally:
        torch.set_num_threads(n_threads)


def _one_thread() -> None:
    # The first call in a thread sets the process's number there, so it must precede the next line.
    torch.get_num_threads()
    torch.set_num_threads(1)
