"""Fine-tune a cross-encoder on pairs: the steps, the evaluations between them, the best weights at the end."""

from __future__ import annotations

import hashlib
import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from reranker.cache import digest_file
from reranker.config import TrainerConfig
from reranker.errors import TrainingError
from reranker.model import Encoder
from reranker.model.weights import quiet
from reranker.trainer import batches, checkpoints, distributed, history
from reranker.trainer.callbacks import Callback, Callbacks, Event
from reranker.trainer.checkpoints import Checkpoints
from reranker.trainer.dataset import PairDataset, read
from reranker.trainer.distributed import ProcessGroup
from reranker.trainer.health_checks import Sentinels
from reranker.trainer.history import DEV_METRIC, History, OnLog, Record
from reranker.trainer.losses import POINTWISE
from reranker.trainer.optimiser import Optimiser, is_head
from reranker.trainer.step import Stepper

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress

# A resumed training may change them. What a teacher has said stands in the pairs, whose digest counts.
OTHER_KEYS = (
    "checkpoint_dir",
    "compile",
    "device",
    "gradient_checkpointing",
    "log_steps",
    "precision",
    "teacher",
)


LEFT_OUT = "{}: {} negatives are not learnt from, for trainer.group_size={} cuts them off from their group's positives."


def fit(
    encoder: Encoder,
    pairs: Path,
    score_dev: Callable[[], float],
    cfg: TrainerConfig,
    on_log: OnLog,
    *,
    dev_lists: str | None = None,
    callbacks: Sequence[Callback] = (),
) -> History:
    """Fine-tune the encoder in place with the objective `trainer.loss`.

    The dev lists are scored `n_evaluations` times at even distances, for the last time after the last step (after
    every step where there are fewer), and the weights that did best are kept. Pairs of a step, and dropout, are
    functions of the seed and the step: a training that goes on from `checkpoint_dir` takes the steps that it would
    have taken. Started by torchrun, each process computes a share of every step, of batch_size pairs per process;
    then score_dev, on_log and callbacks are called in process 0 alone.

    Args:
        pairs: Parquet with user_ctx, book_text, label; user_id where two users may share a context; score, a
            teacher's, for the objectives mse and margin_mse.
        score_dev: Mean NDCG@10 of the encoder, as it stands, on the dev lists.
        on_log: Receives logs and the step, for tracking; the logs before a resumption are told again.
        dev_lists: A digest of the dev lists; a training on others does not go on from `checkpoint_dir`.
        callbacks: Called after every step and every evaluation. One that returns True ends the training: after a step
            the dev lists are scored once more, and the weights that did best are kept.

    Raises:
        DataError: The pairs cannot be learnt from with this objective.
        TrainingError: Loss, gradient or score_dev is not finite, scores have collapsed, the dev lists stay below the
            start where the configuration asks to watch it, or the checkpoints are another training's.
    """
    from reranker.model.precision import keep_freed_memory

    device = encoder.model.device.type
    with (
        quiet(),
        distributed.joined() as ranks,
        history.bar(disabled=ranks.rank > 0) as bar,
        _own_random_state(),
    ):
        examples = read(pairs, encoder, cfg)
        if device == "cpu":
            keep_freed_memory()
        if examples.n_left_out and ranks.rank == 0:
            print(LEFT_OUT.format(pairs, examples.n_left_out, cfg.group_size), file=sys.stderr)
        bf16 = ranks.share(_takes_bf16(cfg, device))
        training = _Training(encoder, examples, score_dev, cfg, on_log, ranks, bar, bf16, callbacks)
        if cfg.checkpoint_dir is not None:
            training.keep_checkpoints(
                Path(cfg.checkpoint_dir), _identity(encoder, pairs, cfg, ranks, bf16, dev_lists)
            )
        try:
            training.run()
        finally:
            training.close()
    return training.record.history


class _Training:
    """The state of one training between two steps, which is what a checkpoint holds."""

    def __init__(
        self,
        encoder: Encoder,
        examples: PairDataset,
        score_dev: Callable[[], float],
        cfg: TrainerConfig,
        on_log: OnLog,
        ranks: ProcessGroup,
        bar: Progress,
        bf16: bool,
        callbacks: Sequence[Callback],
    ) -> None:
        cut = cfg.loss in POINTWISE
        n_pairs = cfg.batch_size * ranks.n
        # Where nothing is padded, steps of texts of one length gain nothing.
        length = np.ones_like(examples.length) if encoder.packed else examples.length
        self.plan = batches.Plan(examples.unit, length, n_pairs=n_pairs, seed=cfg.seed, cut=cut)
        self.n_steps = self.plan.n_steps(cfg.epochs, cfg.max_steps)
        self.optimiser = Optimiser(encoder, cfg, self.n_steps)
        self.stepper = Stepper(encoder, examples, self.optimiser, cfg, ranks, bf16)
        self.sentinels = Sentinels(cfg)
        self.callbacks = Callbacks(callbacks, ranks)
        peak = ranks.n * encoder.gemm_flops_per_s(bf16=bf16)
        self.record = Record(History(), on_log, bar, tells=ranks.rank == 0, peak=peak)
        self.checkpoints: Checkpoints | None = None
        self.encoder, self.score_dev, self.cfg, self.ranks = encoder, score_dev, cfg, ranks
        self.step = self.n_evaluations = self.n_worse = 0
        self.start = self.best = float("-inf")
        self.weights: dict[str, Any] = {}

    def keep_checkpoints(self, folder: Path, identity: dict[str, Any]) -> None:
        """Save to the folder from now on, and go on from the newest checkpoint in it, should there be one."""
        self.checkpoints = Checkpoints(folder, identity)
        state = self.checkpoints.newest(str(self.encoder.model.device))
        if self.ranks.share(state and state["step"]) != (state and state["step"]):
            raise TrainingError(
                f"{folder}: processes found different checkpoints; give a folder that all of them see."
            )
        if state is not None:
            self._restore(state)
            if self.ranks.rank == 0:
                print(f"resumed from step {self.step} of {folder}", file=sys.stderr)

    def run(self) -> None:
        """Take the steps that are left, and load the best weights."""
        evaluate_after = set(evaluation_steps(self.n_steps, self.cfg.n_evaluations))
        self.ranks.agree(self.optimiser.parameters)
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
        self.ranks.agree(self.optimiser.parameters)

    def close(self) -> None:
        """Leave the model ready to score."""
        self.optimiser.close()
        self.encoder.model.eval()

    def _take(self, rows: batches.IntArray) -> None:
        start = time.perf_counter()
        stepped = self.stepper.take(self.step, rows)
        self.step += 1
        self.sentinels.check_step(self.step, stepped.loss, stepped.grad_norm)
        self.record.step(self.step, stepped, time.perf_counter() - start)
        if self.step % self.cfg.log_steps == 0 or self.step == self.n_steps:
            self.record.log(self.step, stepped)
            within = (
                stepped.spread
            )  # which steps of bce often lack, their pairs being of many groups
            self.sentinels.check_spread(
                self.step, stepped.total_spread if math.isnan(within) else within
            )
        self.callbacks.tell(Event(self.step, self.n_steps, self.encoder, stepped=stepped))

    def _evaluate(self) -> None:
        value = self._score()
        self.n_evaluations += 1
        self.n_worse += 1
        if value > self.best or not self.weights:
            self.best, self.n_worse = value, 0
            self.record.history.best_step, self.record.history.best_dev = self.step, value
            self.weights = {
                k: v.detach().to("cpu", copy=True)
                for k, v in self.encoder.model.state_dict().items()
            }
        self.sentinels.check_dev(self.step, self.n_evaluations, self.best, self.start)
        if self.checkpoints is not None and self.ranks.rank == 0:
            self.checkpoints.save(self.step, self._state())
        self.callbacks.tell(Event(self.step, self.n_steps, self.encoder, dev_ndcg_10=value))

    def _score(self) -> float:
        """The dev lists' metric, computed in process 0, known in all, told."""
        self.record.describe("scoring dev lists")
        value: float = self.ranks.share(self.score_dev() if self.ranks.rank == 0 else None)
        self.sentinels.check_evaluation(self.step, value)
        self.record.tell({DEV_METRIC: value}, self.step)
        return value

    def _ends_early(self) -> bool:
        return self.callbacks.stopped or (
            self.cfg.patience is not None and self.n_worse >= self.cfg.patience
        )

    def _state(self) -> dict[str, Any]:
        history = self.record.history
        return {
            "step": self.step,
            "model": self.encoder.model.state_dict(),
            "optimiser": self.optimiser.state(),
            "best": {"value": self.best, "step": history.best_step, "weights": self.weights},
            "evaluations": [self.n_evaluations, self.n_worse, self.start],
            "record": {
                "logs": history.logs,
                "window": self.record.window,
                "done": self.record.done,
            },
            "n_collapsed": self.sentinels.n_collapsed,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.step = state["step"]
        self.encoder.model.load_state_dict(state["model"])
        self.optimiser.restore(state["optimiser"])
        self.best, self.weights = state["best"]["value"], state["best"]["weights"]
        self.n_evaluations, self.n_worse, self.start = state["evaluations"]
        kept, history = state["record"], self.record.history
        history.logs, history.best_step, history.best_dev = (
            kept["logs"],
            state["best"]["step"],
            self.best,
        )
        self.record.window, self.record.done = kept["window"], kept["done"]
        self.sentinels.n_collapsed = state["n_collapsed"]


def evaluation_steps(n_steps: int, n_evaluations: int) -> list[int]:
    """The steps after which the dev lists are scored: ascending, evenly, and the last step among them.

    (min(n_steps, n_evaluations),) steps from 1 to n_steps; with 7 steps and 4 evaluations 2, 4, 6, 7.
    """
    n = min(n_steps, n_evaluations)
    return [-(-n_steps * i // n) for i in range(1, n + 1)]


def _takes_bf16(cfg: TrainerConfig, device: str) -> bool:
    """Whether steps compute in bf16; `auto` stays with what the checkpoints were made in, for load moves its trial."""
    from reranker.model.precision import bf16_is_faster

    if cfg.precision != "auto":
        return cfg.precision == "bf16"
    earlier = (
        None
        if cfg.checkpoint_dir is None
        else checkpoints.decided(Path(cfg.checkpoint_dir)).get("bf16")
    )
    return bf16_is_faster(device) if earlier is None else bool(earlier)


def _identity(
    encoder: Encoder,
    pairs: Path,
    cfg: TrainerConfig,
    ranks: ProcessGroup,
    bf16: bool,
    dev_lists: str | None,
) -> dict[str, Any]:
    """What decides the result of a training."""
    keys = {
        f"trainer.{name}": value for name, value in asdict(cfg).items() if name not in OTHER_KEYS
    }
    weights = encoder.weights.sha256 or encoder.weights.description
    decided: dict[str, Any] = {
        "weights": weights,
        "attention": encoder.attention,
        "max_tokens": encoder.max_tokens,
        "bf16": bf16,
    }
    decided |= {"n_layers": encoder.n_layers, "files of the weights": encoder.weights.digest()}
    # The first process alone knows the dev lists, and gives the others its weights.
    told = ranks.share(
        {"dev_lists": dev_lists, "head drawn with model.seed": _drawn_head(encoder)}
        | _dropout(encoder)
    )
    parts = sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs]
    return (
        keys
        | decided
        | told
        | {"pairs": [digest_file(part) for part in parts], "n_processes": ranks.n}
    )


def _drawn_head(encoder: Encoder) -> str | None:
    """SHA-256 of the head where the weights have none; else None, for then `weights` names the head too."""
    if not encoder.new_head:
        return None
    drawn = [
        p.detach().cpu().numpy()
        for name, p in encoder.model.named_parameters()
        if is_head(encoder, name)
    ]
    return hashlib.sha256(b"".join(values.tobytes() for values in drawn)).hexdigest()


def _dropout(encoder: Encoder) -> dict[str, Any]:
    """The model's dropout rates, by the names of its own configuration."""
    module: Any = encoder.model[0].model
    return {name: value for name, value in module.config.to_dict().items() if "dropout" in name}


@contextmanager
def _own_random_state() -> Iterator[None]:
    """Leaves torch's random state as it was."""
    import torch

    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        yield
