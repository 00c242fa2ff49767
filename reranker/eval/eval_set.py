"""Evaluation sets: candidate lists together with the corpus, which is all that a scorer needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import pandas as pd

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.data.draws import FloatArray, IntArray
from reranker.eval.lists import CandidateLists, build_lists, digest_of_kind
from reranker.eval.scoring import Scorer, dev_metrics
from reranker.model import activations

VERSION = 1  # raise it when `EvalSet.score` gives other scores


class TrainingPairs(Protocol):
    """Pairs as `sampling.build_pairs` returns them.

    Attributes:
        codes: user, book, label of every pair.
        digest: SHA-256 of the pairs.
    """

    @property
    def codes(self) -> pd.DataFrame: ...

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class EvalSet:
    """The rows that scorers score, and the scores they gave.

    Attributes:
        corpus: Tables and user contexts.
        lists: The candidate lists of one split.
        cfg: Seed, cut-offs and list kinds of the evaluation.
        scores: Scorer name -> (n_rows,) scores aligned to `rows`. The run adds to it.
    """

    corpus: Corpus
    lists: CandidateLists
    cfg: EvalConfig
    scores: dict[str, FloatArray] = field(default_factory=dict)

    @classmethod
    def from_lists(cls, corpus: Corpus, cfg: EvalConfig, cache: Cache, *, split: str) -> EvalSet:
        """Return the evaluation set of a split's candidate lists.

        Raises:
            DataError: As `build_lists`.
        """
        return cls(corpus, build_lists(corpus.tables, cfg, split, cache), cfg)

    @classmethod
    def from_pairs(cls, corpus: Corpus, pairs: TrainingPairs | None, cfg: EvalConfig) -> EvalSet:
        """Return the training pairs as an evaluation set, so that a baseline can score them.

        Without pairs it has no rows.

        Use it with the baselines of `config.TEACHERS` only. The other baselines see all ratings
        of a training user, and these are the labels of the pairs.
        """
        columns = ["user", "book", "label"]
        if pairs is None:
            empty = CandidateLists(pd.DataFrame(columns=columns), "", "train", hit=False, counts={})
            return cls(corpus, empty, cfg)
        rows = pairs.codes[columns]
        return cls(corpus, CandidateLists(rows, pairs.digest, "train", hit=False, counts={}), cfg)

    @property
    def tables(self) -> Tables:
        """Books, users and histories."""
        return self.corpus.tables

    @property
    def contexts(self) -> Contexts:
        """The context of every user."""
        return self.corpus.contexts

    @property
    def split(self) -> str:
        """Return "train", "dev" or "test"."""
        return self.lists.split

    @property
    def rows(self) -> pd.DataFrame:
        """The candidates: kind, user, book, label, retrieval_score, and in lists of a pairs file
        context."""
        return self.lists.frame

    @property
    def context(self) -> IntArray:
        """(n_rows,) index of every row's context in `contexts.text`: the row's user, except in
        lists of a pairs file, where a user may have several contexts."""
        return self.rows["context" if "context" in self.rows else "user"].to_numpy()

    @property
    def context_rows(self) -> pd.DataFrame:
        """The context books of the users in `rows`: user, book."""
        rows = self.contexts.rows
        return rows[rows["user"].isin(self.rows["user"].unique())]

    def of_kind(self, kind: str) -> EvalSet:
        """Return the evaluation set of one list kind, without scores."""
        frame = self.rows[self.rows["kind"] == kind]
        return replace(self, lists=replace(self.lists, frame=frame), scores={})

    def headline(self) -> EvalSet:
        """Return the evaluation set of the first list kind, by which checkpoints are chosen."""
        return self.of_kind(self.cfg.list_kinds[0])

    @property
    def headline_digest(self) -> str:
        """Return the SHA-256 of the headline lists."""
        return self.digest_of_kind(self.cfg.list_kinds[0])

    def digest_of_kind(self, kind: str) -> str:
        """Return the SHA-256 of one list kind; metrics are comparable where it agrees."""
        return digest_of_kind(self.lists, self.tables, kind)

    def score(self, scorer: Scorer) -> FloatArray:
        """Return (n_rows,) scores of every candidate given its user's context.

        Example:
            >>> test.score(encoder.score)
        """
        user, book = self.rows["user"].to_numpy(), self.rows["book"].to_numpy()
        candidates = self.contexts.candidates(self.tables.books, user, book)
        return scorer([self.contexts.text[i] for i in self.context], candidates.to_pylist())

    def score_once(self, scorer: Scorer, model: object, cache: Cache) -> FloatArray:
        """Return `score(scorer)`, from the cache where this model has scored these lists before.

        Args:
            model: Everything that decides the scores, as plain values or dataclasses.
        """

        def build(folder: Path) -> dict[str, object]:
            np.save(folder / "scores.npy", self.score(scorer), allow_pickle=False)
            return {}

        key = {
            "version": VERSION,
            "model": model,
            "tables": self.tables.digest,
            "lists": self.lists.digest,
            **self.contexts.cache_key,
        }
        entry = cache.fetch("untrained", key, build)
        scores: FloatArray = np.load(entry.path / "scores.npy", allow_pickle=False)
        return scores

    def evaluator(
        self, scorer: Scorer, activation: str = "identity"
    ) -> Callable[[], dict[str, float]]:
        """Return a function that scores the headline lists once and returns their `dev_metrics`.

        Args:
            activation: `model.activation` of the scores.
        """
        headline, threshold = self.headline(), activations.threshold(activation)
        return lambda: dev_metrics(headline.rows, headline.score(scorer), threshold=threshold)

    def with_ids(self) -> pd.DataFrame:
        """Return the candidates by ids: kind, user_id, book_id, label, retrieval_score."""
        columns = ["kind", "user_id", "book_id", "label", "retrieval_score"]
        return self.tables.with_ids(self.rows)[columns]

    def scores_with_ids(self) -> pd.DataFrame:
        """Return `with_ids` with a column of scores for every scorer."""
        return self.with_ids().assign(**self.scores)


def build_sets(corpus: Corpus, cfg: EvalConfig, cache: Cache) -> tuple[EvalSet, EvalSet]:
    """Return the dev and the test set.

    Raises:
        DataError: As `build_lists`.

    Example:
        >>> dev, test = build_sets(corpus, cfg.eval, Cache(cfg.cache_dir))
    """
    dev, test = (EvalSet.from_lists(corpus, cfg, cache, split=split) for split in ("dev", "test"))
    return dev, test
