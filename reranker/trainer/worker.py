"""The worker processes of torchrun: each receives the task from rank 0 and takes part in `fit`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from reranker import model
from reranker.errors import TrainingError
from reranker.trainer import distributed
from reranker.trainer.fit import fit

# torchrun ends all processes when one has failed; rank 0 needs this time to close its run.
GRACE_S = 30.0


def run_worker() -> None:
    """Wait for the task that `fit` broadcasts in rank 0, and take part in the training.

    A worker creates no run, tables, lists or pairs. If rank 0 fails before `fit`, torchrun ends the
    worker.

    Raises:
        TrainingError: This process cannot read the pairs, or an error of `fit`.
        ModelError: The weights are not available here, or there is no GPU for this process.
    """
    with _delayed_exit_on_error(), distributed.process_group() as processes:
        task = distributed.broadcast_task(processes)
        if not task.pairs.exists():
            raise TrainingError(
                f"process {processes.rank} does not find {task.pairs}, where rank 0 saved the "
                "pairs. Set cache_dir to a folder that all machines share."
            )
        encoder = model.load(task.model, device=model.device(task.trainer.device))
        fit(encoder, task.pairs, _no_score, cfg=task.trainer)


@contextmanager
def _delayed_exit_on_error() -> Iterator[None]:
    """After an error, wait: rank 0 usually has the same error and must first close its run."""
    is_complete = False
    try:
        yield
        is_complete = True
    finally:
        if not is_complete:
            time.sleep(GRACE_S)


def _no_score() -> dict[str, float]:
    raise AssertionError("only rank 0 scores the dev lists")
