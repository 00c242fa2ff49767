"""User contexts: short texts that describe users by the context side of their histories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
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
from reranker.data.numeric_features import NumericFeatures
from reranker.data.retrieval.ease import EASE_BOOKS, Ease
from reranker.data.tables import Tables
from reranker.errors import DataError

BLOCK_ROWS = 2**17  # books per block: the arrays of a block fit in the processor's cache
N_COUNTS = 2**20  # genre counts (contexts x genres) per block


def context_names(books: pd.DataFrame) -> list[str]:
    """Return the name of each book in a context: `Title by First Author`, without the series."""
    authors = (names.partition(", ")[0] for names in books["authors"])
    return [
        f"{short_title(title)} by {author}" if author else short_title(title)
        for title, author in zip(books["title"], authors, strict=True)
    ]


class ContextBuilder:
    """Renders user contexts from rated books, for training, evaluation and serving alike.

    Args:
        books: Columns title, authors and genres; row i is book code i.
        n_titles, n_genres, n_authors: Maximum numbers of titles, genres and authors in a context.
        positive_rating: Minimum rating of a liked book.
        template: A template with the fields {titles}, {genres} and {authors}.
    """

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
        authors = [names.partition(", ")[0] for names in books["authors"]]
        first = texts.arrow(authors).dictionary_encode()
        self._author_names, self._author_codes = first.dictionary, first.indices.to_numpy()
        genres = texts.arrow(books["genres"])
        lists = pc.split_pattern(pc.if_else(pc.equal(genres, ""), None, genres), ", ")
        coded = pc.list_flatten(lists).dictionary_encode()
        self._genre_names, self._genre_codes = coded.dictionary, coded.indices.to_numpy()
        self._n_genres_of = pc.fill_null(pc.list_value_length(lists), 0).to_numpy().astype(np.int64)
        self._genres_start = np.cumsum(self._n_genres_of) - self._n_genres_of

    def settings(self) -> dict[str, int | float | str]:
        """Return the keyword arguments, without `books`, that create an equal builder."""
        return {
            "n_titles": self.n_titles,
            "n_genres": self.n_genres,
            "n_authors": self.n_authors,
            "positive_rating": self.positive_rating,
            "template": self.template,
        }

    def render(
        self, user: IntArray, book: IntArray, rating: FloatArray, timestamp: IntArray
    ) -> dict[int, str]:
        """Return the context of every user.

        A context describes the books that a user liked (rating of at least positive_rating), or all
        books of a user who liked none. Titles are sorted by descending rating, then from the latest
        to the earliest, then by ascending book code. Genres are counted over all of these books,
        not only over the titles shown, and are sorted by descending frequency; equally frequent
        genres keep the order of the books.

        Args:
            user: (n_rows,) codes; rows need not be sorted.
            book: (n_rows,) row numbers in the books table.
            rating, timestamp: (n_rows,) stars and Unix seconds.

        Returns:
            User code -> text, by ascending user code.

        Example:
            >>> zeros = np.zeros(2, dtype=int)
            >>> builder.render(zeros, np.array([4, 1]), np.array([5.0, 4.0]), zeros)
            {0: 'Likes: Dune by Frank Herbert; Emma by Jane Austen. Genres: classics, romance'}
        """
        selected = np.flatnonzero(_context_mask(user, rating >= self.positive_rating))
        user, book = user[selected], book[selected]
        order = _best_first(user, book, rating[selected], timestamp[selected])
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
        """Return one context per pair, rendered from the user's books except the pair's book.

        Args:
            user, book, rating, timestamp: (n_rows,) as in `render`.
            left_user, left_book: (n_pairs,) codes of the pairs; a user may be in several pairs.

        Returns:
            (n_pairs,) texts.

        Raises:
            DataError: A pair's book is the only book of its user.
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
            rows = pd.DataFrame({"user": pair, "book": book[row], "liked": liked[row]})
            left = pd.DataFrame({"user": np.arange(last - first), "book": left_book[first:last]})
            rows = drop_targets(rows, left, len(self._names))
            _check_has_context(rows["user"], left_user[first:last], left_book[first:last])
            rows = rows[_context_mask(rows["user"].to_numpy(), rows["liked"].to_numpy())]
            n_rows = np.bincount(rows["user"], minlength=last - first)
            out += self._render(np.concatenate([[0], np.cumsum(n_rows)]), rows["book"].to_numpy())
        return out

    def _render(self, ends: IntArray, book: IntArray) -> list[str]:
        """Return one context per group of books; group i is book[ends[i]:ends[i + 1]].

        Args:
            ends: (n_contexts + 1,) ascending offsets; no group is empty.
            book: Book codes; the best book of each group comes first.
        """
        out: list[str] = []
        for first, last in _blocks(ends, max_groups=N_COUNTS // max(1, len(self._genre_names))):
            sizes = np.diff(ends[first : last + 1])
            n = len(sizes)
            context, books = np.repeat(np.arange(n), sizes), book[ends[first] : ends[last]]
            shown = _positions(sizes) < self.n_titles
            names = self._names.take(pa.array(books[shown]))
            values = {"authors": self._top_authors(context, books, n)} if self.n_authors else {}
            values["titles"] = texts.join(context[shown], names, n, "; ")
            values["genres"] = self._top_genres(context, books, n)
            out += texts.fill(self._parts, values).to_pylist()
        return out

    def _top_authors(self, context: IntArray, book: IntArray, n: int) -> pa.Array:
        """Return (n,) texts: the joined first authors of each context's books.

        The most frequent author comes first; ties are resolved in favour of the better book.
        """
        n_authors = len(self._author_names)
        is_named = pc.not_equal(self._author_names, "").to_numpy(zero_copy_only=False)
        known = np.flatnonzero(is_named[self._author_codes[book]])
        cell = context[known] * n_authors + self._author_codes[book[known]]
        cells, first, counts = np.unique(cell, return_index=True, return_counts=True)
        order = np.lexsort((first, -counts, cells // n_authors))
        row = cells[order] // n_authors
        shown = _positions(np.bincount(row, minlength=n)) < self.n_authors
        names = self._author_names.take(pa.array(cells[order][shown] % n_authors))
        return texts.join(row[shown], names, n, ", ")

    def _top_genres(self, context: IntArray, book: IntArray, n: int) -> pa.Array:
        """Return (n,) texts: the joined genres of each context's books.

        The most frequent genre comes first; equally frequent genres keep the order of the books.
        """
        book_row, entry = _expand(self._genres_start[book], self._n_genres_of[book])
        n_genres = len(self._genre_names)
        cell = context[book_row] * n_genres + self._genre_codes[entry]
        # Index of the first entry of each (context, genre) cell: in reverse order it is set last.
        first = np.empty(n * n_genres, dtype=np.int64)
        first[cell[::-1]] = np.arange(len(cell))[::-1]
        cells = cell[first[cell] == np.arange(len(cell))]  # by first appearance, hence by context
        counts = np.bincount(cell, minlength=1)[cells]
        row, most = cells // max(1, n_genres), counts.max(initial=0)
        order = np.argsort(row * (most + 1) + most - counts, kind="stable")
        shown = order[_positions(np.bincount(row, minlength=n)) < self.n_genres]
        names = self._genre_names.take(pa.array(cells[shown] % max(1, n_genres)))
        return texts.join(row[shown], names, n, ", ")


def _best_first(
    user: IntArray, book: IntArray, rating: FloatArray, timestamp: IntArray
) -> IntArray:
    """Return the indices that sort by user, descending rating, descending time and book."""
    step = np.diff(user)
    # If the rows are sorted by (user, book), a stable sort keeps the order of the books.
    if ((step > 0) | ((step == 0) & (np.diff(book) > 0))).all():
        return np.lexsort((-timestamp, -rating, user))
    return np.lexsort((book, -timestamp, -rating, user))


def _context_mask(user: IntArray, liked: BoolArray) -> BoolArray:
    """Return a mask of the rows that describe a user: liked books, or all books if none is."""
    has_liked = np.zeros(int(user.max(initial=-1)) + 1, dtype=bool)
    has_liked[user[liked]] = True
    return liked | ~has_liked[user]


def _check_has_context(pair: pd.Series, left_user: IntArray, left_book: IntArray) -> None:
    """Raise if a pair has no context row."""
    empty = np.flatnonzero(np.bincount(pair, minlength=len(left_user)) == 0)
    if len(empty):
        user, book = left_user[empty[0]], left_book[empty[0]]
        raise DataError(
            f"{len(empty)} left-out books are the only book of their user, so no context is left "
            f"(first: user code {user}, book code {book}). Leave out only books of users with at "
            "least 2."
        )


def _positions(sizes: IntArray) -> IntArray:
    """Return 0, 1, …, size - 1 for each group of consecutive rows."""
    ends = np.cumsum(sizes)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - sizes, sizes)


def _expand(start: IntArray, size: IntArray) -> tuple[IntArray, IntArray]:
    """Return i and the value of each element of the ranges start[i]:start[i] + size[i]."""
    return np.repeat(np.arange(len(size)), size), np.repeat(start, size) + _positions(size)


def _blocks(ends: IntArray, *, max_groups: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) blocks of groups; group i is the rows ends[i]:ends[i + 1].

    A block has at most max_groups groups and at most BLOCK_ROWS rows, or is one larger group.
    """
    first = 0
    while first < len(ends) - 1:
        last = int(np.searchsorted(ends, ends[first] + BLOCK_ROWS, side="right")) - 1
        last = max(min(last, first + max_groups), first + 1)
        yield first, last
        first = last


@dataclass(frozen=True)
class Contexts:
    """The context of every user, and the texts of candidates as the model reads them.

    Attributes:
        text: `text[u]` is the context of user code u.
        rows: The ratings from which contexts are rendered: user, book, rating, timestamp.
        builder: The builder that rendered the contexts.
        numeric_features: Prepends numeric features to the texts of candidates; None if candidates
            have the texts of the books unchanged.
        cache_key: Settings that change the texts of candidates and are not part of the tables'
            digest. The cache key of a result that depends on these texts must contain them.
    """

    text: list[str]
    rows: pd.DataFrame
    builder: ContextBuilder
    numeric_features: NumericFeatures | None = None
    cache_key: dict[str, object] = field(default_factory=dict)

    def candidates(self, books: pd.DataFrame, user: IntArray, book: IntArray) -> pa.Array:
        """Return the (n_pairs,) texts of candidates, with the numeric features for their users.

        Args:
            books: The books of the tables.
            user, book: (n_pairs,) codes.
        """
        return self._texts(books, user, book, self.rows)

    def candidates_without_context(self, books: pd.DataFrame, book: IntArray) -> pa.Array:
        """Return the (n,) texts of candidates for a user without context books."""
        return self._texts(books, np.zeros_like(book), book, self.rows.iloc[:0])

    def levels(self, user: IntArray, book: IntArray) -> dict[str, IntArray]:
        """Return a dict of label -> (n_pairs,) numeric features; {} if there are none."""
        features = self.numeric_features
        return {} if features is None else features.levels(user, book, self.rows)

    def _texts(
        self, books: pd.DataFrame, user: IntArray, book: IntArray, context: pd.DataFrame
    ) -> pa.Array:
        if self.numeric_features is None:
            return texts.arrow(books["book_text"]).take(pa.array(book))
        return self.numeric_features.prepend(books["book_text"], user, book, context)


def build_contexts(tables: Tables, cfg: DataConfig, *, ease_books: int = EASE_BOOKS) -> Contexts:
    """Render every user's context from the context side of the history.

    Args:
        ease_books: The number of most rated books that the feature `ease` ranks.
    """
    targets = tables.histories[tables.histories["is_target"]]
    rows = drop_targets(tables.histories, targets, len(tables.books))
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
    return Contexts(
        text=[text[user] for user in range(len(tables.users))],
        rows=rows,
        builder=builder,
        numeric_features=_numeric_features(tables, cfg, ease_books),
        cache_key=_cache_key(cfg, ease_books),
    )


def _numeric_features(tables: Tables, cfg: DataConfig, ease_books: int) -> NumericFeatures | None:
    names = cfg.text_features
    if not names:
        return None
    known = tables.known() if "ease" in names else None
    return NumericFeatures(
        tables.books,
        names,
        ease=None if known is None else _fit_ease(tables, known, ease_books),
        known=known,
        n_readers=tables.n_readers() if "readers" in names else None,
    )


def _fit_ease(tables: Tables, known: pd.DataFrame, ease_books: int) -> Ease:
    n_users, n_books = len(tables.users), len(tables.books)
    return Ease.fit(known, n_users=n_users, n_books=n_books, n_kept=ease_books).rounded()


def _cache_key(cfg: DataConfig, ease_books: int) -> dict[str, object]:
    """Return ease_books if a feature uses it; the default is omitted to keep older cache keys."""
    matters = "ease" in cfg.text_features and ease_books != EASE_BOOKS
    return {"ease_books": ease_books} if matters else {}


def drop_targets(histories: pd.DataFrame, targets: pd.DataFrame, n_books: int) -> pd.DataFrame:
    """Return the rows of `histories` whose (user, book) is not in `targets`.

    Codes are compared as int64. The original system compared an integer id with a string here, and
    therefore never removed a row.
    """
    keys = [
        pd.Series(frame["user"].to_numpy().astype(np.int64) * n_books + frame["book"])
        for frame in (histories, targets)
    ]
    return histories[~keys[0].isin(keys[1]).to_numpy()]


def contains_title(text: str, name: str, template: str) -> bool:
    """Return whether a context rendered with `template` lists the book called `name`.

    Names are those of `context_names`.

    Example:
        >>> contains_title("Likes: Emma by Jane Austen; It.", "It", "Likes: {titles}.")
        True
    """
    lead, behind, end = _title_marks(template)
    sections = [text.removesuffix(end)]
    # If the text shows authors or genres, the titles end before them.
    sections += [text[:at] for mark in behind if (at := text.rfind(mark)) >= 0]
    return any(f"; {name}; " in f"; {section[len(lead) :]}; " for section in sections)


@lru_cache
def _title_marks(template: str) -> tuple[str, tuple[str, ...], str]:
    """Return the literal text before the titles, between them and each later field, and at the end.

    A field without a value vanishes, so any of the later fields may come right after the titles.
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
