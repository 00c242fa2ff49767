"""The packed forward where nothing is to be learned: fp32 on a CPU, fewer products, and memory that is kept."""

from __future__ import annotations

import math
import threading
from typing import Any

import torch

from reranker.model.attention import Span, first_spans, rows_of, spans
from reranker.model.tokens import Batch


class Scoring:
    """The layers of `Packed` on a CPU, outside autograd and dropout, for modules in fp32.

    Large outputs go into buffers that are kept: of a fresh block the kernel maps page by page what is then written
    once. In the last layer [CLS] alone attends, so neither keys nor values are computed there: its query times the
    key weights meets the inputs themselves, and their weighted mean the value weights, which is the same sum in
    another order.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._buffers = _Buffers()

    def __call__(self, x: torch.Tensor, batch: Batch) -> torch.Tensor:
        """(n_pairs, hidden) states of the pairs' [CLS] after the last layer.

        Args:
            x: (n_tokens, hidden) float32, the embedded tokens.
            batch: The pairs that they are of.
        """
        *layers, last = self._base.encoder.layer
        plan = spans(batch)
        for layer in layers:
            attention = layer.attention.self
            x = self._after_attention(layer, self._attended(attention, self._projected(attention, x), plan), x)
        first = x[torch.from_numpy(batch.start[batch.pair])]
        return self._after_attention(
            last, self._first_attended(last.attention.self, x, first, first_spans(batch)), first
        )

    def _projected(self, attention: Any, x: torch.Tensor) -> torch.Tensor:
        """(3, n_heads, n_tokens, n_dimensions) queries, keys and values."""
        layers = attention.query, attention.key, attention.value
        weight = torch.cat(
            [layer.weight for layer in layers], out=self._buffers.take("weight", 3 * x.shape[1], x.shape[1])
        )
        states = self._linear("states", x, weight, torch.cat([layer.bias for layer in layers]))
        return states.view(len(x), 3, attention.num_attention_heads, -1).permute(1, 2, 0, 3)

    def _attended(self, attention: Any, states: torch.Tensor, plan: list[Span]) -> torch.Tensor:
        """(n_tokens, hidden) what every token has of its span."""
        queries, keys, values = states
        n_heads, n_tokens, n_dimensions = queries.shape
        attended = self._buffers.take("attended", n_tokens, n_heads, n_dimensions)
        for span in plan:
            q, k, v = queries[:, span.query], rows_of(keys, span, dim=1), rows_of(values, span, dim=1)
            p = self._buffers.take("probabilities", n_heads, q.shape[1], k.shape[1])
            torch.baddbmm(p, q, k.transpose(1, 2), beta=0, alpha=n_dimensions**-0.5, out=p)
            torch.softmax(p, -1, out=p)
            torch.bmm(p, v, out=attended.transpose(0, 1)[:, span.query])
        return attended.view(n_tokens, -1)

    def _first_attended(self, attention: Any, x: torch.Tensor, first: torch.Tensor, plan: list[Span]) -> torch.Tensor:
        """(n_pairs, hidden) what every pair's first token has of its span.

        A key's bias adds the same to all scores of a query, so no probability has it; probabilities sum to 1, so the
        value's bias is added once.
        """
        n_heads, n_dimensions = attention.num_attention_heads, attention.attention_head_size
        query = attention.query(first).view(len(first), n_heads, n_dimensions).transpose(0, 1) * n_dimensions**-0.5
        to_inputs = torch.bmm(query, attention.key.weight.view(n_heads, n_dimensions, -1)).transpose(0, 1).contiguous()
        mean = torch.empty_like(to_inputs)
        for i, span in enumerate(plan):
            inputs = rows_of(x, span, dim=0)
            torch.mm(torch.softmax(to_inputs[i] @ inputs.t(), -1), inputs, out=mean[i])
        value = attention.value.weight.view(n_heads, n_dimensions, -1)
        attended = torch.bmm(mean.transpose(0, 1), value.transpose(1, 2))
        return attended.transpose(0, 1).reshape(len(first), -1) + attention.value.bias

    def _after_attention(self, layer: Any, attended: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        x = self._residual(layer.attention.output, attended, x)
        dense = layer.intermediate.dense
        inner = self._linear("inner", x, dense.weight, dense.bias)
        return self._residual(layer.output, _activated(layer.intermediate.intermediate_act_fn, inner), x)

    def _residual(self, module: Any, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        y = self._linear("residual", y, module.dense.weight, module.dense.bias)
        normed: torch.Tensor = module.LayerNorm(y.add_(x))
        return normed

    def _linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        return torch.addmm(bias, x, weight.t(), out=self._buffers.take(name, len(x), len(weight)))


def _activated(activation: Any, x: torch.Tensor) -> torch.Tensor:
    """The activation of x, which is overwritten where it is the exact GELU."""
    if getattr(activation, "act", None) is torch.nn.functional.gelu:
        activated: torch.Tensor = torch.ops.aten.gelu_(x)
        return activated
    other: torch.Tensor = activation(x)
    return other


class _Buffers(threading.local):
    """float32 memory by name, which grows to the largest use; each thread has its own, since two may score at once."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """Contiguous memory of the shape; it holds whatever its last use left there."""
        n = math.prod(shape)
        if name not in self._kept or self._kept[name].numel() < n:
            with torch.inference_mode(False):  # a tensor of inference mode could not be written outside it
                self._kept[name] = torch.empty(n)
        return self._kept[name][:n].view(shape)
