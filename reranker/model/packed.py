"""The forward pass of BERT and (XLM-)RoBERTa cross-encoders over packed tokens, from the module's own parameters."""

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
    """The forward of one module without padding: every linear layer sees real tokens alone.

    Of the last layer it computes keys and values of all tokens, but queries, feed-forward and norms of each pair's
    [CLS] alone, which is all that the head looks at; where it only scores, in fp32 on a CPU, no keys and values either.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = model.base_model
        self._linears = Linears()
        self.sizes = Cost.of(model)

    def __call__(
        self, batch: Batch, *, bf16: bool, recompute: bool = False, add_norm: AddNorm | None = None
    ) -> torch.Tensor:
        """(n_pairs,) float32 logits; differentiable, with the module's dropout while it trains.

        Args:
            recompute: Keep of each layer its input alone, and compute the layer again, with the same dropout, in the
                backward pass.
            add_norm: Takes the place of the plain `_add_norm`.
        """
        run: Any = partial(checkpoint, use_reentrant=False) if recompute else _call
        layers = list(self._base.encoder.layer)
        x = self._embed(batch)
        plan = spans(batch)
        for layer in layers[:-1]:
            x = run(self._layer, layer, x, plan, bf16, add_norm or _add_norm)
        first = torch.from_numpy(batch.start[batch.pair]).to(x.device)
        x = run(
            self._last_layer, layers[-1], x, first, first_spans(batch), bf16, add_norm or _add_norm
        )
        return self._head(x)

    def compiled(self) -> Callable[..., torch.Tensor]:
        """This forward with residual sums and norms compiled: one kernel, forward and backward, instead of three.

        Matrix products call the vendor's kernels either way, and attention's plan is another in every batch.
        """
        return partial(self, add_norm=_compiled_add_norm())

    def cost(self, batch: Batch) -> tuple[int, float]:
        """The tokens that a forward computes, and its FLOPs (see `Cost.flops`)."""
        return batch.n_tokens, self.sizes.flops(batch, last_layer=False)

    def _embed(self, batch: Batch) -> torch.Tensor:
        table = self._base.embeddings
        device = table.word_embeddings.weight.device
        ids, types = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.types))
        x = table.word_embeddings(ids) + table.token_type_embeddings(types)
        return table.dropout(
            table.LayerNorm(x + table.position_embeddings(self._positions(batch).to(device)))
        )

    def _positions(self, batch: Batch) -> torch.Tensor:
        """The module's own count: RoBERTa's starts after the padding id and passes over text that spells padding."""
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
        self, layer: Any, x: torch.Tensor, plan: list[Span], bf16: bool, add_norm: AddNorm
    ) -> torch.Tensor:
        attention = layer.attention.self
        states = self._linears(x, [attention.query, attention.key, attention.value], bf16=bf16)
        attended = self._attend(attention, states, None, plan)
        return self._after_attention(layer, attended, x, bf16, add_norm)

    def _last_layer(
        self,
        layer: Any,
        x: torch.Tensor,
        first: torch.Tensor,
        plan: list[Span],
        bf16: bool,
        add_norm: AddNorm,
    ) -> torch.Tensor:
        attention = layer.attention.self
        only_scores = not (bf16 or torch.is_grad_enabled() or attention.training)
        if only_scores and x.device.type == "cpu":
            return self._after_attention(
                layer, attend_inputs(attention, x, x[first], plan), x[first], bf16, add_norm
            )
        states = self._linears(x, [attention.key, attention.value], bf16=bf16)
        x = x[first]
        query = self._linears(x, [attention.query], bf16=bf16)
        return self._after_attention(
            layer, self._attend(attention, states, query, plan), x, bf16, add_norm
        )

    def _attend(
        self, module: Any, states: torch.Tensor, query: torch.Tensor | None, plan: list[Span]
    ) -> torch.Tensor:
        heads = module.num_attention_heads, module.attention_head_size
        states = states.view(len(states), -1, *heads)
        query = None if query is None else query.view(-1, *heads)
        attended = attend(states, query, plan, dropout=module.dropout.p, training=module.training)
        return attended.reshape(len(attended), -1)

    def _after_attention(
        self, layer: Any, attended: torch.Tensor, x: torch.Tensor, bf16: bool, add_norm: AddNorm
    ) -> torch.Tensor:
        x = self._residual(layer.attention.output, attended, x, bf16, add_norm)
        inner = self._linears(x, [layer.intermediate.dense], bf16=bf16)
        return self._residual(
            layer.output, layer.intermediate.intermediate_act_fn(inner), x, bf16, add_norm
        )

    def _residual(
        self, module: Any, y: torch.Tensor, x: torch.Tensor, bf16: bool, add_norm: AddNorm
    ) -> torch.Tensor:
        y = self._linears(y, [module.dense], bf16=bf16)
        norm, rate = module.LayerNorm, module.dropout.p if module.training else 0.0
        return add_norm(y, x, norm.weight, norm.bias, norm.eps, rate)

    def _head(self, x: torch.Tensor) -> torch.Tensor:
        pooler = getattr(self._base, "pooler", None)  # RoBERTa's is inside its classifier
        if pooler is None:
            logits = self._model.classifier(x[:, None])
        else:
            logits = self._model.classifier(self._model.dropout(pooler(x[:, None])))
        return logits.squeeze(-1)


class Padded:
    """The forward of any other module: the module's own, over pairs that are padded to the longest of the batch."""

    def __init__(self, model: Any, padding_id: int, uses_types: bool) -> None:
        self._model = model
        self._padding_id = padding_id
        self._uses_types = uses_types
        self._recomputes = False
        self.sizes = Cost.of(model)

    def __call__(
        self, batch: Batch, *, bf16: bool, recompute: bool = False, module: Any = None
    ) -> torch.Tensor:
        """(n_pairs,) float32 logits; bf16 is autocast.

        Args:
            recompute: As the module itself does it, while it trains.
            module: Takes the place of the plain module.

        Raises:
            ModelError: It is to recompute, and cannot.
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
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = (module or self._model)(
                **{name: values.to(device) for name, values in features.items()}
            ).logits
        return logits.squeeze(-1).float()

    def compiled(self) -> Callable[..., torch.Tensor]:
        """This forward with the module compiled, for pairs of any number and length."""
        return partial(self, module=torch.compile(self._model, dynamic=True))

    def cost(self, batch: Batch) -> tuple[int, float]:
        """The tokens that a forward computes, padding among them, and the FLOPs of the real ones (see `Cost.flops`)."""
        return batch.n_pairs * int((batch.start[1:] - batch.start[:-1]).max()), self.sizes.flops(
            batch, last_layer=True
        )

    def _set_recompute(self, wanted: bool) -> None:
        if wanted == self._recomputes:
            return
        if not self._model.supports_gradient_checkpointing:
            raise ModelError(
                f"{type(self._model).__name__} cannot compute its layers again. Set trainer.gradient_checkpointing="
                "false, and a smaller trainer.batch_tokens to save memory."
            )
        kind = (
            "activation" if hasattr(self._model, "activation_checkpointing_enable") else "gradient"
        )  # its older name
        if wanted:
            getattr(self._model, f"{kind}_checkpointing_enable")({"use_reentrant": False})
            self._model.disable_input_require_grads()  # a hook on embeddings, which reentrant checkpoints alone need
        else:
            getattr(self._model, f"{kind}_checkpointing_disable")()
        self._recomputes = wanted

    @staticmethod
    def _fill(values: Any, real: torch.Tensor, padding: int) -> torch.Tensor:
        return torch.full(real.shape, padding).masked_scatter_(real, torch.from_numpy(values))


def _call(function: Callable[..., torch.Tensor], *args: Any) -> torch.Tensor:
    return function(*args)


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
    """The forward of a cross-encoder's module, and whether it is packed."""
    module, tokenizer = model[0].model, model.tokenizer
    if is_packable(module):
        return Packed(module), True
    return Padded(
        module, tokenizer.pad_token_id, "token_type_ids" in tokenizer.model_input_names
    ), False


def is_packable(model: Any) -> bool:
    """Whether the packed forward is this module's own function: a BERT, RoBERTa or XLM-RoBERTa classifier."""
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
