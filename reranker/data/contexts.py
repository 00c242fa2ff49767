"""User contexts: which books of a history a reader is known by, and the text that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reranker import templates
from reranker.config import DataConfig
from reranker.data import texts
from reranker.data.draws import BoolArray, FloatArray, IntArray
from reranker.data.features import short_title
from reranker.data.numeric_features import Match
from reranker.data.retrieval.ease import EASE_BOOKS, Ease
from reranker.data.tables import Tables
from reranker.errors import DataError

BLOCK_ROWS = 2**17  # books in work at a time: the arrays of a block stay in the processor's cache
N_COUNTS = 2**20  # genre counts of contexts in work at a time


def context_names(books: pd.DataFrame) -> list[str]:
    """What a context calls each book: `Title by First Author`, the title without its series."""
    author = (authors.partition(", ")[0] for authors in books["authors"])
    return [
        f"{short_title(t)} by {a}" if a else short_title(t)
        for t, a in zip(books["title"], author, strict=True)
    ]


class ContextBuilder:
    """Renders user contexts from rated books: the one place where training, evaluation and serving get them from."""

    def __init__(
        self,
        books: pd.DataFrame,
        *,
        n_titles: int,
        n_genres: int,
        positive_rating: float,
        n_authors: int = 0,
        template: str = DataConfig.context_template,
    ) -> None:
        self.n_titles = n_titles
        self.n_genres = n_genres
        self.n_authors = n_authors
        self.positive_rating = positive_rating
        self.template = template
        self._parts = templates.parse_context(template)
        self._names = texts.arrow(context_names(books))
        first = texts.arrow(
            [authors.partition(", ")[0] for authors in books["authors"]]
        ).dictionary_encode()
        self._author_names, self._author_codes = first.dictionary, first.indices.to_numpy()
        genres = texts.arrow(books["genres"])
        lists = pc.split_pattern(pc.if_else(pc.equal(genres, ""), None, genres), ", ")
        coded = pc.list_flatten(lists).dictionary_encode()
        self._genre_names, self._genre_codes = coded.dictionary, coded.indices.to_numpy()
        self._n_genres_of = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
        self._genres_start = np.cumsum(self._n_genres_of) - self._n_genres_of

    def render(
        self, user: IntArray, book: IntArray, rating: FloatArray, timestamp: IntArray
    ) -> dict[int, str]:
        """The context text of every user.

        A context is made of the books that a user liked (rating of at least positive_rating) or, where there are none,
        of all. Titles: best rated first, then latest, then ascending book code. Genres: most frequent over *all* of
        these books, then in the order of their first book.

        Args:
            user: (n_rows,) codes; rows need not be sorted.
            book: (n_rows,) row numbers in the books table.
            rating, timestamp: (n_rows,).

        Returns:
            user code -> text such as `Likes: A by X; B by Y. Genres: fantasy, horror`, ascending.
        """
        kept = np.flatnonzero(_context_mask(user, rating >= self.positive_rating))
        user, book = user[kept], book[kept]
        order = _best_first(user, book, rating[kept], timestamp[kept])
        user = user[order]
        starts = np.flatnonzero(np.diff(user, prepend=-1))
        text = self._render(np.append(starts, len(user)), book[order])
        return dict(zip(user[starts].tolist(), text, strict=True))

    def render_without(
        self,
        user: IntArray,
        book: IntArray,
        rating: FloatArray,
        timestamp: IntArray,
        *,
        left_user: IntArray,
        left_book: IntArray,
    ) -> list[str]:
        """The context of each left-out pair's user, made of the user's other books by the rules of `render`.

        Args:
            user, book, rating, timestamp: (n_rows,) as for `render`.
            left_user, left_book: (n_pairs,) codes; a user may stand in many pairs.

        Returns:
            (n_pairs,) texts.

        Raises:
            DataError: A user has no other book.
        """
        order = _best_first(user, book, rating, timestamp)
        by_user, book, liked = user[order], book[order], rating[order] >= self.positive_rating
        low, high = (
            np.searchsorted(by_user, left_user.astype(by_user.dtype), side)
            for side in ("left", "right")
        )
        size = high - low
        ends = np.concatenate([[0], np.cumsum(size)])
        out: list[str] = []
        for first, last in _blocks(ends, max_groups=BLOCK_ROWS):
            pair, row = _expand(low[first:last], size[first:last])
            left = pd.DataFrame({"user": np.arange(last - first), "book": left_book[first:last]})
            rows = without(
                pd.DataFrame({"user": pair, "book": book[row], "liked": liked[row]}),
                left,
                len(self._names),
            )
            _refuse_alone(rows["user"], left_user[first:last], left_book[first:last])
            rows = rows[_context_mask(rows["user"].to_numpy(), rows["liked"].to_numpy())]
            n_rows = np.bincount(rows["user"], minlength=last - first)
            out += self._render(np.concatenate([[0], np.cumsum(n_rows)]), rows["book"].to_numpy())
        return out

    def _render(self, ends: IntArray, book: IntArray) -> list[str]:
        """The texts of contexts made of books ends[0]:ends[1], ends[1]:ends[2], …, the best first; none is empty."""
        out: list[str] = []
        for first, last in _blocks(ends, max_groups=N_COUNTS // max(1, len(self._genre_names))):
            sizes = np.diff(ends[first : last + 1])
            context, mine = np.repeat(np.arange(len(sizes)), sizes), book[ends[first] : ends[last]]
            shown = _places(sizes) < self.n_titles
            titles = texts.joined(
                context[shown], self._names.take(pa.array(mine[shown])), len(sizes), "; "
            )
            names = (
                {"authors": self._top_authors(context, mine, len(sizes))} if self.n_authors else {}
            )
            names |= {"titles": titles, "genres": self._top_genres(context, mine, len(sizes))}
            out += texts.fill(self._parts, names).to_pylist()
        return out

    def _top_authors(self, context: IntArray, book: IntArray, n: int) -> pa.Array:
        """(n,) the first authors of each context's books, joined: most frequent first, then the better rated."""
        n_authors = len(self._author_names)
        known = np.flatnonzero(
            pc.not_equal(self._author_names, "").to_numpy(zero_copy_only=False)[
                self._author_codes[book]
            ]
        )
        cell = context[known] * n_authors + self._author_codes[book[known]]
        cells, first, counts = np.unique(cell, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts, cells // n_authors))
        of = cells[order] // n_authors
        shown = _places(np.bincount(of, minlength=n)) < self.n_authors
        return texts.joined(
            of[shown], self._author_names.take(pa.array(cells[order][shown] % n_authors)), n, ", "
        )

    def _top_genres(self, context: IntArray, book: IntArray, n: int) -> pa.Array:
        """(n,) the genres of each context, joined: most frequent first, then as its books have them."""
        sizes = self._n_genres_of[book]
        row, entry = _expand(self._genres_start[book], sizes)
        n_genres = len(self._genre_names)
        cell = context[row] * n_genres + self._genre_codes[entry]
        first = np.empty(n * n_genres, dtype=np.int64)
        first[cell[::-1]] = np.arange(len(cell))[
            ::-1
        ]  # of entries with one cell the last assignment stands: the first
        cells = cell[
            first[cell] == np.arange(len(cell))
        ]  # in the order of their first appearance, so by context
        counts = np.bincount(cell, minlength=1)[cells]
        of, most = cells // max(1, n_genres), counts.max(initial=0)
        order = np.argsort(of * (most + 1) + most - counts, kind="stable")
        shown = order[_places(np.bincount(of, minlength=n)) < self.n_genres]
        names = self._genre_names.take(pa.array(cells[shown] % max(1, n_genres)))
        return texts.joined(of[shown], names, n, ", ")


def _best_first(
    user: IntArray, book: IntArray, rating: FloatArray, timestamp: IntArray
) -> IntArray:
    """The order of rows by user, then best rated, then latest, then ascending book."""
    step = np.diff(user)
    if (
        (step > 0) | ((step == 0) & (np.diff(book) > 0))
    ).all():  # as histories are: the stable sort keeps books' order
        return np.lexsort((-timestamp, -rating, user))
    return np.lexsort((book, -timestamp, -rating, user))


def _context_mask(user: IntArray, liked: BoolArray) -> BoolArray:
    """Which rows make a context: the liked ones, and all of a user who liked none."""
    some = np.zeros(int(user.max(initial=-1)) + 1, dtype=bool)
    some[user[liked]] = True
    return liked | ~some[user]


def _refuse_alone(pair: pd.Series, left_user: IntArray, left_book: IntArray) -> None:
    alone = np.flatnonzero(np.bincount(pair, minlength=len(left_user)) == 0)
    if len(alone):
        user, book = left_user[alone[0]], left_book[alone[0]]
        raise DataError(
            f"{len(alone)} left-out books leave their user no other for a context (first: user code {user}, book code "
            f"{book}). Leave out only books of users with at least 2."
        )


def _places(sizes: IntArray) -> IntArray:
    """0, 1, … in each of consecutive groups of these sizes."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def _expand(start: IntArray, size: IntArray) -> tuple[IntArray, IntArray]:
    """Range number and value of every number in ranges start[i]:start[i] + size[i], one after the other."""
    return np.repeat(np.arange(len(size)), size), np.repeat(start, size) + _places(size)


def _blocks(ends: IntArray, *, max_groups: int) -> Iterator[tuple[int, int]]:
    """Ranges of the groups ends[i]:ends[i + 1] that hold at most BLOCK_ROWS rows, or one group of more."""
    first = 0
    while first < len(ends) - 1:
        last = int(np.searchsorted(ends, ends[first] + BLOCK_ROWS, side="right")) - 1
        last = max(min(last, first + max_groups), first + 1)
        yield first, last
        first = last


@dataclass(frozen=True)
class Contexts:
    """A context per user: `text[u]` is the context of user code u.

    Attributes:
        rows: The ratings that they were made of, of histories: user, book, rating, timestamp.
        builder: What rendered them.
        match: What puts numbers before the texts of candidates; None where these are the books' own.
    """

    text: list[str]
    rows: pd.DataFrame
    builder: ContextBuilder
    match: Match | None = None

    def candidates(self, books: pd.DataFrame, user: IntArray, book: IntArray) -> pa.Array:
        """(n_pairs,) the text of each candidate as it is put to its user's context.

        Args:
            books: Of the tables.
            user, book: (n_pairs,) codes.
        """
        if self.match is None:
            return texts.arrow(books["book_text"]).take(pa.array(book))
        return self.match.before(books["book_text"], user, book, self.rows)

    def levels(self, user: IntArray, book: IntArray) -> dict[str, IntArray]:
        """Name -> (n_pairs,) the numbers before the candidates' texts; none where these are the books' own."""
        return {} if self.match is None else self.match.levels(user, book, self.rows)

    def candidates_of_nobody(self, books: pd.DataFrame, book: IntArray) -> pa.Array:
        """(n,) candidate texts beside an empty context."""
        if self.match is None:
            return texts.arrow(books["book_text"]).take(pa.array(book))
        return self.match.before(books["book_text"], np.zeros_like(book), book, self.rows.iloc[:0])


def build_contexts(tables: Tables, cfg: DataConfig) -> Contexts:
    """The context of every user, from the context side of the history alone."""
    rows = without(
        tables.histories, tables.histories[tables.histories["is_target"]], len(tables.books)
    )
    builder = ContextBuilder(
        tables.books,
        n_titles=cfg.context_titles,
        n_genres=cfg.context_genres,
        n_authors=cfg.context_authors,
        positive_rating=cfg.positive_rating,
        template=cfg.context_template,
    )
    columns = [rows[name].to_numpy() for name in ("user", "book", "rating", "timestamp")]
    text = builder.render(*columns)
    return Contexts([text[u] for u in range(len(tables.users))], rows, builder, _match(tables, cfg))


def _match(tables: Tables, cfg: DataConfig) -> Match | None:
    if not cfg.shows_ratings:
        return Match(tables.books) if cfg.shows_match else None
    known = tables.known()
    ease = Ease.fit(
        known, n_users=len(tables.users), n_books=len(tables.books), n_kept=EASE_BOOKS
    ).rounded()
    return Match(tables.books, names=cfg.shows_match, ease=ease, known=known)


def without(histories: pd.DataFrame, targets: pd.DataFrame, n_books: int) -> pd.DataFrame:
    """The rows of `histories` whose (user, book) is not in `targets`, compared as int64 codes.

    The original compared an int id with a string here, so nothing was ever removed.
    """
    keys = [
        pd.Series(f["user"].to_numpy().astype(np.int64) * n_books + f["book"])
        for f in (histories, targets)
    ]
    return histories[~keys[0].isin(keys[1]).to_numpy()]


def shows_book(text: str, name: str, template: str) -> bool:
    """Whether a context of this template lists the book that `context_names` calls `name` among its titles."""
    lead, behind, end = _title_marks(template)
    sections = [text.removesuffix(end)]
    sections += [
        text[:at] for mark in behind if (at := text.rfind(mark)) >= 0
    ]  # the text has authors, or genres
    return any(f"; {name}; " in f"; {section[len(lead) :]}; " for section in sections)


@lru_cache
def _title_marks(template: str) -> tuple[str, tuple[str, ...], str]:
    """What stands before the titles, what may stand between them and a field behind them, and what at the end.

    A field without a value vanishes, so any field behind the titles may be the next to them.
    """
    parts = templates.parse_context(template)
    at = [part.field for part in parts].index("titles")
    fixed = "".join(part.gap + part.before for part in parts[:at])
    lead = fixed + (parts[at].gap if at else "") + parts[at].before
    behind: list[str] = []
    end = parts[at].after
    for part in parts[at + 1 :]:
        if part.field is None:
            end += part.gap + part.before
        else:
            behind.append(end + part.gap + part.before)
    return lead, tuple(behind), end
