"""Fine-tune a cross-encoder on pairs with sentence-transformers' trainer; the best checkpoint on dev lists is kept."""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from reranker.config import TrainerConfig
from reranker.model import Encoder
from reranker.model.source import quiet

if TYPE_CHECKING:
    from rich.progress import Progress
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from transformers import TrainerCallback

DEV_METRIC = "dev_ndcg_10"
OnLog = Callable[[dict[str, Any], int], None]


@dataclass
class History:
    """What happened during training.

    Attributes:
        logs: One dict per log or evaluation, in order: step, and loss, learning_rate, grad_norm or dev_ndcg_10.
        best_step: The optimiser step whose weights were kept.
        best_dev: Its mean NDCG@10 on the dev lists.
        n_steps: Optimiser steps taken.
        pairs_per_s: Pairs trained on per second, evaluations left out.
    """

    logs: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_dev: float = math.nan
    n_steps: int = 0
    pairs_per_s: float = math.nan


def fit(encoder: Encoder, pairs: Path, score_dev: Callable[[], float], cfg: TrainerConfig, on_log: OnLog) -> History:
    """Fine-tune the encoder in place with binary cross-entropy on raw logits.

    The dev lists are scored `n_evaluations` times at even distances, for the last time after the last step (after
    every step where there are fewer), and the weights that did best are kept.

    Args:
        pairs: Parquet with user_ctx, book_text, label.
        score_dev: Mean NDCG@10 of the encoder, as it stands, on the dev lists.
        on_log: Receives the trainer's logs and the step, for tracking.
    """
    frame = pd.read_parquet(pairs, columns=["user_ctx", "book_text", "label"])
    history = History()
    seconds: list[float] = []
    with tempfile.TemporaryDirectory(prefix="reranker-checkpoints-") as folder, _bar() as bar, quiet():
        callback = _callback(history, on_log, cfg.n_evaluations, bar)
        trainer = _trainer(encoder, frame, _evaluator(score_dev, seconds), callback, _arguments(cfg, encoder, folder))
        start = time.perf_counter()
        try:
            trainer.train()
        finally:
            _unwrap(encoder)
        _finish(history, trainer, time.perf_counter() - start - sum(seconds))
    encoder.model.eval()
    return history


def _trainer(
    encoder: Encoder,
    frame: pd.DataFrame,
    evaluator: BaseEvaluator,
    callback: TrainerCallback,
    args: CrossEncoderTrainingArguments,
) -> CrossEncoderTrainer:
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, losses
    from transformers import PrinterCallback, ProgressCallback

    trainer = CrossEncoderTrainer(
        model=encoder.model,
        args=args,
        train_dataset=_dataset(frame),
        loss=losses.BinaryCrossEntropyLoss(encoder.model),
        evaluator=evaluator,
        callbacks=[callback],
    )
    for other in (ProgressCallback, PrinterCallback):  # ours shows one bar instead of a line per log
        trainer.remove_callback(other)
    return trainer


def _unwrap(encoder: Encoder) -> None:
    """Take back what accelerate puts on the model and leaves there: under bf16 a forward inside autocast."""
    for name in ("forward", "_original_forward", "_is_accelerate_prepared"):
        vars(encoder.model).pop(name, None)


def _arguments(cfg: TrainerConfig, encoder: Encoder, folder: str) -> CrossEncoderTrainingArguments:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    on_gpu = encoder.model.device.type == "cuda"
    bf16 = cfg.precision == "bf16" or (cfg.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported())
    return CrossEncoderTrainingArguments(
        output_dir=folder,
        num_train_epochs=cfg.epochs,
        max_steps=cfg.max_steps or -1,
        per_device_train_batch_size=cfg.batch_size,
        learning_rate=cfg.learning_rate,
        weight_decay=cfg.weight_decay,
        warmup_steps=cfg.warmup_fraction,  # below 1 it is a share of all steps
        bf16=bf16,
        use_cpu=not on_gpu,
        dataloader_pin_memory=on_gpu,
        seed=cfg.seed,
        eval_strategy="steps",
        eval_steps=sys.maxsize,  # our callback says when
        save_strategy="best",
        save_total_limit=1,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model=f"eval_{DEV_METRIC}",
        greater_is_better=True,
        logging_steps=cfg.log_steps,
        report_to=[],
        disable_tqdm=True,
    )


def _dataset(frame: pd.DataFrame) -> Any:
    """The trainer's dataset; its column order decides which text is the query."""
    from datasets import Dataset

    columns = {name: frame[name].astype(str).tolist() for name in ("user_ctx", "book_text")}
    return Dataset.from_dict(columns | {"label": frame["label"].astype(float).tolist()})


def _evaluator(score_dev: Callable[[], float], seconds: list[float]) -> BaseEvaluator:
    """sentence-transformers' evaluator around `score_dev`; appends the seconds of each call."""
    from sentence_transformers.base.evaluation import BaseEvaluator

    class DevEvaluator(BaseEvaluator):
        primary_metric = DEV_METRIC

        def __call__(self, *args: object, **kwargs: object) -> dict[str, float]:
            start = time.perf_counter()
            value = score_dev()
            seconds.append(time.perf_counter() - start)
            return {DEV_METRIC: value}

    return DevEvaluator()


def _bar() -> Progress:
    """The bar of the fine-tuning, for a terminal alone; as a context it leaves no trace there, whatever happens."""
    from rich import get_console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = get_console()
    columns = TextColumn("fine-tuning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    last = TextColumn("{task.description}")
    return Progress(*columns, last, console=console, transient=True, disable=not console.is_interactive)


def evaluation_steps(n_steps: int, n_evaluations: int) -> list[int]:
    """The steps after which the dev lists are scored: ascending, evenly, and the last step among them.

    (min(n_steps, n_evaluations),) steps from 1 to n_steps; with 7 steps and 4 evaluations 2, 4, 6, 7.
    """
    n = min(n_steps, n_evaluations)
    return [-(-n_steps * i // n) for i in range(1, n + 1)]


def _callback(history: History, on_log: OnLog, n_evaluations: int, bar: Progress) -> TrainerCallback:
    from transformers import TrainerCallback

    class Record(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.task = bar.add_task("", total=state.max_steps)
            self.evaluate_after = set(evaluation_steps(state.max_steps, n_evaluations))

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.update(self.task, completed=state.global_step)
            if state.global_step in self.evaluate_after:
                control.should_evaluate = True  # and "best" saves after it
                bar.update(self.task, description="scoring dev lists")

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            numbers = {k.removeprefix("eval_"): float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
            history.logs.append({"step": state.global_step, **numbers})
            shown = [f"{k} {numbers[k]:.3f}" for k in ("loss", DEV_METRIC) if k in numbers]
            if shown:
                bar.update(self.task, description=", ".join(shown))
            on_log(numbers, state.global_step)

    return Record()


def _finish(history: History, trainer: CrossEncoderTrainer, seconds: float) -> None:
    state = trainer.state
    history.n_steps = state.global_step
    history.best_step = int(state.best_global_step or 0)
    history.best_dev = float(state.best_metric if state.best_metric is not None else math.nan)
    history.pairs_per_s = state.global_step * trainer.args.per_device_train_batch_size / max(seconds, 1e-9)
