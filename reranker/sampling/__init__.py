"""Build training pairs from a corpus or read them from files, and audit them for leaked answers."""

from reranker.sampling.audit import audit
from reranker.sampling.given_pairs import (
    GivenPairs,
    audit_given,
    given_warnings,
    load_given,
    without_users,
)
from reranker.sampling.pairs import Pairs, build_pairs
from reranker.sampling.pairs_corpus import GIVEN_KIND, PairsCorpus, split_pairs

__all__ = [
    "GIVEN_KIND",
    "GivenPairs",
    "Pairs",
    "PairsCorpus",
    "audit",
    "audit_given",
    "build_pairs",
    "given_warnings",
    "load_given",
    "split_pairs",
    "without_users",
]
