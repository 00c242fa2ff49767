"""Score candidate lists and compute their mean NDCG@10."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray
from reranker.eval import metrics
from reranker.eval.lists import CandidateLists

VERSION = 1  # raise it when `score_lists` changes


Scorer = Callable[[Sequence[str], Sequence[str]], FloatArray]


MODEL = "fine_tuned"


MODELS = (
    MODEL,
    "fused",
)  # what fine-tuning made, alone and mixed with a baseline: never a baseline of either


def score_lists(
    scorer: Scorer, tables: Tables, contexts: Contexts, lists: CandidateLists
) -> FloatArray:
    """(n_rows,) scores of every candidate for its user's context, aligned to `lists.frame`."""
    user, book = lists.frame["user"].to_numpy(), lists.frame["book"].to_numpy()
    return scorer(
        [contexts.text[u] for u in user], contexts.candidates(tables.books, user, book).to_pylist()
    )


def score_lists_once(
    scorer: Scorer,
    tables: Tables,
    contexts: Contexts,
    lists: CandidateLists,
    model: object,
    cache: Cache,
) -> FloatArray:
    """`score_lists`, from the cache where a run has asked it of this model: of one that no training has changed.

    Args:
        model: All that decides what it scores, as plain values or dataclasses.
    """

    def build(folder: Path) -> dict[str, object]:
        np.save(
            folder / "scores.npy", score_lists(scorer, tables, contexts, lists), allow_pickle=False
        )
        return {}

    key = {"version": VERSION, "model": model, "tables": tables.digest, "lists": lists.digest}
    key |= contexts.cache_key
    scores: FloatArray = np.load(
        cache.fetch("untrained", key, build).path / "scores.npy", allow_pickle=False
    )
    return scores


def dev_scorer(
    scorer: Scorer, tables: Tables, contexts: Contexts, lists: CandidateLists, cfg: EvalConfig
) -> Callable[[], float]:
    """A function that scores the dev lists of the headline kind afresh and returns their mean NDCG@10."""
    kind = cfg.list_kinds[0]
    headline = dataclasses.replace(lists, frame=lists.frame[lists.frame["kind"] == kind])
    return lambda: mean_ndcg_10(headline, score_lists(scorer, tables, contexts, headline), kind)


def mean_ndcg_10(lists: CandidateLists, scores: FloatArray, kind: str) -> float:
    """Mean NDCG@10 over the users of one list kind: what dev lists decide by."""
    rows = (lists.frame["kind"] == kind).to_numpy()
    ranking = metrics.rank(
        lists.frame["user"].to_numpy()[rows],
        lists.frame["label"].to_numpy()[rows],
        np.asarray(scores)[rows],
    )
    return float(np.nanmean(metrics.ndcg(ranking, k=10)))
