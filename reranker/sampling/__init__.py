"""Training pairs from tables and contexts, and the audit that lets them pass."""

from reranker.sampling.audit import audit
from reranker.sampling.pairs import Pairs, build_pairs

__all__ = ["Pairs", "audit", "build_pairs"]
