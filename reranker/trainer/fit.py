"""Fine-tune a cross-encoder on pairs with sentence-transformers' trainer; the best checkpoint on dev lists is kept."""

from __future__ import annotations

import math
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
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments

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

    Args:
        pairs: Parquet with user_ctx, book_text, label.
        score_dev: Mean NDCG@10 of the encoder, as it stands, on the dev lists.
        on_log: Receives the trainer's logs and the step, for tracking.
    """
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, losses
    from transformers import PrinterCallback, ProgressCallback

    frame = pd.read_parquet(pairs, columns=["user_ctx", "book_text", "label"])
    history = History()
    with tempfile.TemporaryDirectory(prefix="reranker-checkpoints-") as folder:
        args = _arguments(cfg, encoder, Path(folder), len(frame))
        seconds: list[float] = []
        trainer = CrossEncoderTrainer(
            model=encoder.model,
            args=args,
            train_dataset=_dataset(frame),
            loss=losses.BinaryCrossEntropyLoss(encoder.model),
            evaluator=_evaluator(score_dev, seconds),
            callbacks=[_callback(history, on_log)],
        )
        for callback in (ProgressCallback, PrinterCallback):  # ours shows one bar instead of a line per log
            trainer.remove_callback(callback)
        start = time.perf_counter()
        with quiet():
            trainer.train()
        _finish(history, trainer, args, time.perf_counter() - start - sum(seconds))
    encoder.model.eval()
    return history


def _arguments(cfg: TrainerConfig, encoder: Encoder, folder: Path, n_pairs: int) -> CrossEncoderTrainingArguments:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    n_steps = cfg.max_steps or math.ceil(math.ceil(n_pairs / cfg.batch_size) * cfg.epochs)
    every = max(1, n_steps // cfg.n_evaluations)
    on_gpu = encoder.model.device.type == "cuda"
    bf16 = cfg.precision == "bf16" or (cfg.precision == "auto" and on_gpu and torch.cuda.is_bf16_supported())
    return CrossEncoderTrainingArguments(
        output_dir=str(folder),
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
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,  # beside the best
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


def _callback(history: History, on_log: OnLog) -> Any:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from transformers import TrainerCallback

    class Record(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            columns = TextColumn("fine-tuning"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
            self.progress = Progress(*columns, TextColumn("{task.description}"), transient=True)
            self.task = self.progress.add_task("", total=state.max_steps)
            self.progress.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress.update(self.task, completed=state.global_step)

        def on_log(
            self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any
        ) -> None:
            numbers = {k.removeprefix("eval_"): float(v) for k, v in (logs or {}).items() if isinstance(v, int | float)}
            history.logs.append({"step": state.global_step, **numbers})
            shown = [f"{k} {numbers[k]:.3f}" for k in ("loss", DEV_METRIC) if k in numbers]
            if shown:
                self.progress.update(self.task, description=", ".join(shown))
            on_log(numbers, state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.progress.stop()

    return Record()


def _finish(
    history: History, trainer: CrossEncoderTrainer, args: CrossEncoderTrainingArguments, seconds: float
) -> None:
    state = trainer.state
    history.n_steps = state.global_step
    history.best_step = int(state.best_global_step or 0)
    history.best_dev = float(state.best_metric if state.best_metric is not None else math.nan)
    history.pairs_per_s = state.global_step * args.per_device_train_batch_size / max(seconds, 1e-9)
