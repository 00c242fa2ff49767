"""What a candidate shares with its reader's context books, authors and genres, as numbers that its text begins with."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse as sp

from reranker.data.draws import FloatArray, IntArray
from reranker.data.texts import TEXT, arrow

BLOCK = 2**16  # pairs in work at once where each has its user's profile beside it


def unit_sets(names: pd.Series) -> sp.csr_array:
    """(n_books, n_names) unit rows of the sets of names that are joined by ", ": a product of two is their cosine.

    A book without a name has an empty row.
    """
    sets = names.reset_index(drop=True).str.split(", ").explode()
    sets = sets[(sets != "").to_numpy()]
    name = pd.factorize(sets)[0]
    has = sp.csr_array((np.ones(len(sets)), (sets.index, name)), shape=(len(names), name.max(initial=0) + 1))
    has.data[:] = 1  # a name that stands twice in one book was added up
    size = np.sqrt(has.sum(axis=1))
    return (sp.diags_array(np.divide(1.0, size, out=np.zeros_like(size), where=size > 0)) @ has).tocsr()


def shared(profile: sp.csr_array, unit: sp.csr_array, row: IntArray, book: IntArray) -> FloatArray:
    """(n_pairs,) products of row `row` of the readers' profiles and row `book` of the books' unit sets."""
    blocks = (slice(i, i + BLOCK) for i in range(0, len(row), BLOCK))
    products = [(profile[row[b]] * unit[book[b]]).sum(axis=1) for b in blocks]
    return np.concatenate([np.empty(0), *products])


class Match:
    """Puts levels of shared authors and genres before candidate texts: `Authors: 5 | Genres: 12 | Title: ...`.

    A cross-encoder of few pairs does not learn to look names up in a context; numbers it reads at once. A level is of
    a sum (authors, by 5 ln(1 + x), for most are 0) or a mean (genres, in fiftieths) of cosines between sets of names.

    Source: Askari et al. 2023, "Injecting the BM25 score as text improves BERT-based re-rankers".
    """

    def __init__(self, books: pd.DataFrame) -> None:
        self._authors, self._genres = (unit_sets(books[column]) for column in ("authors", "genres"))

    def before(self, text: pd.Series, user: IntArray, book: IntArray, context: pd.DataFrame) -> pa.Array:
        """(n_pairs,) the candidates' texts behind their levels.

        Args:
            text: (n_books,) by book code.
            user, book: (n_pairs,) codes of who is asked for, and of the candidate.
            context: user, book: the context books, at least of these users.
        """
        users, row = np.unique(user, return_inverse=True)
        mine = context[context["user"].isin(users).to_numpy()]
        place = np.searchsorted(users, mine["user"].to_numpy())
        held = sp.csr_array((np.ones(len(mine)), (place, mine["book"].to_numpy())), shape=(len(users), len(text)))
        n_held = np.bincount(place, minlength=len(users))[row]
        authors = np.rint(5 * np.log1p(shared((held @ self._authors).tocsr(), self._authors, row, book)))
        genres = np.rint(50 * shared((held @ self._genres).tocsr(), self._genres, row, book) / np.maximum(n_held, 1))
        levels = [arrow(level.astype(np.int64).astype(str).tolist()) for level in (authors, genres)]
        texts = arrow(text).take(pa.array(book))
        lead, between, behind, nothing = (pa.scalar(s, TEXT) for s in ("Authors: ", " | Genres: ", " | ", ""))
        return pc.binary_join_element_wise(lead, levels[0], between, levels[1], behind, texts, nothing)
