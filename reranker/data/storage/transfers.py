"""Several transfers at once, with one bar; the first failure, or Ctrl-C, stops them all."""

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


class Transfers:
    """Threads that move bytes: `run` starts them, and each of them tells `tick` how many bytes it has moved."""

    def __init__(self, n_threads: int, advance: Callable[[int], None]) -> None:
        self.n_threads = n_threads
        self._advance = advance
        self._stop = threading.Event()

    def tick(self, n_bytes: int) -> None:
        """Count bytes moved (below 0: thrown away).

        Raises:
            StorageError: Another transfer has failed, and this one is to end.
        """
        if self._stop.is_set():
            raise StorageError("stopped, for another transfer failed.")
        self._advance(n_bytes)

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Results in the order of the items.

        Raises:
            BaseException: The first failure; what waits is not started, what runs ends at its next tick.
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
def transfers(what: str, n_bytes: int, n_threads: int) -> Iterator[Transfers]:
    """Transfers whose ticks move a bar on stderr, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
    )
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not sys.stderr.isatty()
    ) as bar:
        task = bar.add_task(what, total=n_bytes)
        yield Transfers(n_threads, lambda n: bar.advance(task, n))


@contextmanager
def on_disk(path: Path) -> Iterator[None]:
    """Turn a failure of the local disk into a sentence.

    Raises:
        StorageError: An OSError came; the file is named, or `path` where the error names none.
    """
    try:
        yield
    except OSError as error:
        place, why = error.filename or path, error.strerror or type(error).__name__
        raise StorageError(
            f"{place}: {why}. Mend the disk or the folder, and try again."
        ) from error
