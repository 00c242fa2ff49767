"""Generate a synthetic catalogue, its users and their ratings."""

from reranker.data.sources.demo.ratings import VERSION, generate

__all__ = ["VERSION", "generate"]
