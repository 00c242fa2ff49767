"""Callbacks of `fit`: they observe steps and evaluations, and can end the training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reranker.model import Encoder
from reranker.trainer.distributed import ProcessGroup
from reranker.trainer.step import StepResult


@dataclass(frozen=True)
class Event:
    """A completed step, or an evaluation on the dev lists.

    Attributes:
        step: Steps completed so far.
        n_steps: Total number of steps.
        encoder: The encoder with its current weights.
        result: Result of the step; None for an evaluation.
        dev_ndcg_10: Result of the evaluation; None for a step.
    """

    step: int
    n_steps: int
    encoder: Encoder
    result: StepResult | None = None
    dev_ndcg_10: float | None = None


Callback = Callable[[Event], bool | None]


class Callbacks:
    """Runs the callbacks in rank 0 and stops all processes after the same step.

    Attributes:
        stopped: Whether a callback has returned True.
    """

    def __init__(self, callbacks: Sequence[Callback], processes: ProcessGroup) -> None:
        self._callbacks = callbacks if processes.rank == 0 else ()
        self._processes = processes
        self._is_used = processes.broadcast_object(bool(callbacks))
        self.stopped = False

    def notify(self, event: Event) -> None:
        """Call every callback with the event, in order."""
        if self._is_used:
            answers = [callback(event) for callback in self._callbacks]
            self.stopped |= self._processes.broadcast_object(any(answers))
