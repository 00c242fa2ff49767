"""Pairs for the data report, and words in place of tokens."""

from __future__ import annotations

import dataclasses

import numpy as np

from reranker.cache import Cache
from reranker.config import EngineConfig, SamplingConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.data.draws import IntArray
from reranker.sampling import Pairs, build_pairs

AUDIT = {"pairs_checked": 12}
ROOM = 30  # words of a context and a book: half of the pairs here have more


def words(texts: list[str]) -> IntArray:
    return np.array([len(text.split()) for text in texts])


def drawn(tables: Tables, contexts: Contexts, cache: Cache, **sampling: object) -> Pairs:
    cfg = dataclasses.replace(SamplingConfig(), **sampling)
    return build_pairs(Corpus(tables, contexts), cfg, EngineConfig("synchronous", 1), cache)
