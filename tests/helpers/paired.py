"""Pairs for the data report, and an encoder whose tokens are words."""

from __future__ import annotations

import dataclasses

import numpy as np

from reranker.cache import Cache
from reranker.config import EngineConfig, SamplingConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.data.draws import IntArray
from reranker.sampling import Pairs, build_pairs

AUDIT = {"pairs_checked": 12}
MAX_WORDS = 30  # of a context and a book together; half of the pairs here have more


def words(texts: list[str]) -> IntArray:
    return np.array([len(text.split()) for text in texts])


class WordCounter:
    """Counts words as tokens and truncates the book only."""

    max_tokens = MAX_WORDS

    def count_tokens(self, texts: list[str]) -> IntArray:
        return words(texts)

    def kept_tokens(
        self, query_lengths: IntArray, candidate_lengths: IntArray
    ) -> tuple[IntArray, IntArray]:
        return query_lengths, np.minimum(candidate_lengths, self.max_tokens - query_lengths)


def drawn(tables: Tables, contexts: Contexts, cache: Cache, **sampling: object) -> Pairs:
    cfg = dataclasses.replace(SamplingConfig(), **sampling)
    return build_pairs(Corpus(tables, contexts), cfg, EngineConfig("synchronous", 1), cache)
