"""Numeric features of a candidate, rendered as a prefix of its text."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from reranker.data.draws import FloatArray, IntArray
from reranker.data.retrieval.ease import Ease
from reranker.data.texts import TEXT, arrow
from reranker.errors import DataError

# Feature (a value of data.text_features) -> its label in the text, in the order of the text.
LABELS = {"ease": "Ratings", "authors": "Authors", "genres": "Genres", "readers": "Readers"}

BLOCK = 2**16  # pairs per block: every pair needs a copy of its user's profile
N_RANKED = 256  # users per block: their scores of all books are in memory at once
# EASE's scores are rounded before they are ranked. Books that no other user rated then tie at 0,
# whatever the rounding errors of the arithmetic were.
DECIMALS = 6


def unit_sets(names: pd.Series) -> sp.csr_array:
    """Return a (n_books, n_names) matrix: row i is the unit vector of book i's set of names.

    The dot product of two rows is the cosine of the two sets. A book without names has a row of
    zeros.

    Args:
        names: (n_books,) names joined by ", ".
    """
    sets = names.reset_index(drop=True).str.split(", ").explode()
    sets = sets[(sets != "").to_numpy()]
    name = pd.factorize(sets)[0]
    shape = (len(names), name.max(initial=0) + 1)
    has = sp.csr_array((np.ones(len(sets)), (sets.index, name)), shape=shape)
    has.data[:] = 1  # a name that occurs twice in one book was summed
    size = np.sqrt(has.sum(axis=1))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)
    return (sp.diags_array(scale) @ has).tocsr()


def shared(profile: sp.csr_array, unit: sp.csr_array, row: IntArray, book: IntArray) -> FloatArray:
    """Return the (n_pairs,) dot products of rows `row` of `profile` and rows `book` of `unit`.

    Args:
        profile: (n_users, n_names) sums or means of the unit rows of each user's books.
        unit: (n_books, n_names) result of `unit_sets`.
        row, book: (n_pairs,) row numbers.
    """
    blocks = (slice(i, i + BLOCK) for i in range(0, len(row), BLOCK))
    products = [(profile[row[b]] * unit[book[b]]).sum(axis=1) for b in blocks]
    return np.concatenate([np.empty(0), *products])


def readers_level(n_readers: IntArray) -> IntArray:
    """Return 3 ln(1 + readers), rounded: few pairs share an exact count, many share a level."""
    return np.rint(3 * np.log1p(n_readers)).astype(np.int64)


@dataclass(frozen=True)
class _Candidates:
    """Candidates, their users, and the context books of these users.

    Attributes:
        users: (n_users,) codes, ascending.
        row: (n_pairs,) position of each candidate's user in `users`.
        book: (n_pairs,) book codes.
        context: Columns user and book: the context books of `users`.
    """

    users: IntArray
    row: IntArray
    book: IntArray
    context: pd.DataFrame


class NumericFeatures:
    """Renders numeric features of candidates as a prefix of their texts.

    With all features a text is `Ratings: 31 | Authors: 5 | Genres: 12 | Readers: 7 | Title: ...`.
    A cross-encoder that is trained on few pairs does not learn to match names between a context and
    a candidate, and it never sees the ratings of other users. It does learn to read numbers. Every
    feature is a small integer, its level:

    - ease: 4 log2(n_books / rank), where rank is the candidate's rank by EASE among all books
      except the context books. The rank uses the ratings of other users only.
    - authors: 5 ln(1 + sum), where sum adds, over the context books, the cosines between the
      candidate's and the book's set of authors.
    - genres: 50 x the mean, over the context books, of the cosine between the sets of genres.
    - readers: 3 ln(1 + n), where n users have the candidate among their context books.

    Source: Askari et al. 2023, "Injecting the BM25 score as text improves BERT-based re-rankers".

    Args:
        books: The books of the tables: authors and genres, by book code.
        names: Features to render, keys of LABELS; in the text they have the order of LABELS.
        ease: The fitted model of `ease`; required with that feature, else None.
        known: user, book: the ratings that `ease` was fitted on. A user's own ratings are left
            out of that user's ranks, because the ratings of a train user include the targets.
            None if the users to score are not among them.
        n_readers: (n_books,) users whose context side holds each book; required for `readers`.

    Raises:
        DataError: A name is unknown, or the input of a feature is missing.
    """

    def __init__(
        self,
        books: pd.DataFrame,
        names: Collection[str],
        *,
        ease: Ease | None = None,
        known: pd.DataFrame | None = None,
        n_readers: IntArray | None = None,
    ) -> None:
        _check_names(names, {"ease": ease, "readers": n_readers})
        self.names = tuple(name for name in LABELS if name in names)
        self.ease, self.n_readers, self._known = ease, n_readers, known
        self._sets = {
            name: unit_sets(books[name]) for name in self.names if name in ("authors", "genres")
        }

    @property
    def needs_context(self) -> bool:
        """Whether a level depends on the user's context books."""
        return self.names != ("readers",)

    def levels(self, user: IntArray, book: IntArray, context: pd.DataFrame) -> dict[str, IntArray]:
        """Return a dict of label -> (n_pairs,) levels of the candidates, in the order of the text.

        Args:
            user, book: (n_pairs,) codes of the users and of the candidates.
            context: user, book: the context books of at least these users.
        """
        users, row = np.unique(user, return_inverse=True)
        rows = context[context["user"].isin(users).to_numpy()]
        candidates = _Candidates(users, row, book, rows)
        return {LABELS[name]: self._level(name, candidates) for name in self.names}

    def prepend(
        self, texts: pd.Series, user: IntArray, book: IntArray, context: pd.DataFrame
    ) -> pa.Array:
        """Return the (n_pairs,) texts of the candidates, each preceded by its levels.

        Args:
            texts: (n_books,) by book code.
            user, book, context: As in `levels`.

        Example:
            >>> features.prepend(books["book_text"], np.array([3]), np.array([2]), context)[0]
            <pyarrow.LargeStringScalar: 'Authors: 3 | Genres: 12 | Title: ...'>
        """
        parts: list[pa.Array | pa.Scalar] = []
        for label, level in self.levels(user, book, context).items():
            values = arrow(level.astype(str).tolist())
            parts += [pa.scalar(f"{label}: ", TEXT), values, pa.scalar(" | ", TEXT)]
        text = arrow(texts).take(pa.array(book))
        return pc.binary_join_element_wise(*parts, text, pa.scalar("", TEXT))

    def _level(self, name: str, candidates: _Candidates) -> IntArray:
        """Return the (n_pairs,) levels of one feature."""
        if name == "readers" and self.n_readers is not None:
            return readers_level(self.n_readers)[candidates.book]
        if name == "ease" and self.ease is not None:
            return _rank_level(self.ease, candidates, self._known)
        return _overlap_level(name, self._sets[name], candidates)


def _check_names(names: Collection[str], inputs: dict[str, object]) -> None:
    if unknown := sorted(set(names) - set(LABELS)):
        raise DataError(
            f"data.text_features: {unknown[0]!r} is unknown; choose from {', '.join(LABELS)}."
        )
    for name, value in inputs.items():
        if name in names and value is None:
            raise DataError(f"the text feature {name!r} needs ratings, but none were passed.")


def _overlap_level(name: str, unit: sp.csr_array, candidates: _Candidates) -> IntArray:
    """Return the (n_pairs,) levels of the overlap between candidates and context books."""
    n_users, context = len(candidates.users), candidates.context
    position = np.searchsorted(candidates.users, context["user"].to_numpy())
    cells = (np.ones(len(context)), (position, context["book"].to_numpy()))
    counts = sp.csr_array(cells, shape=(n_users, unit.shape[0]))
    total = shared((counts @ unit).tocsr(), unit, candidates.row, candidates.book)
    if name == "authors":  # the sum, which is 0 for most candidates
        return np.rint(5 * np.log1p(total)).astype(np.int64)
    n_books = np.bincount(position, minlength=n_users)[candidates.row]
    return np.rint(50 * total / np.maximum(n_books, 1)).astype(np.int64)


def _rank_level(ease: Ease, candidates: _Candidates, known: pd.DataFrame | None) -> IntArray:
    """Return the (n_pairs,) values of 4 log2(n_books / rank), rounded; ties share their mean rank.

    Args:
        known: user, book: ratings of any users; a user's own are left out of that user's scores.
    """
    users, row, book = candidates.users, candidates.row, candidates.book
    rated = None if known is None else known[known["user"].isin(users).to_numpy()]
    order = np.argsort(row, kind="stable")
    ends = np.searchsorted(row[order], np.arange(len(users) + 1))
    by_user = candidates.context.groupby("user")["book"]
    context_of = {int(str(user)): books.to_numpy() for user, books in by_user}
    ratio = np.empty(len(row))
    for first in range(0, len(users), N_RANKED):
        block = users[first : first + N_RANKED]
        scores = ease.scores(block, candidates.context, rated).toarray().round(DECIMALS)
        for i, user in enumerate(block, start=first):
            pairs = order[ends[i] : ends[i + 1]]
            rank = _ranks(scores[i - first], book[pairs], context_of.get(int(user), []))
            ratio[pairs] = scores.shape[1] / rank
    return np.rint(4 * np.log2(ratio)).astype(np.int64)


def _ranks(scores: FloatArray, book: IntArray, context: IntArray | list[int]) -> FloatArray:
    """Return the (n,) ranks of books, from 1, among all books outside one user's context.

    Args:
        scores: (n_books,) scores for the user.
        book: (n,) book codes.
        context: Codes of the user's context books.
    """
    others = np.sort(np.delete(scores, context))
    above, up_to = (
        len(others) - np.searchsorted(others, scores[book], side) for side in ("right", "left")
    )
    return (above + 1 + np.maximum(up_to, above + 1)) / 2
