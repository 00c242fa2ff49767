"""One optimiser step: the same loss and gradients however its pairs are dealt to forward passes and processes."""

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


FORWARDS = 3  # a backward pass takes twice its forward: a product for each side of every product


@dataclass(frozen=True)
class Stepped:
    """What a step came to, over all processes.

    Attributes:
        loss: Mean of the objective's terms, before the step.
        grad_norm: Of the whole gradient, before it was shortened.
        learning_rate: Of the body.
        spread: Standard deviation of logits within groups, as far as these stand in one forward pass; NaN where no two
            pairs do.
        total_spread: Standard deviation of all logits; NaN of a single one.
        work: What it took; without its seconds, which pass while the step is taken.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    spread: float
    total_spread: float
    work: Work


class Stepper:
    """Takes steps of an encoder on examples."""

    def __init__(
        self,
        encoder: Encoder,
        examples: PairDataset,
        optimiser: Optimiser,
        cfg: TrainerConfig,
        ranks: ProcessGroup,
        bf16: bool,
    ) -> None:
        import torch

        self.encoder, self.examples, self.optimiser, self.cfg, self.ranks = (
            encoder,
            examples,
            optimiser,
            cfg,
            ranks,
        )
        self._bf16 = bf16
        self._objective = losses.choose(cfg.loss, pos_weight=cfg.pos_weight)
        device = encoder.model.device
        self._target, self._taught, self._group, self._unit = (
            torch.tensor(values, device=device)
            for values in (examples.target, examples.taught, examples.group, examples.unit)
        )

    def take(self, step: int, rows: IntArray) -> Stepped:
        """Take step `step`, from 0, on these rows; dropout is a function of (seed, step, process)."""
        import torch

        self.encoder.model.train()
        state = np.random.SeedSequence([self.cfg.seed, step, self.ranks.rank]).generate_state(
            1, np.uint64
        )
        torch.manual_seed(int(state[0]))
        rate = self.optimiser.begin(step)
        numbers = self.gradients(rows)
        self.ranks.all_reduce(self.optimiser.parameters, numbers)
        total, n_terms, squares, freedom, n_rows, flops, logits, square_logits = numbers.tolist()
        if self.cfg.teacher_weight:
            n_terms = max(
                n_terms, 1.0
            )  # as `_teaching` weighs a step without a term of the objective
        n_tokens = float(self.examples.length[rows].sum())
        return Stepped(
            loss=total / n_terms if n_terms else 0.0,
            grad_norm=self.optimiser.finish(n_terms),
            learning_rate=rate,
            spread=math.sqrt(squares / freedom) if freedom else math.nan,
            total_spread=_deviation(len(rows), logits, square_logits),
            work=Work(len(rows), n_tokens, n_rows, FORWARDS * flops),
        )

    def gradients(self, rows: IntArray) -> Tensor:
        """Add up this process's share of gradients.

        Returns:
            (8,) sum and number of terms, squares and degrees of freedom within groups, rows and FLOPs of the forwards,
            sums of the logits and of their squares.
        """
        import torch

        e, ranks = self.examples, self.ranks
        mine = batches.share(rows, e.unit, e.length, rank=ranks.rank, n_processes=ranks.n)
        n_tokens, packed = self.cfg.batch_tokens, self.encoder.packed
        ways = {"recompute": self.cfg.gradient_checkpointing, "compiled": self.cfg.compile}
        teaching = self._teaching(rows)
        numbers = torch.zeros(8, dtype=torch.float64, device=self._target.device)
        for part in batches.passes(mine, e.unit, e.length, n_tokens=n_tokens, packed=packed):
            batch = self.encoder.assemble(e.contexts, e.books, e.query[part], e.candidate[part])
            logits = self.encoder.logits(batch, bf16=self._bf16, **ways)
            at = torch.from_numpy(part).to(logits.device)
            total, n_terms = self._objective(logits, self._target[at], self._unit[at])
            if teaching:
                total = total + teaching * (logits - self._taught[at]).square().sum()
            total.backward()
            squares, freedom = _deviations(logits.detach(), self._group[at])
            cost = numbers.new_tensor(self.encoder.cost(batch))
            exact = (
                logits.detach().double()
            )  # in fp32 a spread of 1e-5 would be lost in the squares
            sums = torch.stack([exact.sum(), exact.square().sum()])
            numbers += torch.cat(
                [torch.stack([total.detach(), n_terms, squares, freedom]), cost, sums]
            )
        return numbers

    def _teaching(self, rows: IntArray) -> float:
        """What a pair's squared distance to its teacher weighs in this step's sum.

        The sum is divided by the number of the objective's terms (by 1 where there are none), but this mean is over
        pairs.
        """
        import torch

        if not self.cfg.teacher_weight:
            return 0.0
        at = torch.from_numpy(rows).to(self._target.device)
        labels = self._target[at]
        _, n_terms = self._objective(torch.zeros_like(labels), labels, self._unit[at])
        return self.cfg.teacher_weight * max(float(n_terms), 1.0) / len(rows)


def _deviations(logits: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Squared distances of logits from their group's mean, summed, and the degrees of freedom."""
    _, row, n = group.unique(return_inverse=True, return_counts=True)
    mean = logits.new_zeros(len(n)).index_add_(0, row, logits) / n
    return (logits - mean[row]).square().sum(), (n - 1).sum()


def _deviation(n: int, total: float, squares: float) -> float:
    """Standard deviation of n numbers, of their sum and the sum of their squares."""
    return math.sqrt(max(squares - total**2 / n, 0.0) / (n - 1)) if n > 1 else math.nan
