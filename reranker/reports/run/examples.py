"""The users for whom a model gains most over another scorer, and loses most, with both rankings of their books."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.data import Contexts, Tables
from reranker.data.draws import FloatArray, IntArray

N_EXAMPLES = 5
N_SHOWN = 10  # of a ranking: what NDCG@10 sees


@dataclass(frozen=True)
class Book:
    """A candidate in a ranking."""

    title: str
    authors: str
    is_positive: bool


@dataclass(frozen=True)
class Ranked:
    """One scorer's ranking of a user's list.

    Attributes:
        ndcg_10: Of the whole list; ties count with their expected value.
        top: The first ten; books with one score stand by ascending id.
        lower: 1-based ranks of the positives that stand below.
    """

    ndcg_10: float
    top: list[Book]
    lower: list[int]


@dataclass(frozen=True)
class Example:
    """A user, what the model is told of them, and both rankings of their list."""

    user_id: str
    context: str
    n_positives: int
    n_candidates: int
    ours: Ranked
    theirs: Ranked

    @property
    def gain(self) -> float:
        """NDCG@10 of ours less theirs."""
        return self.ours.ndcg_10 - self.theirs.ndcg_10


@dataclass(frozen=True)
class ExampleUsers:
    """Users of one list kind: those of largest gain and those of largest loss, the largest first.

    Attributes:
        theirs: The scorer that `theirs` is the ranking of.
        gains, losses: Up to N_EXAMPLES; a user with a gain of 0 stands in neither.
        n_gain, n_equal, n_loss: All users with a value, by the sign of their gain.
    """

    theirs: str
    gains: list[Example]
    losses: list[Example]
    n_gain: int
    n_equal: int
    n_loss: int


def choose(
    rows: pd.DataFrame,
    per_user: pd.DataFrame,
    scores: Mapping[str, FloatArray],
    tables: Tables,
    contexts: Contexts,
    *,
    kind: str,
    ours: str,
    theirs: str,
) -> ExampleUsers:
    """The examples of one list kind. Equal gains are taken by ascending user_id, so the choice is the data's alone.

    Args:
        rows: The frozen lists' frame: kind, user, book, label.
        per_user: scorer, kind, user_id, ndcg_10; a user without a value (no positives) is left out.
        scores: Scorer -> (n_rows,) scores aligned to `rows`.
        ours, theirs: The two scorers to set side by side.
    """
    of_kind = per_user[per_user["kind"] == kind]
    ndcg = of_kind.pivot(index="user_id", columns="scorer", values="ndcg_10")[
        [ours, theirs]
    ].dropna()
    gain = (ndcg[ours] - ndcg[theirs]).sort_index()
    order = np.argsort(gain.to_numpy(), kind="stable")
    falling = np.argsort(-gain.to_numpy(), kind="stable")
    best = [gain.index[i] for i in falling[:N_EXAMPLES] if gain.iloc[i] > 0]
    worst = [gain.index[i] for i in order[:N_EXAMPLES] if gain.iloc[i] < 0]
    places = _places(rows, tables, kind, best + worst)

    def example(user_id: str) -> Example:
        place = places[user_id]
        frame = rows.iloc[place]
        sides = (
            _rank(frame, np.asarray(scores[name])[place], tables, float(ndcg.loc[user_id, name]))
            for name in (ours, theirs)
        )
        context = contexts.text[int(frame["user"].iloc[0])]
        return Example(user_id, context, int((frame["label"] > 0).sum()), len(frame), *sides)

    counts = (int((gain > 0).sum()), int((gain == 0).sum()), int((gain < 0).sum()))
    return ExampleUsers(theirs, [example(u) for u in best], [example(u) for u in worst], *counts)


def _places(
    rows: pd.DataFrame, tables: Tables, kind: str, user_ids: list[str]
) -> dict[str, IntArray]:
    """The rows of each of these users' lists."""
    codes = pd.Index(tables.users["user_id"]).get_indexer(user_ids)
    of_kind, user = (rows["kind"] == kind).to_numpy(), rows["user"].to_numpy()
    return {
        u: np.flatnonzero(of_kind & (user == code)) for u, code in zip(user_ids, codes, strict=True)
    }


def _rank(rows: pd.DataFrame, score: FloatArray, tables: Tables, ndcg_10: float) -> Ranked:
    """The list by falling score as float32, in which the metrics compare them, then by book: codes ascend with ids."""
    book = rows["book"].to_numpy()
    order = np.lexsort((book, -score.astype(np.float32)))
    positive = (rows["label"].to_numpy() > 0)[order]
    titles, authors = (tables.books[name].to_numpy() for name in ("title", "authors"))
    shown = zip(book[order][:N_SHOWN], positive, strict=False)
    top = [Book(str(titles[b]), str(authors[b]), bool(is_positive)) for b, is_positive in shown]
    return Ranked(ndcg_10, top, (np.flatnonzero(positive[N_SHOWN:]) + N_SHOWN + 1).tolist())
