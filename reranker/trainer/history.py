"""The history of a training, with logs for the caller and a progress bar in a terminal."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

from reranker.model.throughput import Work
from reranker.trainer.step import StepResult

if TYPE_CHECKING:
    from rich.progress import Progress

DEV = "dev_"  # prefix of the metrics of an evaluation
CHOOSES = "ndcg_10"  # the metric that chooses the best weights
DEV_METRIC = DEV + CHOOSES
OnLog = Callable[[dict[str, Any], int], None]


@dataclass
class History:
    """The logs of a training, its best step and its throughput.

    Attributes:
        logs: One dict per log or evaluation, in order: step, and either loss, learning_rate,
            grad_norm, spread (of logits within groups) and `Work.speeds`, or dev_ndcg_10 and the
            other metrics of the evaluation, dev_map and so on.
        best_step: The optimiser step whose weights were kept.
        best_dev: Mean NDCG@10 on the dev lists after that step.
        n_steps: Optimiser steps taken.
        pairs_per_s, tokens_per_s, padding_fraction, gemm_peak_fraction: `Work.speeds` of all steps,
            without evaluations.
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
    """Collects the results of steps, and logs them.

    Attributes:
        window: (loss, *work) of every step since the last log.
        done: The sum of (loss, *work) over all steps.
    """

    def __init__(
        self, history: History, on_log: OnLog, *, bar: Progress, logs: bool, peak: float
    ) -> None:
        """Set up the record.

        Args:
            logs: Whether this process calls on_log.
            peak: FLOPs per second of matrix products, summed over all processes.
        """
        self.history, self.done = history, [0.0, *astuple(Work())]
        self.window: list[list[float]] = []
        self._on_log, self._bar, self._logs, self._peak = on_log, bar, logs, peak

    def begin(self, step: int, n_steps: int) -> None:
        """Show a bar of n_steps, and repeat the logs of the resumed training."""
        self._task = self._bar.add_task("", total=n_steps, completed=step)
        for row in self.history.logs:
            values = {name: value for name, value in row.items() if name != "step"}
            self._notify(values, int(row["step"]))

    def add_step(self, n_done: int, result: StepResult, seconds: float) -> None:
        """Add the result of a step; n_done steps are complete, including this one."""
        self.window.append([result.loss, *astuple(result.work + Work(seconds=seconds))])
        self.done = [a + b for a, b in zip(self.done, self.window[-1], strict=True)]
        self._bar.update(self._task, completed=n_done)

    def log_window(self, n_done: int, last: StepResult) -> None:
        """Log mean loss and speed since the last log, and the other values of the last step."""
        loss, *work = (sum(column) for column in zip(*self.window, strict=True))
        numbers = {
            "loss": loss / len(self.window),
            "learning_rate": last.learning_rate,
            "grad_norm": last.grad_norm,
            "spread": last.spread,
            **Work(*work).speeds(self._peak),
        }
        self.window = []
        known = {name: value for name, value in numbers.items() if not math.isnan(value)}
        self.log(known, n_done)

    def log(self, numbers: dict[str, float], n_done: int) -> None:
        """Add numbers to the history, and log them."""
        self.history.logs.append({"step": n_done, **numbers})
        self._notify(numbers, n_done)

    def show(self, text: str) -> None:
        """Show a text next to the bar."""
        self._bar.update(self._task, description=text)

    def finish(self, n_done: int) -> None:
        """Log mean loss and seconds of the complete training, and set the history's speeds."""
        loss, work = self.done[0], Work(*self.done[1:])
        self.history.n_steps = n_done
        for name, value in work.speeds(self._peak).items():
            setattr(self.history, name, value)
        if n_done:
            self.log({"mean_loss": loss / n_done, "runtime_s": work.seconds}, n_done)

    def _notify(self, numbers: dict[str, float], n_done: int) -> None:
        """Show the loss or the dev metric next to the bar, and call on_log."""
        parts = [f"{name} {numbers[name]:.3f}" for name in ("loss", DEV_METRIC) if name in numbers]
        if parts:
            self.show(", ".join(parts))
        if self._logs:
            self._on_log(numbers, n_done)


def bar(*, disabled: bool) -> Progress:
    """Return a progress bar for the training; as a context manager it erases itself at the end.

    It is shown only in an interactive terminal.
    """
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
