"""Weights and the cross-encoder that scores with them. Torch is imported when a model is loaded, not before."""

from reranker.model.bi_encoder import embed
from reranker.model.encoder import Encoder, device
from reranker.model.loading import load
from reranker.model.source import Weights, resolve
from reranker.model.tokens import Batch, Tokens

__all__ = ["Batch", "Encoder", "Tokens", "Weights", "device", "embed", "load", "resolve"]
