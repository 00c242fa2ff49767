"""Build books, histories, splits and user contexts from raw tables."""

from reranker.data.contexts import ContextBuilder, Contexts, build_contexts
from reranker.data.corpus import Corpus, load
from reranker.data.tables import Tables, load_tables

__all__ = [
    "ContextBuilder",
    "Contexts",
    "Corpus",
    "Tables",
    "build_contexts",
    "load",
    "load_tables",
]
