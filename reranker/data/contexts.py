"""User contexts: which books of a history a reader is known by, and the text that says so."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.config import DataConfig
from reranker.data.draws import FloatArray, IntArray
from reranker.data.features import short_title
from reranker.data.tables import Tables


def context_names(books: pd.DataFrame) -> list[str]:
    """What a context calls each book: `Title by First Author`, the title without its series."""
    author = books["authors"].str.split(", ").str[0]
    return [f"{short_title(t)} by {a}" if a else short_title(t) for t, a in zip(books["title"], author, strict=True)]


class ContextBuilder:
    """Renders user contexts from rated books: the one place where training, evaluation and serving get them from."""

    def __init__(self, books: pd.DataFrame, *, n_titles: int, n_genres: int, positive_rating: float) -> None:
        self.n_titles = n_titles
        self.n_genres = n_genres
        self.positive_rating = positive_rating
        self._names = context_names(books)
        self._genres = [genres.split(", ") if genres else [] for genres in books["genres"]]

    def render(self, user: IntArray, book: IntArray, rating: FloatArray, timestamp: IntArray) -> dict[int, str]:
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
        liked = rating >= self.positive_rating
        none_liked = ~np.isin(user, user[liked])
        keep = np.flatnonzero(liked | none_liked)
        order = keep[np.lexsort((book[keep], -timestamp[keep], -rating[keep], user[keep]))]
        starts = np.flatnonzero(np.diff(user[order], prepend=-1))
        return {
            int(user[rows[0]]): self._text(book[rows].tolist()) for rows in np.split(order, starts[1:]) if len(rows)
        }

    def _text(self, books: list[int]) -> str:
        titles = "; ".join(self._names[b] for b in books[: self.n_titles])
        counts: dict[str, int] = {}
        for b in books:
            for genre in self._genres[b]:
                counts[genre] = counts.get(genre, 0) + 1
        genres = sorted(counts, key=lambda g: -counts[g])[: self.n_genres]  # stable: ties keep the first book's order
        return f"Likes: {titles}." + (f" Genres: {', '.join(genres)}" if genres else "")


@dataclass(frozen=True)
class Contexts:
    """A context per user: `text[u]` is the context of user code u; `rows` are the ratings that it was made of."""

    text: list[str]
    rows: pd.DataFrame  # of histories: user, book, rating, timestamp
    builder: ContextBuilder  # what rendered them


def build(tables: Tables, cfg: DataConfig) -> Contexts:
    """The context of every user, from the context side of the history alone."""
    rows = without(tables.histories, tables.histories[tables.histories["is_target"]], len(tables.books))
    builder = ContextBuilder(
        tables.books, n_titles=cfg.context_titles, n_genres=cfg.context_genres, positive_rating=cfg.positive_rating
    )
    columns = [rows[name].to_numpy() for name in ("user", "book", "rating", "timestamp")]
    text = builder.render(*columns)
    return Contexts([text[u] for u in range(len(tables.users))], rows, builder)


def without(histories: pd.DataFrame, targets: pd.DataFrame, n_books: int) -> pd.DataFrame:
    """The rows of `histories` whose (user, book) is not in `targets`, compared as int64 codes.

    The original compared an int id with a string here, so nothing was ever removed.
    """
    keys = [f["user"].to_numpy().astype(np.int64) * n_books + f["book"].to_numpy() for f in (histories, targets)]
    return histories[~np.isin(*keys)]
