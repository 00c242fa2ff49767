"""Fine-tune a cross-encoder on pairs: optimiser steps, dev evaluations, and the best weights."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reranker.cache import digest_file
from reranker.config import ModelConfig, TrainerConfig
from reranker.errors import TrainingError
from reranker.model import Encoder
from reranker.model.weights import quiet
from reranker.trainer import batches, checkpoints, distributed, history
from reranker.trainer.callbacks import Callback, Callbacks, Event
from reranker.trainer.checkpoints import Checkpoints
from reranker.trainer.dataset import PairDataset, read
from reranker.trainer.distributed import ProcessGroup, Task
from reranker.trainer.health_checks import HealthChecks
from reranker.trainer.history import CHOOSES, DEV, History, OnLog, Record
from reranker.trainer.losses import POINTWISE
from reranker.trainer.optimiser import Optimiser, is_head
from reranker.trainer.step import Stepper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

# Keys that may differ when a training resumes. The teacher is one of them because its scores are
# part of the pairs' digest.
OTHER_KEYS = (
    "checkpoint_dir",
    "compile",
    "device",
    "gradient_checkpointing",
    "log_steps",
    "precision",
    "teacher",
)

ScoreDev = Callable[[], Mapping[str, float]]  # metrics on the dev lists, by name

LEFT_OUT = (
    "{}: {} negatives are not used for training, because trainer.group_size={} separates them from "
    "the positives of their group."
)


def ignore_log(logs: dict[str, Any], step: int) -> None:
    """Ignore a log."""


def fit(
    encoder: Encoder,
    pairs: Path,
    score_dev: ScoreDev,
    *,
    cfg: TrainerConfig,
    model: ModelConfig | None = None,
    on_log: OnLog = ignore_log,
    dev_lists: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Fine-tune the encoder in place with the objective `trainer.loss`.

    The dev lists are scored `n_evaluations` times at equal intervals, or every `evaluation_steps`
    steps, the last time after the last step. The best weights are kept. The pairs of a
    step and dropout are functions of seed and step, so a training that resumes from
    `checkpoint_dir` takes the same steps as without the interruption.

    Under torchrun every process computes a part of each step, which has batch_size pairs per
    process. Only rank 0 calls score_dev, on_log and callbacks.

    Args:
        pairs: Parquet with user_ctx, book_text, label; user_id if two users may share a context;
            score (a teacher's) for mse and margin_mse, and if trainer.teacher_weight > 0.
        score_dev: Returns the current encoder's metrics on the dev lists. `ndcg_10` chooses the
            best weights; all are logged with the prefix `dev_`.
        model: Configuration of the encoder. With it, rank 0 sends the task to the processes that
            are in `run_worker`.
        on_log: Receives logs and their step. A resumed training first repeats the earlier logs.
        dev_lists: Digest of the dev lists. A training with other dev lists cannot be resumed.
        callbacks: Called after every step and every evaluation. If one returns True, training ends;
            after a step, the dev lists are scored once more first.

    Returns:
        Logs, the best step and its dev metric, and throughput.

    Raises:
        DataError: The pairs are not suitable for this objective.
        TrainingError: Loss, gradient or score_dev is not finite, scores have collapsed, the dev
            metric stays below the untrained model's (if stop_below_start is set), or the
            checkpoints belong to another training.

    Example:
        >>> history = fit(encoder, pairs.path, score_dev, cfg=cfg.trainer, model=cfg.model)
        >>> history.best_step, history.best_dev
        (52, 0.41)
    """
    from reranker.model.precision import keep_freed_memory

    device = encoder.model.device.type
    with distributed.process_group() as processes:
        if model is not None and processes.rank == 0:
            distributed.broadcast_task(processes, Task(model, cfg, pairs.resolve()))
        with quiet(), history.bar(disabled=processes.rank > 0) as bar, _restored_random_state():
            dataset = read(pairs, encoder, cfg)
            if device == "cpu":
                keep_freed_memory()
            if dataset.n_left_out and processes.rank == 0:
                print(LEFT_OUT.format(pairs, dataset.n_left_out, cfg.group_size), file=sys.stderr)
            bf16 = processes.broadcast_object(_use_bf16(cfg, device))
            training = _Training(
                encoder,
                dataset,
                score_dev,
                cfg=cfg,
                on_log=on_log,
                processes=processes,
                bar=bar,
                bf16=bf16,
                callbacks=callbacks,
            )
            if cfg.checkpoint_dir is not None:
                identity = _identity(
                    encoder, pairs, cfg, processes=processes, bf16=bf16, dev_lists=dev_lists
                )
                training.use_checkpoints(Path(cfg.checkpoint_dir), identity)
            try:
                training.run()
            finally:
                training.close()
    return training.record.history


class _Training:
    """One training run: takes its steps, evaluates it, and saves and restores its state."""

    def __init__(
        self,
        encoder: Encoder,
        dataset: PairDataset,
        score_dev: ScoreDev,
        *,
        cfg: TrainerConfig,
        on_log: OnLog,
        processes: ProcessGroup,
        bar: Progress,
        bf16: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        # Without padding there is no gain in steps of texts of equal length.
        length = np.ones_like(dataset.length) if encoder.packed else dataset.length
        self.plan = batches.Plan(
            dataset.chunk,
            length,
            n_pairs=cfg.batch_size * processes.world_size,
            seed=cfg.seed,
            cut_chunks=cfg.loss in POINTWISE,
        )
        self.n_steps = self.plan.n_steps(cfg.epochs, cfg.max_steps)
        self.optimiser = Optimiser(encoder, cfg, self.n_steps)
        self.stepper = Stepper(
            encoder, dataset, self.optimiser, cfg=cfg, processes=processes, bf16=bf16
        )
        self.health_checks = HealthChecks(cfg)
        self.callbacks = Callbacks(callbacks, processes)
        peak = processes.world_size * encoder.gemm_flops_per_s(bf16=bf16)
        self.record = Record(History(), on_log, bar=bar, logs=processes.rank == 0, peak=peak)
        self.checkpoints: Checkpoints | None = None
        self.encoder, self.score_dev, self.cfg, self.processes = encoder, score_dev, cfg, processes
        self.step = self.n_evaluations = self.n_worse = 0
        self.start = self.best = float("-inf")
        self.weights: dict[str, Any] = {}

    def use_checkpoints(self, folder: Path, identity: dict[str, Any]) -> None:
        """Save checkpoints to the folder, and resume from its newest checkpoint if there is one."""
        self.checkpoints = Checkpoints(folder, identity)
        state = self.checkpoints.newest(str(self.encoder.model.device))
        step = state and state["step"]
        if self.processes.broadcast_object(step) != step:
            raise TrainingError(
                f"{folder}: processes found different checkpoints. Set trainer.checkpoint_dir to a "
                "folder that all machines share."
            )
        if state is not None:
            self._restore(state)
            if self.processes.rank == 0:
                print(f"resumed from step {self.step} of {folder}", file=sys.stderr)

    def run(self) -> None:
        """Take the remaining steps, and load the best weights."""
        evaluate_after = evaluation_steps(self.n_steps, self.cfg)
        self.processes.broadcast_parameters(self.optimiser.parameters)
        self.record.begin(self.step, self.n_steps)
        if self.cfg.stop_below_start and self.step == 0:
            self.start = self._score()
        for rows in self.plan.rows(self.step, self.n_steps):
            if self._ends_early():
                break
            self._take(rows)
            if self.step in evaluate_after or self.callbacks.stopped:
                self._evaluate()
        self.record.finish(self.step)
        self.encoder.model.load_state_dict(self.weights)
        self.processes.broadcast_parameters(self.optimiser.parameters)

    def close(self) -> None:
        """Make the model ready to score."""
        self.optimiser.close()
        self.encoder.model.eval()

    def _take(self, rows: batches.IntArray) -> None:
        """Take one step, check it, and log it every log_steps."""
        start = time.perf_counter()
        result = self.stepper.take(self.step, rows)
        self.step += 1
        self.health_checks.check_step(self.step, result.loss, result.grad_norm)
        self.record.add_step(self.step, result, time.perf_counter() - start)
        if self.step % self.cfg.log_steps == 0 or self.step == self.n_steps:
            self.record.log_window(self.step, result)
            # With bce, the pairs of a step often belong to different groups, which have no spread.
            no_spread = math.isnan(result.spread)
            spread = result.total_spread if no_spread else result.spread
            self.health_checks.check_spread(self.step, spread)
        self.callbacks.notify(Event(self.step, self.n_steps, self.encoder, result=result))

    def _evaluate(self) -> None:
        """Score the dev lists, keep the weights if they are the best, and save a checkpoint."""
        value = self._score()
        self.n_evaluations += 1
        self.n_worse += 1
        if value > self.best or not self.weights:
            self.best, self.n_worse = value, 0
            self.record.history.best_step, self.record.history.best_dev = self.step, value
            state = self.encoder.model.state_dict()
            self.weights = {k: v.detach().to("cpu", copy=True) for k, v in state.items()}
        self.health_checks.check_dev(
            self.step, self.n_evaluations, best=self.best, start=self.start
        )
        if self.checkpoints is not None and self.processes.rank == 0:
            self.checkpoints.save(self.step, self._state())
        self.callbacks.notify(Event(self.step, self.n_steps, self.encoder, dev_ndcg_10=value))

    def _score(self) -> float:
        """Evaluate on the dev lists in rank 0, broadcast and log the metrics; return NDCG@10."""
        self.record.show("scoring dev lists")
        local = self.score_dev() if self.processes.rank == 0 else None
        metrics: Mapping[str, float] = self.processes.broadcast_object(local)
        self.health_checks.check_evaluation(self.step, metrics[CHOOSES])
        self.record.log({DEV + name: value for name, value in metrics.items()}, self.step)
        return metrics[CHOOSES]

    def _ends_early(self) -> bool:
        patience = self.cfg.patience
        return self.callbacks.stopped or (patience is not None and self.n_worse >= patience)

    def _state(self) -> dict[str, Any]:
        """Return the state that a checkpoint saves."""
        record, history = self.record, self.record.history
        return {
            "step": self.step,
            "model": self.encoder.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "best": {"value": self.best, "step": history.best_step, "weights": self.weights},
            "evaluations": [self.n_evaluations, self.n_worse, self.start],
            "record": {"logs": history.logs, "window": record.window, "done": record.done},
            "n_collapsed": self.health_checks.n_collapsed,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        """Load a state that `_state` returned."""
        self.step = state["step"]
        self.encoder.model.load_state_dict(state["model"])
        self.optimiser.restore(state["optimiser"])
        best, saved, history = state["best"], state["record"], self.record.history
        self.best, self.weights = best["value"], best["weights"]
        self.n_evaluations, self.n_worse, self.start = state["evaluations"]
        history.logs = saved["logs"]
        history.best_step, history.best_dev = best["step"], self.best
        self.record.window, self.record.done = saved["window"], saved["done"]
        self.health_checks.n_collapsed = state["n_collapsed"]


def evaluation_steps(n_steps: int, cfg: TrainerConfig) -> set[int]:
    """Return the steps after which the dev lists are scored; the last step is one of them.

    Without `trainer.evaluation_steps` they are min(n_steps, n_evaluations) steps at equal
    intervals: 7 steps and 4 evaluations give 2, 4, 6, 7. With it they are its multiples: 7 steps
    and evaluation_steps=3 give 3, 6, 7.
    """
    if cfg.evaluation_steps is not None:
        return {*range(cfg.evaluation_steps, n_steps, cfg.evaluation_steps), n_steps}
    n = min(n_steps, cfg.n_evaluations)
    return {-(-n_steps * i // n) for i in range(1, n + 1)}


def _use_bf16(cfg: TrainerConfig, device: str) -> bool:
    """Return whether steps compute in bf16.

    `auto` keeps the precision of existing checkpoints, because the result of its speed trial
    depends on the machine's load.
    """
    from reranker.model.precision import bf16_is_faster

    if cfg.precision != "auto":
        return cfg.precision == "bf16"
    earlier = None
    if cfg.checkpoint_dir is not None:
        earlier = checkpoints.read_identity(Path(cfg.checkpoint_dir)).get("bf16")
    return bf16_is_faster(device) if earlier is None else bool(earlier)


def _identity(
    encoder: Encoder,
    pairs: Path,
    cfg: TrainerConfig,
    *,
    processes: ProcessGroup,
    bf16: bool,
    dev_lists: str | None,
) -> dict[str, Any]:
    """Return everything that determines the result of a training run, by name."""
    keys = {f"trainer.{k}": v for k, v in asdict(cfg).items() if k not in OTHER_KEYS}
    weights = {
        "weights": encoder.weights.sha256 or encoder.weights.description,
        "attention": encoder.attention,
        "max_tokens": encoder.max_tokens,
        "bf16": bf16,
        "n_layers": encoder.n_layers,
        "files of the weights": encoder.weights.digest(),
    }
    # Only rank 0 knows the dev lists, and all processes start from its weights.
    of_rank_0 = {"dev_lists": dev_lists, "head drawn with model.seed": _drawn_head(encoder)}
    of_rank_0 = processes.broadcast_object(of_rank_0 | _dropout(encoder))
    parts = sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs]
    files = {"pairs": [digest_file(part) for part in parts], "n_processes": processes.world_size}
    return keys | weights | of_rank_0 | files


def _drawn_head(encoder: Encoder) -> str | None:
    """Return the SHA-256 of a new head; None if the head is part of the weights."""
    if not encoder.new_head:
        return None
    head = (p for name, p in encoder.model.named_parameters() if is_head(encoder, name))
    content = b"".join(p.detach().cpu().numpy().tobytes() for p in head)
    return hashlib.sha256(content).hexdigest()


def _dropout(encoder: Encoder) -> dict[str, Any]:
    """Return the model's dropout rates by their names in its own configuration."""
    module: Any = encoder.model[0].model
    return {name: value for name, value in module.config.to_dict().items() if "dropout" in name}


@contextmanager
def _restored_random_state() -> Iterator[None]:
    """Restore torch's random state at the end of the block."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
