"""`Reranker` under the import path that models registered by version 0.1 use."""

from reranker.serving.reranker import Reranker

__all__ = ["Reranker"]
