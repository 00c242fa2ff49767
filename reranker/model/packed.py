"""The forward pass of BERT and (XLM-)RoBERTa cross-encoders over packed tokens, from the module's own parameters."""

from __future__ import annotations

from typing import Any

import torch

from reranker.model.attention import Span, attend, attend_inputs, first_spans, spans
from reranker.model.precision import Linears
from reranker.model.tokens import Batch


class Packed:
    """The forward of one module without padding: every linear layer sees real tokens alone.

    Of the last layer it computes keys and values of all tokens, but queries, feed-forward and norms of each pair's
    [CLS] alone, which is all that the head looks at; where it only scores, in fp32 on a CPU, no keys and values either.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._base = model.base_model
        self._linears = Linears()

    def __call__(self, batch: Batch, *, bf16: bool) -> torch.Tensor:
        """(n_pairs,) float32 logits; differentiable, with the module's dropout while it trains."""
        layers = list(self._base.encoder.layer)
        x = self._embed(batch)
        plan = spans(batch)
        for layer in layers[:-1]:
            x = self._layer(layer, x, plan, bf16)
        first = torch.from_numpy(batch.start[batch.pair]).to(x.device)
        x = self._last_layer(layers[-1], x, first, first_spans(batch), bf16)
        return self._head(x)

    def _embed(self, batch: Batch) -> torch.Tensor:
        table = self._base.embeddings
        device = table.word_embeddings.weight.device
        ids, types = (torch.from_numpy(x).to(device) for x in (batch.ids, batch.types))
        x = table.word_embeddings(ids) + table.token_type_embeddings(types)
        return table.dropout(table.LayerNorm(x + table.position_embeddings(self._positions(batch).to(device))))

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

    def _layer(self, layer: Any, x: torch.Tensor, plan: list[Span], bf16: bool) -> torch.Tensor:
        attention = layer.attention.self
        states = self._linears(x, [attention.query, attention.key, attention.value], bf16=bf16)
        attended = self._attend(attention, states, None, plan)
        return self._after_attention(layer, attended, x, bf16)

    def _last_layer(
        self, layer: Any, x: torch.Tensor, first: torch.Tensor, plan: list[Span], bf16: bool
    ) -> torch.Tensor:
        attention = layer.attention.self
        only_scores = not (bf16 or torch.is_grad_enabled() or attention.training)
        if only_scores and x.device.type == "cpu":
            return self._after_attention(layer, attend_inputs(attention, x, x[first], plan), x[first], bf16)
        states = self._linears(x, [attention.key, attention.value], bf16=bf16)
        x = x[first]
        query = self._linears(x, [attention.query], bf16=bf16)
        return self._after_attention(layer, self._attend(attention, states, query, plan), x, bf16)

    def _attend(self, module: Any, states: torch.Tensor, query: torch.Tensor | None, plan: list[Span]) -> torch.Tensor:
        heads = module.num_attention_heads, module.attention_head_size
        states = states.view(len(states), -1, *heads)
        query = None if query is None else query.view(-1, *heads)
        attended = attend(states, query, plan, dropout=module.dropout.p, training=module.training)
        return attended.reshape(len(attended), -1)

    def _after_attention(self, layer: Any, attended: torch.Tensor, x: torch.Tensor, bf16: bool) -> torch.Tensor:
        x = self._residual(layer.attention.output, attended, x, bf16)
        inner = self._linears(x, [layer.intermediate.dense], bf16=bf16)
        return self._residual(layer.output, layer.intermediate.intermediate_act_fn(inner), x, bf16)

    def _residual(self, module: Any, y: torch.Tensor, x: torch.Tensor, bf16: bool) -> torch.Tensor:
        return module.LayerNorm(module.dropout(self._linears(y, [module.dense], bf16=bf16)) + x)

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

    def __call__(self, batch: Batch, *, bf16: bool) -> torch.Tensor:
        """(n_pairs,) float32 logits; bf16 is autocast."""
        lengths = torch.from_numpy(batch.start[1:] - batch.start[:-1])
        real = torch.arange(int(lengths.max())) < lengths[:, None]
        device = self._model.device
        features = {"input_ids": self._fill(batch.ids, real, self._padding_id), "attention_mask": real.long()}
        if self._uses_types:
            features["token_type_ids"] = self._fill(batch.types, real, 0)
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            logits = self._model(**{name: values.to(device) for name, values in features.items()}).logits
        return logits.squeeze(-1).float()

    @staticmethod
    def _fill(values: Any, real: torch.Tensor, padding: int) -> torch.Tensor:
        return torch.full(real.shape, padding).masked_scatter_(real, torch.from_numpy(values))


def forward_of(model: Any) -> tuple[Packed | Padded, bool]:
    """The forward of a cross-encoder's module, and whether it is packed."""
    module, tokenizer = model[0].model, model.tokenizer
    if _is_packable(module):
        return Packed(module), True
    return Padded(module, tokenizer.pad_token_id, "token_type_ids" in tokenizer.model_input_names), False


def _is_packable(model: Any) -> bool:
    from transformers import (
        BertForSequenceClassification,
        RobertaForSequenceClassification,
        XLMRobertaForSequenceClassification,
    )

    known = (BertForSequenceClassification, RobertaForSequenceClassification, XLMRobertaForSequenceClassification)
    return type(model) in known and not model.config.is_decoder
