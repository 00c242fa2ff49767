"""Weights and the cross-encoder that scores with them. Torch is imported when a model is loaded, not before."""

from reranker.model.bi_encoder import embed
from reranker.model.encoder import Encoder, device
from reranker.model.exported import Exported, load_exported
from reranker.model.loading import load, trained_attention
from reranker.model.source import Weights, resolve
from reranker.model.tokens import Batch, Tokens

__all__ = [
    "Batch",
    "Encoder",
    "Exported",
    "Tokens",
    "Weights",
    "device",
    "embed",
    "load",
    "load_exported",
    "resolve",
    "trained_attention",
]
