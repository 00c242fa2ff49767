"""Checks that stop a training that diverges, collapses or is worse than no training."""

from __future__ import annotations

import math

from reranker.config import TrainerConfig
from reranker.errors import TrainingError

# Minimum spread of a group's logits. MiniLM-L6 with a new head starts at 3e-3 (measured), and fp32
# resolves 1e-7.
COLLAPSED = 1e-5
N_COLLAPSED = 3  # consecutive logs; all texts of a single step may be equal


class HealthChecks:
    """Checks one training; every method raises TrainingError if its check fails."""

    def __init__(self, cfg: TrainerConfig) -> None:
        self.cfg = cfg
        self.n_collapsed = 0

    def check_step(self, step: int, loss: float, grad_norm: float) -> None:
        """Raise if the loss or the gradient is NaN or infinite; the step has not been taken."""
        for name, value in (("loss", loss), ("gradient norm", grad_norm)):
            if not math.isfinite(value):
                raise TrainingError(
                    f"step {step}: the {name} is {value}, so training has diverged. Lower "
                    f"trainer.learning_rate ({self.cfg.learning_rate}), set "
                    "trainer.max_grad_norm, or choose trainer.precision=fp32."
                )

    def check_spread(self, step: int, spread: float) -> None:
        """Raise if all candidates of a query had the same score in three consecutive logs.

        Args:
            spread: Standard deviation of logits within groups, or over a step. NaN, the value for
                a single pair, is ignored.
        """
        if math.isnan(spread):
            return
        self.n_collapsed = self.n_collapsed + 1 if spread < COLLAPSED else 0
        if self.n_collapsed == N_COLLAPSED:
            raise TrainingError(
                f"step {step}: in the last {N_COLLAPSED} logs with several pairs the scores "
                f"differ by {spread:.1e}, so the model gives all candidates of a user the same "
                "score. Lower trainer.learning_rate, raise trainer.warmup_fraction, or train only "
                "the head first (trainer.freeze_body_fraction)."
            )

    def check_evaluation(self, step: int, value: float) -> None:
        """Raise if an evaluation on the dev lists is NaN or infinite."""
        if not math.isfinite(value):
            raise TrainingError(
                f"the evaluation after step {step}: NDCG@10 on the dev lists is {value}, so the "
                "best weights cannot be chosen. Every dev list needs a positive, and every score "
                "must be finite."
            )

    def check_dev(self, step: int, n_evaluations: int, *, best: float, start: float) -> None:
        """Raise if stop_below_start is set and two evaluations were below the untrained model."""
        if self.cfg.stop_below_start and n_evaluations >= 2 and best < start:
            raise TrainingError(
                f"step {step}: after {n_evaluations} evaluations the best NDCG@10 on the dev lists "
                f"is {best:.4f}, below {start:.4f} before training. Lower trainer.learning_rate, "
                "change the objective or the negatives, or set trainer.stop_below_start=false to "
                "continue."
            )
