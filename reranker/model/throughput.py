"""What forward passes cost, counted in floating-point operations, and how fast that was."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from reranker.model.tokens import Batch


@dataclass(frozen=True)
class Work:
    """Pairs that were computed, and what that took.

    Attributes:
        n_tokens: Of the pairs after truncation, each with its whole context.
        n_rows: Tokens that were computed, padding among them; fewer than n_tokens where contexts are shared.
        flops: As `Cost.flops` counts them; of a training step three times its forwards'.
    """

    n_pairs: float = 0
    n_tokens: float = 0
    n_rows: float = 0
    flops: float = 0
    seconds: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def speeds(self, peak: float) -> dict[str, float]:
        """pairs_per_s, tokens_per_s, padding_fraction (of rows), gemm_peak_fraction (of `peak` FLOPs per second)."""
        seconds = max(self.seconds, 1e-9)
        return {
            "pairs_per_s": self.n_pairs / seconds,
            "tokens_per_s": self.n_tokens / seconds,
            "padding_fraction": max(0.0, 1 - self.n_tokens / self.n_rows) if self.n_rows else 0.0,
            "gemm_peak_fraction": self.flops / seconds / peak,
        }


@dataclass(frozen=True)
class Cost:
    """The sizes that decide what a forward costs.

    Attributes:
        n_weights: Of the linear layers of the body, without the pooler.
    """

    n_layers: int
    hidden: int
    n_weights: int

    @staticmethod
    def of(model: Any) -> Cost:
        """The sizes of a transformers classifier."""
        from torch.nn import Linear

        linears = [
            m
            for name, m in model.base_model.named_modules()
            if isinstance(m, Linear) and "pooler" not in name
        ]
        n_weights = sum(linear.weight.numel() for linear in linears)
        return Cost(model.config.num_hidden_layers, model.config.hidden_size, n_weights)

    def flops(self, batch: Batch, *, last_layer: bool) -> float:
        """FLOPs of the matrix products of one forward over the batch's real tokens.

        A linear layer takes 2 per weight and token: with a hidden size H one of BERT's layers has 12 H^2 weights, 4 of
        attention and 8 of the feed-forward, and takes 24 H^2 per token. A query that attends to n keys takes 4 n H:
        2 n H for scores, as many for the sum of values. Head, norms, embeddings and padding are not counted, and
        nothing is counted twice that is computed twice.

        Args:
            last_layer: Whether the last layer is computed for all tokens, and not keys and values of these (2 H^2
                weights) and the rest of each pair's [CLS].
        """
        length = np.diff(batch.start)
        keys = length + np.where(batch.context >= 0, length[batch.context], 0)
        weights, of_keys = self.n_weights / self.n_layers, 2 * self.hidden**2
        layer = 2 * weights * batch.n_tokens + 4 * self.hidden * float(length @ keys)
        first = 2 * (weights - of_keys) * batch.n_pairs + 4 * self.hidden * float(
            keys[batch.pair].sum()
        )
        return (self.n_layers - 1) * layer + (
            layer if last_layer else 2 * of_keys * batch.n_tokens + first
        )
