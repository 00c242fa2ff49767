"""Dask runs a pure function over parts: in threads, in processes, or on a cluster whose scheduler is named."""

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

CONNECT_S = 30  # a scheduler that has not answered by then is not there
SHOW_AFTER_S = 2.0
# By function, not by name: to look a name up Dask imports distributed, 60 MB that only a cluster needs.
LOCAL = {
    "synchronous": dask.local.get_sync,
    "threads": dask.threaded.get,
    "processes": dask.multiprocessing.get,
}


def run(function: Callable[[T], R], parts: Sequence[T], cfg: EngineConfig) -> list[R]:
    """`function` of every part, in order, with a progress bar in a terminal.

    The parts are spread over at most n_partitions tasks. On a cluster a task whose worker dies is run again elsewhere,
    so `function` must give the same for the same part and leave nothing half-written; the workers need this package
    and see the cache folder under the same path.

    Raises:
        EngineError: No scheduler answers at engine.address, or the cluster gave up.
    """
    bag = dask.bag.from_sequence(parts, npartitions=min(cfg.n_partitions, len(parts)))
    tasks = bag.map_partitions(_run_all, function)
    if cfg.scheduler == "cluster":
        return _on_cluster(tasks, str(cfg.address))
    with (
        ProgressBar(minimum=SHOW_AFTER_S, out=sys.stderr) if sys.stderr.isatty() else nullcontext()
    ):
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
                f"the cluster at {address} lost every worker that tried a part ({error}). Give the workers more memory "
                "or lower sampling.part_pairs."
            ) from error
