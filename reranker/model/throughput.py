"""The cost of forward passes in floating-point operations, and their speed."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from reranker.model.tokens import Batch


@dataclass(frozen=True)
class Work:
    """The number of computed pairs and their cost; instances are added with `+`.

    Attributes:
        n_pairs: Number of pairs.
        n_tokens: Tokens of the pairs after truncation, each with its complete context.
        n_rows: Tokens that were computed, including padding. It is less than n_tokens where pairs
            share contexts.
        flops: FLOPs as counted by `Cost.flops`; a training step counts three forward passes.
        seconds: Wall time.
    """

    n_pairs: float = 0
    n_tokens: float = 0
    n_rows: float = 0
    flops: float = 0
    seconds: float = 0

    def __add__(self, other: Work) -> Work:
        return Work(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def speeds(self, peak: float) -> dict[str, float]:
        """Return `pairs_per_s`, `tokens_per_s`, `padding_fraction` and `gemm_peak_fraction`.

        `padding_fraction` is the fraction of n_rows that is padding; it is 0 if shared contexts
        make n_rows less than n_tokens. `gemm_peak_fraction` is FLOPs per second divided by `peak`.

        Args:
            peak: FLOPs per second of a matrix product, as measured by `Encoder.gemm_flops_per_s`.
        """
        seconds = max(self.seconds, 1e-9)
        return {
            "pairs_per_s": self.n_pairs / seconds,
            "tokens_per_s": self.n_tokens / seconds,
            "padding_fraction": max(0.0, 1 - self.n_tokens / self.n_rows) if self.n_rows else 0.0,
            "gemm_peak_fraction": self.flops / seconds / peak,
        }


@dataclass(frozen=True)
class Cost:
    """The sizes on which the cost of a forward pass depends.

    Attributes:
        n_layers: Number of transformer layers.
        hidden: Hidden size.
        n_weights: Weights of the linear layers of all transformer layers, without the pooler.
    """

    n_layers: int
    hidden: int
    n_weights: int

    @staticmethod
    def of(model: Any) -> Cost:
        """Return the sizes of a transformers classifier."""
        from torch.nn import Linear

        body = [m for name, m in model.base_model.named_modules() if "pooler" not in name]
        n_weights = sum(m.weight.numel() for m in body if isinstance(m, Linear))
        return Cost(model.config.num_hidden_layers, model.config.hidden_size, n_weights)

    def flops(self, batch: Batch, *, last_layer: bool) -> float:
        """Return the FLOPs of the matrix products of one forward pass over the batch's real tokens.

        A linear layer takes 2 FLOPs per weight and token. With hidden size H, one BERT layer has
        12 H^2 weights (4 H^2 in attention, 8 H^2 in the feed-forward), so it takes 24 H^2 FLOPs per
        token. A query that attends to n keys takes 4 n H: 2 n H for the scores and 2 n H for the
        weighted sum of values. The head, norms, embeddings and padding are not counted. Layers that
        are recomputed in the backward pass are counted once.

        Args:
            last_layer: Whether the last layer is computed for all tokens. Otherwise it computes
                keys and values (2 H^2 weights) for all tokens, and the rest for each pair's [CLS].
        """
        length = np.diff(batch.start)
        keys = length + np.where(batch.context >= 0, length[batch.context], 0)
        n_weights, n_kv_weights = self.n_weights / self.n_layers, 2 * self.hidden**2
        layer = 2 * n_weights * batch.n_tokens + 4 * self.hidden * float(length @ keys)
        if last_layer:
            return (self.n_layers - 1) * layer + layer
        n_cls_keys = float(keys[batch.pair].sum())
        cls = 2 * (n_weights - n_kv_weights) * batch.n_pairs + 4 * self.hidden * n_cls_keys
        return (self.n_layers - 1) * layer + (2 * n_kv_weights * batch.n_tokens + cls)
