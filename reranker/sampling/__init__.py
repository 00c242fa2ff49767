"""Build training pairs from a corpus, and audit them for leaked answers."""

from reranker.sampling.audit import audit
from reranker.sampling.pairs import Pairs, build_pairs

__all__ = ["Pairs", "audit", "build_pairs"]
