"""What stops a training at once, with the step and what to do: weights that no longer learn cost hours."""

from __future__ import annotations

import math

from reranker.config import TrainerConfig
from reranker.errors import TrainingError

COLLAPSED = 1e-5  # spread of a group's logits; MiniLM-L6 with a fresh head starts at 3e-3 (measured), fp32 resolves 1e-7
N_COLLAPSED = 3  # logs in a row, for one step may hold groups of equal texts


class Sentinels:
    """Watches one training. Every method raises TrainingError when it has seen enough."""

    def __init__(self, cfg: TrainerConfig) -> None:
        self.cfg = cfg
        self.n_collapsed = 0

    def check_step(self, step: int, loss: float, grad_norm: float) -> None:
        """Stop at a loss or a gradient that is NaN or infinite; the step has not been taken."""
        for name, value in (("loss", loss), ("gradient's norm", grad_norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {step}: the {name} is {value}, so training has diverged. Lower trainer.learning_rate "
                    f"({self.cfg.learning_rate}), set trainer.max_grad_norm, or choose trainer.precision=fp32."
                )

    def check_spread(self, step: int, spread: float) -> None:
        """Stop when, in three logs in a row, all candidates of a query got one score.

        Args:
            spread: Standard deviation of logits within groups, or of a whole step; NaN, of a single pair, says nothing.
        """
        if math.isnan(spread):
            return
        self.n_collapsed = self.n_collapsed + 1 if spread < COLLAPSED else 0
        if self.n_collapsed == N_COLLAPSED:
            raise TrainingError(
                f"step {step}: in the last {N_COLLAPSED} logs of several pairs their scores differ by {spread:.1e}, so "
                "the model gives every candidate of a user one score. Lower trainer.learning_rate, raise "
                "trainer.warmup_fraction, or let the head learn first (trainer.freeze_body_fraction)."
            )

    def check_evaluation(self, step: int, value: float) -> None:
        """Stop at an evaluation on the dev lists that is NaN or infinite, by which no weights can be chosen."""
        if not math.isfinite(value):
            raise TrainingError(
                f"the evaluation after step {step}: NDCG@10 on the dev lists is {value}, so no weights can be "
                "chosen by it. Score dev lists that have a positive each, with scores that are numbers."
            )

    def check_dev(self, step: int, n_evaluations: int, best: float, start: float) -> None:
        """Stop when two or more evaluations have not beaten the untrained model's, where the configuration says so."""
        if self.cfg.stop_below_start and n_evaluations >= 2 and best < start:
            raise TrainingError(
                f"step {step}: after {n_evaluations} evaluations the best NDCG@10 on the dev lists is {best:.4f}, "
                f"below the {start:.4f} of the model before training. Lower trainer.learning_rate, change the "
                "objective or the negatives, or set trainer.stop_below_start=false to go on."
            )
