"""Weights and the cross-encoder that scores with them. Torch is imported when a model is loaded, not before."""

from reranker.model.bi_encoder import embed
from reranker.model.encoder import Encoder, device, load
from reranker.model.exported import Exported, load_exported
from reranker.model.source import Weights, resolve

__all__ = ["Encoder", "Exported", "Weights", "device", "embed", "load", "load_exported", "resolve"]
