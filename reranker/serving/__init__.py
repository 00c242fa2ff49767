"""Load, save, register and export trained rerankers."""

from reranker.serving.model_lookup import data_warnings, find_teacher, start_model
from reranker.serving.publish import register, save_bundle
from reranker.serving.registry import Registered

__all__ = [
    "Registered",
    "data_warnings",
    "find_teacher",
    "register",
    "save_bundle",
    "start_model",
]
