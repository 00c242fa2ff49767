"""Choose the users for whom a model gains or loses most against another scorer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.data import Tables
from reranker.data.draws import FloatArray, IntArray
from reranker.eval import EvalSet

N_EXAMPLES = 5
N_SHOWN = 10  # books of a ranking; NDCG@10 depends on no others


@dataclass(frozen=True)
class Book:
    """A candidate in a ranking."""

    title: str
    authors: str
    is_positive: bool


@dataclass(frozen=True)
class RankedList:
    """One scorer's ranking of a user's candidate list.

    Attributes:
        ndcg_10: Computed with the expectation over random tie-breaking.
        top: The first ten books; books with equal scores are sorted by ascending id.
        lower: 1-based ranks of the positives below the first ten.
    """

    ndcg_10: float
    top: list[Book]
    lower: list[int]


@dataclass(frozen=True)
class Example:
    """A user, their context, and two rankings of their candidate list."""

    user_id: str
    context: str
    n_positives: int
    n_candidates: int
    ours: RankedList
    theirs: RankedList

    @property
    def gain(self) -> float:
        """NDCG@10 of ours minus theirs."""
        return self.ours.ndcg_10 - self.theirs.ndcg_10


@dataclass(frozen=True)
class ExampleUsers:
    """The users of one list kind with the largest gains and losses, largest first.

    Attributes:
        theirs: The scorer that made the rankings `theirs`.
        gains, losses: Up to N_EXAMPLES users each; users with a gain of 0 are in neither.
        n_gain, n_equal, n_loss: Numbers of users with a positive, zero and negative gain.
    """

    theirs: str
    gains: list[Example]
    losses: list[Example]
    n_gain: int
    n_equal: int
    n_loss: int


def choose_examples(
    test: EvalSet, per_user: pd.DataFrame, *, kind: str, ours: str, theirs: str
) -> ExampleUsers:
    """Return the examples of one list kind; equal gains are sorted by ascending user_id.

    Args:
        test: The test lists with the scores of both scorers.
        per_user: scorer, kind, user_id, ndcg_10; users without a value are left out.
        kind: The list kind.
        ours: The scorer whose gains and losses are shown.
        theirs: The scorer it is compared with.
    """
    of_kind = per_user[per_user["kind"] == kind]
    by_scorer = of_kind.pivot(index="user_id", columns="scorer", values="ndcg_10")
    ndcg = by_scorer[[ours, theirs]].dropna()
    gain = (ndcg[ours] - ndcg[theirs]).sort_index()
    ascending = np.argsort(gain.to_numpy(), kind="stable")
    descending = np.argsort(-gain.to_numpy(), kind="stable")
    best = [gain.index[i] for i in descending[:N_EXAMPLES] if gain.iloc[i] > 0]
    worst = [gain.index[i] for i in ascending[:N_EXAMPLES] if gain.iloc[i] < 0]
    rows_of = _rows_of_users(test, kind, best + worst)

    def example(user_id: str) -> Example:
        rows = rows_of[user_id]
        frame = test.rows.iloc[rows]
        rankings = (
            _rank(frame, test.scores[name][rows], test.tables, ndcg.at[user_id, name])
            for name in (ours, theirs)
        )
        context = test.contexts.text[int(frame["user"].iloc[0])]
        return Example(user_id, context, int((frame["label"] > 0).sum()), len(frame), *rankings)

    counts = (int((gain > 0).sum()), int((gain == 0).sum()), int((gain < 0).sum()))
    return ExampleUsers(theirs, [example(u) for u in best], [example(u) for u in worst], *counts)


def _rows_of_users(test: EvalSet, kind: str, user_ids: list[str]) -> dict[str, IntArray]:
    """Return the row numbers of each user's list of this kind."""
    of_kind = (test.rows["kind"] == kind).to_numpy()
    ids = test.tables.user_ids(test.rows["user"].to_numpy())
    return {user_id: np.flatnonzero(of_kind & (ids == user_id)) for user_id in user_ids}


def _rank(rows: pd.DataFrame, score: FloatArray, tables: Tables, ndcg_10: float) -> RankedList:
    """Rank a list by descending score and ascending book id.

    Scores are compared as float32, as in the metrics. Codes of books ascend with their ids.
    """
    book = rows["book"].to_numpy()
    order = np.lexsort((book, -score.astype(np.float32)))
    positive = (rows["label"].to_numpy() > 0)[order]
    titles, authors = (tables.books[name].to_numpy() for name in ("title", "authors"))
    shown = zip(book[order][:N_SHOWN], positive, strict=False)
    top = [Book(str(titles[b]), str(authors[b]), bool(is_positive)) for b, is_positive in shown]
    lower = np.flatnonzero(positive[N_SHOWN:]) + N_SHOWN + 1
    return RankedList(float(ndcg_10), top, lower.tolist())
