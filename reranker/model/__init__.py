"""Model weights and the cross-encoder; torch is imported only when a model is loaded."""

from reranker.model.bi_encoder import embed
from reranker.model.encoder import Encoder, device
from reranker.model.loading import load, trained_attention
from reranker.model.openvino_scorer import ExportedModel, load_exported
from reranker.model.tokens import Batch, Tokens
from reranker.model.weights import Weights, resolve

__all__ = [
    "Batch",
    "Encoder",
    "ExportedModel",
    "Tokens",
    "Weights",
    "device",
    "embed",
    "load",
    "load_exported",
    "resolve",
    "trained_attention",
]
