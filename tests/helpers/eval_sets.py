"""Evaluation sets for tests, and a model whose scores and truncation a test chooses."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import numpy as np

from reranker.config import EvalConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.data.draws import BoolArray, FloatArray, IntArray
from reranker.eval import CandidateLists, EvalSet, Evaluation, evaluate
from reranker.eval.scoring import Scorer


def eval_set(
    tables: Tables,
    lists: CandidateLists,
    cfg: EvalConfig,
    *,
    contexts: Contexts | None = None,
    scores: Mapping[str, FloatArray] | None = None,
) -> EvalSet:
    """Return an evaluation set. Contexts are needed only where a scorer reads texts."""
    return EvalSet(Corpus(tables, cast(Contexts, contexts)), lists, cfg, dict(scores or {}))


def evaluated(
    tables: Tables, lists: CandidateLists, scores: Mapping[str, FloatArray], cfg: EvalConfig
) -> Evaluation:
    """Return the evaluation of scores without a model, so without context checks."""
    return evaluate(eval_set(tables, lists, cfg, scores=scores))


def with_tables(q: EvalSet, **changes: object) -> EvalSet:
    """Return the evaluation set with other columns of its tables."""
    tables = dataclasses.replace(q.tables, **changes)
    return dataclasses.replace(q, corpus=dataclasses.replace(q.corpus, tables=tables))


def with_contexts(q: EvalSet, contexts: Contexts) -> EvalSet:
    """Return the evaluation set with other contexts."""
    return dataclasses.replace(q, corpus=dataclasses.replace(q.corpus, contexts=contexts))


@dataclasses.dataclass
class FakeModel:
    """A model with a given scorer, which counts characters as tokens."""

    scorer: Scorer
    truncates: Callable[[IntArray, IntArray], BoolArray] = lambda query, candidate: query < 0

    def score(
        self, queries: Sequence[str], candidates: Sequence[str], *, progress: str | None = None
    ) -> FloatArray:
        return self.scorer(queries, candidates)

    def count_tokens(self, texts: Sequence[str]) -> IntArray:
        return np.array([len(text) for text in texts])
