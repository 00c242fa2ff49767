"""User contexts show what the context side of a history says, and nothing of its targets."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reranker.config import DataConfig
from reranker.data import ContextBuilder, Contexts, Tables
from reranker.data.contexts import without

BOOKS = pd.DataFrame(
    {
        "title": ["Dune (Dune, #1)", "Emma", "It", "Ulysses"],
        "authors": ["Frank Herbert, Other", "Jane Austen", "Stephen King", ""],
        "genres": ["science fiction, classics", "romance, classics", "horror", ""],
    }
)


def render(book: list[int], rating: list[float], timestamp: list[int] | None = None, *, n_titles: int = 9) -> str:
    builder = ContextBuilder(BOOKS, n_titles=n_titles, n_genres=2, positive_rating=4)
    time = np.array(timestamp or [0] * len(book))
    return builder.render(np.zeros(len(book), int), np.array(book), np.array(rating), time)[0]


def test_titles_come_best_rated_then_latest_first() -> None:
    text = render([0, 1, 2], [4, 5, 4], [1, 1, 9])
    assert text == "Likes: Emma by Jane Austen; It by Stephen King; Dune by Frank Herbert. Genres: classics, romance"


def test_genres_count_over_all_liked_books_not_only_the_titles_shown() -> None:
    assert render([2, 0, 1], [5, 4, 4], n_titles=1) == "Likes: It by Stephen King. Genres: classics, horror"


def test_disliked_books_are_left_out_unless_nothing_was_liked() -> None:
    assert "Emma" not in render([0, 1], [5, 1])
    assert render([1, 3], [2, 1]) == "Likes: Emma by Jane Austen; Ulysses. Genres: romance, classics"


def test_row_order_does_not_matter() -> None:
    builder = ContextBuilder(BOOKS, n_titles=9, n_genres=2, positive_rating=4)
    rng = np.random.default_rng(0)
    user, book, rating = np.array([7, 7, 7, 2, 2]), np.array([0, 1, 2, 3, 0]), np.array([4.0, 4, 5, 4, 3])
    expected = builder.render(user, book, rating, np.zeros(5))
    assert list(expected) == [2, 7]
    for _ in range(5):
        p = rng.permutation(5)
        assert builder.render(user[p], book[p], rating[p], np.zeros(5)) == expected


def test_every_user_has_a_context_from_context_books_alone(
    tables: Tables, contexts: Contexts, data_cfg: DataConfig
) -> None:
    assert len(contexts.text) == len(tables.users)
    assert all(text.startswith("Likes: ") for text in contexts.text)
    assert not contexts.rows["is_target"].any()
    assert len(contexts.rows) == (~tables.histories["is_target"]).sum()


def test_without_is_the_set_difference(tables: Tables) -> None:
    h = tables.histories
    targets = h.iloc[::3][["user", "book"]].astype(np.int64)  # another integer type than the histories'
    left = without(h, targets, len(tables.books))
    pairs = set(zip(targets["user"], targets["book"], strict=True))
    expected = [i for i, p in enumerate(zip(h["user"], h["book"], strict=True)) if p not in pairs]
    assert left.index.tolist() == expected
