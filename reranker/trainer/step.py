"""One optimiser step whose loss and gradients do not depend on micro-batches or processes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from reranker.config import TrainerConfig
from reranker.model import Encoder
from reranker.model.throughput import Work
from reranker.trainer import batches, losses
from reranker.trainer.dataset import IntArray, PairDataset
from reranker.trainer.distributed import ProcessGroup
from reranker.trainer.optimiser import Optimiser

if TYPE_CHECKING:
    from torch import Tensor

# Cost of a step in forward passes: the backward pass has two products for each forward product.
FORWARDS = 3


@dataclass(frozen=True)
class StepResult:
    """Loss, gradient norm and work of a step, over all processes.

    Attributes:
        loss: Mean of the objective's terms, before the step.
        grad_norm: Norm of the complete gradient, before clipping.
        learning_rate: Learning rate of the body.
        spread: Standard deviation of logits within groups, computed over the pairs of a group that
            share a micro-batch; NaN if no two pairs do.
        total_spread: Standard deviation of all logits; NaN for a single logit.
        work: Pairs, tokens, rows and FLOPs; without the seconds.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    spread: float
    total_spread: float
    work: Work


class Stepper:
    """Takes optimiser steps of an encoder on the pairs of a dataset."""

    def __init__(
        self,
        encoder: Encoder,
        dataset: PairDataset,
        optimiser: Optimiser,
        *,
        cfg: TrainerConfig,
        processes: ProcessGroup,
        bf16: bool,
    ) -> None:
        import torch

        self.encoder, self.dataset, self.optimiser = encoder, dataset, optimiser
        self.cfg, self.processes = cfg, processes
        self._bf16 = bf16
        self._objective = losses.choose(cfg.loss, pos_weight=cfg.pos_weight)
        device = encoder.model.device
        self._target, self._teacher_score, self._group, self._chunk = (
            torch.tensor(values, device=device)
            for values in (dataset.target, dataset.teacher_score, dataset.group, dataset.chunk)
        )

    def take(self, step: int, rows: IntArray) -> StepResult:
        """Take step `step`, counted from 0, on these rows.

        Dropout is a function of seed, step and rank.
        """
        import torch

        self.encoder.model.train()
        seeds = np.random.SeedSequence([self.cfg.seed, step, self.processes.rank])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0]))
        rate = self.optimiser.begin(step)
        numbers = self.accumulate_gradients(rows)
        self.processes.all_reduce(self.optimiser.parameters, numbers)
        total, n_terms, squares, freedom, n_rows, flops, logits, square_logits = numbers.tolist()
        if self.cfg.teacher_weight:
            n_terms = max(n_terms, 1.0)  # as in `_teacher_factor`
        n_tokens = float(self.dataset.length[rows].sum())
        return StepResult(
            loss=total / n_terms if n_terms else 0.0,
            grad_norm=self.optimiser.finish(n_terms),
            learning_rate=rate,
            spread=math.sqrt(squares / freedom) if freedom else math.nan,
            total_spread=_deviation(len(rows), logits, square_logits),
            work=Work(len(rows), n_tokens, n_rows, FORWARDS * flops),
        )

    def accumulate_gradients(self, rows: IntArray) -> Tensor:
        """Add this rank's part of the step's gradients to the parameters.

        Returns:
            (8,) sum and number of the objective's terms, sum of squares and degrees of freedom of
            logits within groups, rows and FLOPs of the forward passes, sum of the logits and of
            their squares.
        """
        import torch

        d, processes = self.dataset, self.processes
        rank, world_size = processes.rank, processes.world_size
        local = batches.rank_rows(rows, d.chunk, d.length, rank=rank, world_size=world_size)
        n_tokens, packed = self.cfg.batch_tokens, self.encoder.packed
        options = {"recompute": self.cfg.gradient_checkpointing, "compiled": self.cfg.compile}
        factor = self._teacher_factor(rows)
        numbers = torch.zeros(8, dtype=torch.float64, device=self._target.device)
        parts = batches.micro_batches(local, d.chunk, d.length, n_tokens=n_tokens, packed=packed)
        for part in parts:
            batch = self.encoder.assemble(d.contexts, d.books, d.query[part], d.candidate[part])
            logits = self.encoder.logits(batch, bf16=self._bf16, **options)
            at = torch.from_numpy(part).to(logits.device)
            total, n_terms = self._objective(logits, self._target[at], self._chunk[at])
            if factor:
                total = total + factor * (logits - self._teacher_score[at]).square().sum()
            total.backward()
            squares, freedom = _deviations(logits.detach(), self._group[at])
            cost = numbers.new_tensor(self.encoder.cost(batch))
            exact = logits.detach().double()  # fp32 squares would lose a spread of 1e-5
            sums = torch.stack([exact.sum(), exact.square().sum()])
            terms = torch.stack([total.detach(), n_terms, squares, freedom])
            numbers += torch.cat([terms, cost, sums])
        return numbers

    def _teacher_factor(self, rows: IntArray) -> float:
        """Return the factor of a pair's squared distance to its teacher's score in the step's sum.

        The sum is divided by the number of the objective's terms, or by 1 if there are none, but
        the distillation term is a mean over pairs.
        """
        import torch

        if not self.cfg.teacher_weight:
            return 0.0
        at = torch.from_numpy(rows).to(self._target.device)
        labels = self._target[at]
        _, n_terms = self._objective(torch.zeros_like(labels), labels, self._chunk[at])
        return self.cfg.teacher_weight * max(float(n_terms), 1.0) / len(rows)


def _deviations(logits: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Return the sum of squared deviations from group means, and its degrees of freedom."""
    _, row, n = group.unique(return_inverse=True, return_counts=True)
    mean = logits.new_zeros(len(n)).index_add_(0, row, logits) / n
    return (logits - mean[row]).square().sum(), (n - 1).sum()


def _deviation(n: int, total: float, squares: float) -> float:
    """Return the standard deviation of n numbers from their sum and their sum of squares."""
    return math.sqrt(max(squares - total**2 / n, 0.0) / (n - 1)) if n > 1 else math.nan
