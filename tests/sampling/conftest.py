"""The corpus of the tests' small tables."""

from __future__ import annotations

import pytest

from reranker.data import Contexts, Corpus, Tables


@pytest.fixture
def corpus(tables: Tables, contexts: Contexts) -> Corpus:
    return Corpus(tables, contexts)
