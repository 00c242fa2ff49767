"""The forward pass of a cross-encoder: packed for BERT and (XLM-)RoBERTa, padded for others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from reranker.errors import ModelError
from reranker.model.attention import Span, attend, attend_inputs, first_spans, spans
from reranker.model.precision import Linears
from reranker.model.throughput import Cost
from reranker.model.tokens import Batch

AddNorm = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, float, float], torch.Tensor
]


class Packed:
    """The forward pass of one module without padding, from the module's own parameters.

    In the last layer, keys and values are computed for all tokens, but queries, feed-forward and
    norms only for each pair's [CLS], because the head uses no other token. If it only scores, in
    fp32 on a CPU, the last layer computes no keys and values either (see `attend_inputs`).
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = model.base_model
        self._linears = Linears()
        self.sizes = Cost.of(model)

    def __call__(
        self, batch: Batch, *, bf16: bool, recompute: bool = False, add_norm: AddNorm | None = None
    ) -> torch.Tensor:
        """Return (n_pairs,) float32 logits, differentiable, with dropout in training mode.

        Args:
            batch: The packed pairs.
            bf16: Compute linear layers and attention in bf16.
            recompute: Save only the input of each layer, and compute the layer again in the
                backward pass, with the same dropout.
            add_norm: A replacement for `_add_norm`, such as its compiled form.
        """
        run: Any = partial(checkpoint, use_reentrant=False) if recompute else _call
        ways = {"bf16": bf16, "add_norm": add_norm or _add_norm}
        *layers, last = self._base.encoder.layer
        x = self._embed(batch)
        plan = spans(batch)
        for layer in layers:
            x = run(self._layer, layer, x, plan, **ways)
        first = torch.from_numpy(batch.start[batch.pair]).to(x.device)
        x = run(self._last_layer, last, x, first, plan=first_spans(batch), **ways)
        return self._head(x)

    def compiled(self) -> Callable[..., torch.Tensor]:
        """Return this forward with compiled residual sums and norms: one kernel instead of three.

        The rest is not compiled: matrix products call the vendor's kernels in any case, and the
        spans of attention differ in every batch.
        """
        return partial(self, add_norm=_compiled_add_norm())

    def cost(self, batch: Batch) -> tuple[int, float]:
        """Return the tokens that a forward pass computes, and its FLOPs (see `Cost.flops`)."""
        return batch.n_tokens, self.sizes.flops(batch, last_layer=False)

    def _embed(self, batch: Batch) -> torch.Tensor:
        table = self._base.embeddings
        device = table.word_embeddings.weight.device
        ids, types = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.types))
        x = table.word_embeddings(ids) + table.token_type_embeddings(types)
        positions = self._positions(batch).to(device)
        return table.dropout(table.LayerNorm(x + table.position_embeddings(positions)))

    def _positions(self, batch: Batch) -> torch.Tensor:
        """Return the positions as the module counts them.

        RoBERTa starts after the padding id, and does not count tokens of the text whose id is the
        padding id.
        """
        padding = self._base.embeddings.position_embeddings.padding_idx
        if padding is None:
            return torch.from_numpy(batch.positions)
        real = batch.ids != padding
        if real.all() or (batch.context >= 0).any():
            return torch.from_numpy(batch.positions + padding + 1)
        counts = real.cumsum()
        before = (counts - real)[batch.start[:-1]].repeat(batch.start[1:] - batch.start[:-1])
        return torch.from_numpy((counts - before) * real + padding)

    def _layer(
        self, layer: Any, x: torch.Tensor, plan: list[Span], *, bf16: bool, add_norm: AddNorm
    ) -> torch.Tensor:
        attention = layer.attention.self
        states = self._linears(x, [attention.query, attention.key, attention.value], bf16=bf16)
        attended = self._attend(attention, states, None, plan)
        return self._after_attention(layer, attended, x, bf16=bf16, add_norm=add_norm)

    def _last_layer(
        self,
        layer: Any,
        x: torch.Tensor,
        first: torch.Tensor,
        *,
        plan: list[Span],
        bf16: bool,
        add_norm: AddNorm,
    ) -> torch.Tensor:
        attention = layer.attention.self
        only_scores = not (bf16 or torch.is_grad_enabled() or attention.training)
        x_first = x[first]
        if only_scores and x.device.type == "cpu":
            attended = attend_inputs(attention, x, x_first, plan)
        else:
            states = self._linears(x, [attention.key, attention.value], bf16=bf16)
            query = self._linears(x_first, [attention.query], bf16=bf16)
            attended = self._attend(attention, states, query, plan)
        return self._after_attention(layer, attended, x_first, bf16=bf16, add_norm=add_norm)

    def _attend(
        self, module: Any, states: torch.Tensor, query: torch.Tensor | None, plan: list[Span]
    ) -> torch.Tensor:
        heads = module.num_attention_heads, module.attention_head_size
        states = states.view(len(states), -1, *heads)
        query = None if query is None else query.view(-1, *heads)
        attended = attend(states, query, plan, dropout=module.dropout.p, training=module.training)
        return attended.reshape(len(attended), -1)

    def _after_attention(
        self, layer: Any, attended: torch.Tensor, x: torch.Tensor, *, bf16: bool, add_norm: AddNorm
    ) -> torch.Tensor:
        x = self._residual(layer.attention.output, attended, x, bf16=bf16, add_norm=add_norm)
        inner = self._linears(x, [layer.intermediate.dense], bf16=bf16)
        inner = layer.intermediate.intermediate_act_fn(inner)
        return self._residual(layer.output, inner, x, bf16=bf16, add_norm=add_norm)

    def _residual(
        self, module: Any, y: torch.Tensor, x: torch.Tensor, *, bf16: bool, add_norm: AddNorm
    ) -> torch.Tensor:
        y = self._linears(y, [module.dense], bf16=bf16)
        norm, rate = module.LayerNorm, module.dropout.p if module.training else 0.0
        return add_norm(y, x, norm.weight, norm.bias, norm.eps, rate)

    def _head(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, None]
        pooler = getattr(self._base, "pooler", None)
        if pooler is not None:  # BERT; the pooler of RoBERTa is part of its classifier
            x = self._model.dropout(pooler(x))
        return self._model.classifier(x).squeeze(-1)


class Padded:
    """The module's own forward pass, with pairs padded to the longest of the batch."""

    def __init__(self, model: Any, padding_id: int, uses_types: bool) -> None:
        self._model = model
        self._padding_id = padding_id
        self._uses_types = uses_types
        self._recomputes = False
        self.sizes = Cost.of(model)

    def __call__(
        self, batch: Batch, *, bf16: bool, recompute: bool = False, module: Any = None
    ) -> torch.Tensor:
        """Return (n_pairs,) float32 logits.

        Args:
            batch: The packed pairs, one segment each.
            bf16: Use autocast to bf16.
            recompute: Use the module's own gradient checkpointing in training mode.
            module: A replacement for the module, such as its compiled form.

        Raises:
            ModelError: `recompute` is set, and the module does not support it.
        """
        self._set_recompute(recompute)
        lengths = torch.from_numpy(batch.start[1:] - batch.start[:-1])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        device = self._model.device
        features = {
            "input_ids": self._fill(batch.ids, real, self._padding_id),
            "attention_mask": real.long(),
        }
        if self._uses_types:
            features["token_type_ids"] = self._fill(batch.types, real, 0)
        inputs = {name: values.to(device) for name, values in features.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = (module or self._model)(**inputs).logits
        return logits.squeeze(-1).float()

    def compiled(self) -> Callable[..., torch.Tensor]:
        """Return this forward with the module compiled, for any number and length of pairs."""
        return partial(self, module=torch.compile(self._model, dynamic=True))

    def cost(self, batch: Batch) -> tuple[int, float]:
        """Return the tokens that a forward pass computes, including padding, and its FLOPs.

        The FLOPs are those of the real tokens; see `Cost.flops`.
        """
        longest = int((batch.start[1:] - batch.start[:-1]).max())
        return batch.n_pairs * longest, self.sizes.flops(batch, last_layer=True)

    def _set_recompute(self, wanted: bool) -> None:
        if wanted == self._recomputes:
            return
        if not self._model.supports_gradient_checkpointing:
            raise ModelError(
                f"{type(self._model).__name__} does not support gradient checkpointing. Set "
                "trainer.gradient_checkpointing=false, and a smaller trainer.batch_tokens to save "
                "memory."
            )
        # "gradient" is the name in older versions of transformers.
        is_new = hasattr(self._model, "activation_checkpointing_enable")
        kind = "activation" if is_new else "gradient"
        if wanted:
            getattr(self._model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
            # Only reentrant checkpoints need this hook on the embeddings.
            self._model.disable_input_require_grads()
        else:
            getattr(self._model, f"{kind}_checkpointing_disable")()
        self._recomputes = wanted

    @staticmethod
    def _fill(values: Any, real: torch.Tensor, padding: int) -> torch.Tensor:
        return torch.full(real.shape, padding).masked_scatter_(real, torch.from_numpy(values))


def _call(function: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> torch.Tensor:
    return function(*args, **kwargs)


def _add_norm(
    y: torch.Tensor,
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    eps: float,
    rate: float,
) -> torch.Tensor:
    return functional.layer_norm(functional.dropout(y, rate) + x, weight.shape, weight, bias, eps)


@cache
def _compiled_add_norm() -> AddNorm:
    compiled: AddNorm = torch.compile(_add_norm, dynamic=True)
    return compiled


def forward_of(model: Any) -> tuple[Packed | Padded, bool]:
    """Return the forward pass of a cross-encoder's module, and whether it is packed."""
    module, tokenizer = model[0].model, model.tokenizer
    if is_packable(module):
        return Packed(module), True
    uses_types = "token_type_ids" in tokenizer.model_input_names
    return Padded(module, tokenizer.pad_token_id, uses_types), False


def is_packable(model: Any) -> bool:
    """Return whether a module is a BERT, RoBERTa or XLM-RoBERTa classifier, as `Packed` needs."""
    from transformers import (
        BertForSequenceClassification,
        RobertaForSequenceClassification,
        XLMRobertaForSequenceClassification,
    )

    known = (
        BertForSequenceClassification,
        RobertaForSequenceClassification,
        XLMRobertaForSequenceClassification,
    )
    return type(model) in known and not model.config.is_decoder
