"""ProcessGroup that torchrun started beside the first: they learn from it what to train, and train with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reranker import model
from reranker.config import ModelConfig, TrainerConfig
from reranker.errors import TrainingError
from reranker.trainer import distributed
from reranker.trainer.fit import fit

GRACE_S = 30.0  # for the first process to keep its run's account; torchrun ends all processes as soon as one has failed


@dataclass(frozen=True)
class _Task:
    """What the first process tells the others: all that `model.load` and `fit` need."""

    model: ModelConfig
    trainer: TrainerConfig
    pairs: Path


@contextmanager
def lead(model: ModelConfig, trainer: TrainerConfig, pairs: Path) -> Iterator[None]:
    """Inside, the processes in `follow` take part in `fit`. Without torchrun there are none, and nothing changes."""
    with distributed.joined() as ranks:
        ranks.share(_Task(model, trainer, pairs.resolve()))
        yield


def follow() -> None:
    """Wait for the first process to `lead`, and take part in its training.

    This process makes no run, no tables, no lists and no pairs of its own. When the first one fails before, torchrun
    ends this one.

    Raises:
        TrainingError: The pairs are not to be seen from here; or as `fit`.
        ModelError: The weights cannot be had here, or no GPU is left for this process.
    """
    with _leaving_last(), distributed.joined() as ranks:
        task: _Task = ranks.share(None)
        if not task.pairs.exists():
            raise TrainingError(
                f"process {ranks.rank} sees no {task.pairs}, where the first one left the pairs. Set cache_dir to a "
                "folder that all machines share."
            )
        encoder = model.load(task.model, device=model.device(task.trainer.device))
        fit(encoder, task.pairs, _score_nothing, task.trainer, lambda logs, step: None)


@contextmanager
def _leaving_last() -> Iterator[None]:
    """After an error, wait: it is mostly the first process's too, which would be ended while it closes its run."""
    is_whole = False
    try:
        yield
        is_whole = True
    finally:
        if not is_whole:
            time.sleep(GRACE_S)


def _score_nothing() -> float:
    raise AssertionError("dev lists are scored by the first process alone")
