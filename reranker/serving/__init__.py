"""Load, store and export trained rerankers."""
