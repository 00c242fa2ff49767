"""A thread pool for concurrent transfers with one progress bar; the first failure stops all."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from reranker.errors import StorageError

Item = TypeVar("Item")
Result = TypeVar("Result")


class TransferPool:
    """Threads that transfer files: `run` starts them, and each one reports its bytes to `tick`."""

    def __init__(self, n_threads: int, advance: Callable[[int], None]) -> None:
        self.n_threads = n_threads
        self._advance = advance
        self._stop = threading.Event()

    def tick(self, n_bytes: int) -> None:
        """Count transferred bytes; a negative number means that bytes were discarded.

        Raises:
            StorageError: Another transfer has failed, so this one stops.
        """
        if self._stop.is_set():
            raise StorageError("stopped because another transfer failed.")
        self._advance(n_bytes)

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return `work(item)` for every item, in the order of the items.

        Raises:
            BaseException: The first failure, or Ctrl-C. Waiting items are not started, and running
                ones stop at their next tick.
        """
        with ThreadPoolExecutor(self.n_threads) as pool:
            futures = [pool.submit(work, item) for item in items]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self._stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]


@contextmanager
def transfer_pool(label: str, n_bytes: int, n_threads: int) -> Iterator[TransferPool]:
    """Yield a pool whose ticks move a progress bar on stderr if stderr is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console, hidden = Console(stderr=True), not sys.stderr.isatty()
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task(label, total=n_bytes)
        yield TransferPool(n_threads, lambda n: bar.advance(task, n))


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Convert errors of the local disk into a StorageError.

    Raises:
        StorageError: An OSError occurred. The message names its file, or `path` if it has none.
    """
    try:
        yield
    except OSError as error:
        place, reason = error.filename or path, error.strerror or type(error).__name__
        message = f"{place}: {reason}. Fix the disk or the folder, and try again."
        raise StorageError(message) from error
