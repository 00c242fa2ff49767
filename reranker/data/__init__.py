"""Raw tables in; books, histories, splits and user contexts out."""

from reranker.data.contexts import ContextBuilder, Contexts
from reranker.data.contexts import build as build_contexts
from reranker.data.tables import Tables, load

__all__ = ["ContextBuilder", "Contexts", "Tables", "build_contexts", "load"]
