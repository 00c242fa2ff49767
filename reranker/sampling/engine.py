"""Run a pure function over parts with Dask: in threads, in processes or on a cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TypeVar

import dask.bag
import dask.local
import dask.multiprocessing
import dask.threaded
from dask.diagnostics import ProgressBar

from reranker.config import EngineConfig
from reranker.errors import EngineError

T = TypeVar("T")
R = TypeVar("R")

CONNECT_S = 30  # time limit to reach a scheduler
SHOW_AFTER_S = 2.0
# Functions, because Dask imports distributed (60 MB, needed only by a cluster) to look up a name.
LOCAL = {
    "synchronous": dask.local.get_sync,
    "threads": dask.threaded.get,
    "processes": dask.multiprocessing.get,
}


def run(function: Callable[[T], R], parts: Sequence[T], cfg: EngineConfig) -> list[R]:
    """Return `function` of every part, in order, with a progress bar in a terminal.

    The parts are distributed over at most n_partitions tasks. If a worker of a cluster dies, its
    task runs again on another worker. `function` must therefore be deterministic and write files
    atomically. The workers need this package, and the cache folder at the same path.

    Raises:
        EngineError: No scheduler answers at engine.address, or a task lost too many workers.
    """
    bag = dask.bag.from_sequence(parts, npartitions=min(cfg.n_partitions, len(parts)))
    tasks = bag.map_partitions(_run_all, function)
    if cfg.scheduler == "cluster":
        return _on_cluster(tasks, str(cfg.address))
    is_terminal = sys.stderr.isatty()
    bar = ProgressBar(minimum=SHOW_AFTER_S, out=sys.stderr) if is_terminal else nullcontext()
    with bar:
        return list(tasks.compute(scheduler=LOCAL[cfg.scheduler]))


def _run_all(parts: list[T], function: Callable[[T], R]) -> list[R]:
    return [function(part) for part in parts]


def _on_cluster(tasks: dask.bag.Bag, address: str) -> list[R]:
    from distributed import Client, KilledWorker, progress

    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise EngineError(
            f"engine.address={address}: no Dask scheduler answers at this address ({error}). "
            "Start one (dask scheduler, dask worker), or choose engine=threads."
        ) from error
    with client:
        future = client.compute(tasks)
        if sys.stderr.isatty():
            progress(future, notebook=False)
        try:
            return list(future.result())
        except KilledWorker as error:
            raise EngineError(
                f"the cluster at {address} lost every worker that ran a certain part ({error}). "
                "Give the workers more memory or lower sampling.part_pairs."
            ) from error
