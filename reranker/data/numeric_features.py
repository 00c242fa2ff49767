"""What speaks for a candidate, as numbers that its text begins with: ratings of others, shared authors and genres."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from reranker.data.draws import FloatArray, IntArray
from reranker.data.retrieval.ease import Ease
from reranker.data.texts import TEXT, arrow

BLOCK = 2**16  # pairs in work at once where each has its user's profile beside it
N_RANKED = 256  # users whose scores of all books are in memory at once
DECIMALS = 6  # of EASE's weights that count: books that nobody else rated tie at 0, whatever was rounded on the way


def unit_sets(names: pd.Series) -> sp.csr_array:
    """(n_books, n_names) unit rows of the sets of names that are joined by ", ": a product of two is their cosine.

    A book without a name has an empty row.
    """
    sets = names.reset_index(drop=True).str.split(", ").explode()
    sets = sets[(sets != "").to_numpy()]
    name = pd.factorize(sets)[0]
    has = sp.csr_array(
        (np.ones(len(sets)), (sets.index, name)), shape=(len(names), name.max(initial=0) + 1)
    )
    has.data[:] = 1  # a name that stands twice in one book was added up
    size = np.sqrt(has.sum(axis=1))
    return (
        sp.diags_array(np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)) @ has
    ).tocsr()


def shared(profile: sp.csr_array, unit: sp.csr_array, row: IntArray, book: IntArray) -> FloatArray:
    """(n_pairs,) products of row `row` of the readers' profiles and row `book` of the books' unit sets."""
    blocks = (slice(i, i + BLOCK) for i in range(0, len(row), BLOCK))
    products = [(profile[row[b]] * unit[book[b]]).sum(axis=1) for b in blocks]
    return np.concatenate([np.empty(0), *products])


class Match:
    """Puts levels before candidate texts, of what speaks for a candidate beside what its text says.

    `Ratings: 31 | Authors: 5 | Genres: 12 | Title: ...`. A cross-encoder of few pairs does not learn to look names up
    in a context, and never sees who else rated a book; numbers it reads at once. Levels are of the candidate's rank by
    EASE in the whole catalogue but the context books (4 for each halving), of a sum (authors, by 5 ln(1 + x), for most
    are 0) and of a mean (genres, in fiftieths) of cosines between sets of names.

    Source: Askari et al. 2023, "Injecting the BM25 score as text improves BERT-based re-rankers".

    Args:
        books: Of the tables.
        names: Whether to show authors and genres.
        ease: What ranks by ratings; None shows no ratings.
        known: user, book: what EASE was fitted on. A user's own ratings do not count for what the user is shown: those
            of training hold the answers. None where the users that are asked for are not among them.
    """

    def __init__(
        self,
        books: pd.DataFrame,
        *,
        names: bool = True,
        ease: Ease | None = None,
        known: pd.DataFrame | None = None,
    ) -> None:
        self._sets = (
            [unit_sets(books[column]) for column in ("authors", "genres")] if names else None
        )
        self.ease, self._known = ease, known

    def levels(self, user: IntArray, book: IntArray, context: pd.DataFrame) -> dict[str, IntArray]:
        """Name -> (n_pairs,) the levels of candidates, in the order of the text.

        Args:
            user, book: (n_pairs,) codes of who is asked for, and of the candidate.
            context: user, book: the context books, at least of these users.
        """
        users, row = np.unique(user, return_inverse=True)
        mine = context[context["user"].isin(users).to_numpy()]
        out = (
            {}
            if self.ease is None
            else {"Ratings": _rank_levels(self.ease, users, row, book, mine, self._known)}
        )
        if self._sets is None:
            return out
        place = np.searchsorted(users, mine["user"].to_numpy())
        shape = len(users), self._sets[0].shape[0]
        held = sp.csr_array((np.ones(len(mine)), (place, mine["book"].to_numpy())), shape=shape)
        n_held = np.bincount(place, minlength=len(users))[row]
        authors, genres = (shared((held @ unit).tocsr(), unit, row, book) for unit in self._sets)
        levels = {"Authors": 5 * np.log1p(authors), "Genres": 50 * genres / np.maximum(n_held, 1)}
        return out | {name: np.rint(level).astype(np.int64) for name, level in levels.items()}

    def before(
        self, text: pd.Series, user: IntArray, book: IntArray, context: pd.DataFrame
    ) -> pa.Array:
        """(n_pairs,) the candidates' texts behind `levels`; `text` is (n_books,) by book code."""
        parts: list[pa.Array | pa.Scalar] = []
        for name, level in self.levels(user, book, context).items():
            parts += [
                pa.scalar(f"{name}: ", TEXT),
                arrow(level.astype(str).tolist()),
                pa.scalar(" | ", TEXT),
            ]
        return pc.binary_join_element_wise(
            *parts, arrow(text).take(pa.array(book)), pa.scalar("", TEXT)
        )


def _rank_levels(
    ease: Ease,
    users: IntArray,
    row: IntArray,
    book: IntArray,
    context: pd.DataFrame,
    known: pd.DataFrame | None,
) -> IntArray:
    """(n_pairs,) 4 log2(books / rank), rounded; tied books share their mean rank.

    Args:
        users: (n_users,) ascending codes.
        row: (n_pairs,) places in `users`.
        context, known: user, book; the first of these users, the other of any.
    """
    own = None if known is None else known[known["user"].isin(users).to_numpy()]
    order = np.argsort(row, kind="stable")
    ends = np.searchsorted(row[order], np.arange(len(users) + 1))
    held = context.groupby("user")["book"]
    books_of = {int(str(user)): books.to_numpy() for user, books in held}
    rank = np.empty(len(row))
    for first in range(0, len(users), N_RANKED):
        block = ease.scores(users[first : first + N_RANKED], context, own).toarray().round(DECIMALS)
        for i, scores in enumerate(block, start=first):
            pairs = order[ends[i] : ends[i + 1]]
            asked = scores[book[pairs]]
            others = np.sort(np.delete(scores, books_of.get(int(users[i]), [])))
            above, upto = (
                len(others) - np.searchsorted(others, asked, side) for side in ("right", "left")
            )
            rank[pairs] = (above + 1 + np.maximum(upto, above + 1)) / 2
    return (
        np.rint(4 * np.log2(block.shape[1] / rank)).astype(np.int64)
        if len(row)
        else np.empty(0, np.int64)
    )
