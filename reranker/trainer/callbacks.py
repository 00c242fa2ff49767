"""What a caller of `fit` may watch while it runs, and end it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reranker.model import Encoder
from reranker.trainer.distributed import ProcessGroup
from reranker.trainer.step import Stepped


@dataclass(frozen=True)
class Event:
    """A step that was taken, or an evaluation on the dev lists.

    Attributes:
        step: Steps taken so far, of n_steps.
        encoder: As it stands.
        stepped: What the step came to; None at an evaluation.
        dev_ndcg_10: What the evaluation came to; None at a step.
    """

    step: int
    n_steps: int
    encoder: Encoder
    stepped: Stepped | None = None
    dev_ndcg_10: float | None = None


Callback = Callable[[Event], bool | None]


class Callbacks:
    """Those of process 0, by which all processes stop together.

    Attributes:
        stopped: One of them has returned True.
    """

    def __init__(self, callbacks: Sequence[Callback], ranks: ProcessGroup) -> None:
        self._callbacks, self._ranks = callbacks if ranks.rank == 0 else (), ranks
        self._watching = ranks.share(bool(callbacks))
        self.stopped = False

    def tell(self, event: Event) -> None:
        """Call each of them with the event, in their order."""
        if self._watching:
            asked = [callback(event) for callback in self._callbacks]
            self.stopped |= self._ranks.share(any(asked))
