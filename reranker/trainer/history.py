"""What is told of a training while it runs: logs of some steps each, to the caller, the history and a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from reranker.model.throughput import Work
from reranker.trainer.step import Stepped

if TYPE_CHECKING:
    from rich.progress import Progress

DEV_METRIC = "dev_ndcg_10"
OnLog = Callable[[dict[str, Any], int], None]


@dataclass
class History:
    """What happened during training.

    Attributes:
        logs: One dict per log or evaluation, in order: step, and loss, learning_rate, grad_norm, spread (of logits
            within groups), and `Work.speeds`; or dev_ndcg_10.
        best_step: The optimiser step whose weights were kept.
        best_dev: Its mean NDCG@10 on the dev lists.
        n_steps: Optimiser steps taken.
        pairs_per_s, tokens_per_s, padding_fraction, gemm_peak_fraction: `Work.speeds` of all steps, evaluations left
            out.
    """

    logs: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_dev: float = math.nan
    n_steps: int = 0
    pairs_per_s: float = math.nan
    tokens_per_s: float = math.nan
    padding_fraction: float = math.nan
    gemm_peak_fraction: float = math.nan


class Record:
    """Collects steps and tells of them every log_steps; in the processes that are not to tell it collects alone.

    Attributes:
        window: Steps that no log has told of yet: the loss, and then the work's values, of each.
        done: The same, summed over all steps.
    """

    def __init__(
        self, history: History, on_log: OnLog, bar: Progress, *, tells: bool, peak: float
    ) -> None:
        """With peak, the FLOPs per second of matrix products, all processes together."""
        self.history, self.done = history, [0.0, *astuple(Work())]
        self.window: list[list[float]] = []
        self._on_log, self._bar, self._tells, self._peak = on_log, bar, tells, peak

    def begin(self, step: int, n_steps: int) -> None:
        """Show a bar of n_steps, and tell again what an earlier process told before it went down."""
        self._task = self._bar.add_task("", total=n_steps, completed=step)
        for row in self.history.logs:
            self._tell(
                {name: value for name, value in row.items() if name != "step"}, int(row["step"])
            )

    def step(self, n_done: int, stepped: Stepped, seconds: float) -> None:
        """Take note of the step after which n_done are done."""
        self.window.append([stepped.loss, *astuple(stepped.work + Work(seconds=seconds))])
        self.done = [a + b for a, b in zip(self.done, self.window[-1], strict=True)]
        self._bar.update(self._task, completed=n_done)

    def log(self, n_done: int, last: Stepped) -> None:
        """Tell of the steps since the last log: means of loss and speed, and the rest of the last step."""
        loss, *work = (sum(column) for column in zip(*self.window, strict=True))
        numbers = {
            "loss": loss / len(self.window),
            "learning_rate": last.learning_rate,
            "grad_norm": last.grad_norm,
            "spread": last.spread,
            **Work(*work).speeds(self._peak),
        }
        self.window = []
        self.tell({name: value for name, value in numbers.items() if not math.isnan(value)}, n_done)

    def tell(self, numbers: dict[str, float], n_done: int) -> None:
        """Keep numbers in the history, and tell of them."""
        self.history.logs.append({"step": n_done, **numbers})
        self._tell(numbers, n_done)

    def describe(self, text: str) -> None:
        """Write a text behind the bar."""
        self._bar.update(self._task, description=text)

    def finish(self, n_done: int) -> None:
        """Tell what the whole training came to."""
        loss, work = self.done[0], Work(*self.done[1:])
        self.history.n_steps = n_done
        for name, value in work.speeds(self._peak).items():
            setattr(self.history, name, value)
        if n_done:
            self.tell({"mean_loss": loss / n_done, "runtime_s": work.seconds}, n_done)

    def _tell(self, numbers: dict[str, float], n_done: int) -> None:
        shown = [f"{name} {numbers[name]:.3f}" for name in ("loss", DEV_METRIC) if name in numbers]
        if shown:
            self.describe(", ".join(shown))
        if self._tells:
            self._on_log(numbers, n_done)


def bar(*, disabled: bool) -> Progress:
    """The bar of the fine-tuning, for a terminal alone; as a context it leaves no trace there, whatever happens."""
    from rich import get_console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = get_console()
    columns = TextColumn("fine-tuning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    last = TextColumn("{task.description}")
    hidden = disabled or not console.is_interactive
    return Progress(*columns, last, console=console, transient=True, disable=hidden)
