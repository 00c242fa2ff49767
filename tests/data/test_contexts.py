"""User contexts describe the context side of a history and contain none of its targets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.config import DataConfig
from reranker.data import ContextBuilder, Contexts, Tables, build_contexts, contexts
from reranker.data.contexts import contains_title, context_names, drop_targets
from reranker.errors import DataError

BOOKS = pd.DataFrame(
    {
        "title": ["Dune (Dune, #1)", "Emma", "It", "Ulysses"],
        "authors": ["Frank Herbert, Other", "Jane Austen", "Stephen King", ""],
        "genres": ["science fiction, classics", "romance, classics", "horror", ""],
    }
)


def render(
    book: list[int], rating: list[float], timestamp: list[int] | None = None, *, n_titles: int = 9
) -> str:
    builder = ContextBuilder(BOOKS, n_titles=n_titles, n_genres=2, positive_rating=4)
    time = np.array(timestamp or [0] * len(book))
    return builder.render(np.zeros(len(book), int), np.array(book), np.array(rating), time)[0]


def test_titles_come_best_rated_then_latest_first() -> None:
    assert render([0, 1, 2], [4, 5, 4], [1, 1, 9]) == (
        "Likes: Emma by Jane Austen; It by Stephen King; Dune by Frank Herbert. "
        "Genres: classics, romance"
    )


def test_genres_count_over_all_liked_books_not_only_the_titles_shown() -> None:
    text = render([2, 0, 1], [5, 4, 4], n_titles=1)
    assert text == "Likes: It by Stephen King. Genres: classics, horror"


def test_disliked_books_are_left_out_unless_nothing_was_liked() -> None:
    assert "Emma" not in render([0, 1], [5, 1])
    text = render([1, 3], [2, 1])
    assert text == "Likes: Emma by Jane Austen; Ulysses. Genres: romance, classics"


def test_the_order_of_rows_does_not_matter() -> None:
    builder = ContextBuilder(BOOKS, n_titles=9, n_genres=2, positive_rating=4)
    rng = np.random.default_rng(0)
    user, book = np.array([7, 7, 7, 2, 2]), np.array([0, 1, 2, 3, 0])
    rating = np.array([4.0, 4, 5, 4, 3])
    expected = builder.render(user, book, rating, np.zeros(5))
    assert list(expected) == [2, 7]
    for _ in range(5):
        p = rng.permutation(5)
        assert builder.render(user[p], book[p], rating[p], np.zeros(5)) == expected


@dataclass(frozen=True)
class Rows:
    """Ratings in any order; every (user, book) occurs once."""

    user: np.ndarray
    book: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray

    def columns(self) -> tuple[np.ndarray, ...]:
        return self.user, self.book, self.rating, self.timestamp


N_BOOKS = 12
MANY = pd.DataFrame(
    {
        "title": [f"Title {i} (Series, #{i})" if i % 3 else f"Title {i}" for i in range(N_BOOKS)],
        "authors": ["" if i % 4 == 0 else f"Author {i}, Other" for i in range(N_BOOKS)],
        "genres": [
            ", ".join(["a", "b", "c", "d", "e"][i % 5 : i % 5 + i % 4]) for i in range(N_BOOKS)
        ],
    }
)


@st.composite
def rows(draw: st.DrawFn) -> Rows:
    pairs = draw(
        st.lists(
            st.tuples(st.integers(0, 5), st.integers(0, N_BOOKS - 1)),
            min_size=1,
            max_size=40,
            unique=True,
        )
    )
    n = len(pairs)
    rating = draw(st.lists(st.integers(1, 5), min_size=n, max_size=n))
    time = draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    order = sorted(range(n), key=pairs.__getitem__) if draw(st.booleans()) else range(n)
    columns = (
        [values[i] for i in order]
        for values in ([p[0] for p in pairs], [p[1] for p in pairs], rating, time)
    )
    user, book, rating, time = (np.array(column) for column in columns)
    return Rows(user.astype(np.int32), book.astype(np.int32), rating.astype(np.float32), time)


def one_by_one(r: Rows, n_titles: int, n_genres: int) -> dict[int, str]:
    """Return the expected contexts, computed for one user at a time."""
    names = context_names(MANY)
    out = {}
    for u in sorted(set(r.user.tolist())):
        rated = [tuple(c[i] for c in r.columns()[1:]) for i in np.flatnonzero(r.user == u)]
        rated = [row for row in rated if row[1] >= 4] or rated
        books = [row[0] for row in sorted(rated, key=lambda row: (-row[1], -row[2], row[0]))]
        counts: dict[str, int] = {}
        for b in books:
            for genre in filter(None, MANY["genres"][b].split(", ")):
                counts[genre] = counts.get(genre, 0) + 1
        top = sorted(counts, key=lambda g: -counts[g])[:n_genres]
        text = f"Likes: {'; '.join(names[b] for b in books[:n_titles])}."
        out[u] = text + (f" Genres: {', '.join(top)}" if top else "")
    return out


SIZES = [(2, 2, 2**17), (1, 0, 3), (6, 9, 1)]  # n_titles, n_genres, rows of a block


@settings(max_examples=60, deadline=None)
@given(r=rows(), size=st.sampled_from(SIZES))
def test_contexts_of_all_users_equal_those_of_single_users(
    r: Rows, size: tuple[int, int, int]
) -> None:
    n_titles, n_genres, block = size
    builder = ContextBuilder(MANY, n_titles=n_titles, n_genres=n_genres, positive_rating=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contexts, "BLOCK_ROWS", block)
        rendered = builder.render(*r.columns())
    expected = one_by_one(r, n_titles, n_genres)
    assert rendered == expected
    assert list(rendered) == list(expected)


@settings(max_examples=60, deadline=None)
@given(r=rows(), size=st.sampled_from(SIZES), data=st.data())
def test_a_leave_one_out_context_is_the_context_of_the_other_books(
    r: Rows, size: tuple[int, int, int], data: st.DataObject
) -> None:
    n_titles, n_genres, block = size
    several = np.flatnonzero(np.bincount(r.user)[r.user] > 1).tolist()
    drawn = data.draw(st.lists(st.sampled_from(several), max_size=9)) if several else []
    left = np.array(drawn, dtype=int)
    builder = ContextBuilder(MANY, n_titles=n_titles, n_genres=n_genres, positive_rating=4)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(contexts, "BLOCK_ROWS", block)
        out = builder.render_without(
            *r.columns(), left_user=r.user[left], left_book=r.book[left].astype(np.int64)
        )
    expected = []
    for u, b in zip(r.user[left], r.book[left], strict=True):
        others = (r.user == u) & (r.book != b)
        expected += builder.render(*(c[others] for c in r.columns())).values()
    assert out == expected


def test_a_user_without_another_book_is_an_error() -> None:
    builder = ContextBuilder(BOOKS, n_titles=2, n_genres=2, positive_rating=4)
    user, book, rating = np.array([3, 3, 5]), np.array([0, 1, 2]), np.array([5.0, 5, 5])
    with pytest.raises(DataError, match=r"1 left-out books .* \(first: user code 5, book code 2\)"):
        builder.render_without(
            user, book, rating, np.zeros(3), left_user=np.array([3, 5]), left_book=np.array([1, 2])
        )


def test_another_template_is_filled_and_an_empty_field_leaves_no_label() -> None:
    builder = ContextBuilder(
        BOOKS, n_titles=2, n_genres=2, positive_rating=4, template="Read {titles} | Of {genres}!"
    )
    texts = builder.render(np.array([0, 1]), np.array([1, 3]), np.array([5.0, 5]), np.zeros(2))
    assert texts == {0: "Read Emma by Jane Austen | Of romance, classics!", 1: "Read Ulysses"}


def test_authors_count_over_all_liked_books_and_ties_go_to_the_better_rated() -> None:
    books = pd.DataFrame(
        {"title": list("abcde"), "authors": ["X, Q", "Y", "Y", "", "Z"], "genres": [""] * 5}
    )
    template = "{titles} | By {authors}"
    builder = ContextBuilder(
        books, n_titles=1, n_genres=0, n_authors=2, positive_rating=4, template=template
    )
    user, book = np.array([0, 0, 0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 3, 4, 0, 4, 3])
    texts = builder.render(user, book, np.array([4.0, 4, 4, 5, 5, 4, 5, 5]), np.zeros(8))
    assert texts == {0: "d | By Y, Z", 1: "e by Z | By Z, X", 2: "d"}


TEMPLATES = [
    DataConfig.context_template,
    "{titles}",
    "{titles} | {genres}",
    "A reader. Likes: {titles}! | Often\n<{genres}> | the end",
    "Likes: {titles}. Genres: {genres}. The end.",
    "Likes: {titles} | Authors: {authors} | Genres: {genres}",
    "Likes: {titles}. Genres: {genres}. Authors: {authors}",
]


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_context_contains_the_titles_it_lists_and_no_others(template: str) -> None:
    builder = ContextBuilder(
        MANY, n_titles=3, n_genres=2, n_authors=2, positive_rating=4, template=template
    )
    names = context_names(MANY)
    for books in ([0], [1, 2], [4, 7, 8, 11], [3, 8], [8]):  # 0, 4 and 8 have no genre
        n = np.zeros(len(books))
        text = builder.render(n.astype(int), np.array(books), n + 5, n)[0]
        assert [b for b in range(N_BOOKS) if contains_title(text, names[b], template)] == books[:3]


def test_a_name_inside_another_name_or_among_the_genres_is_not_a_title() -> None:
    text = "Likes: Not Emma by Jane Austen; It. Genres: horror, Emma"
    shown = [
        contains_title(text, n, DataConfig.context_template)
        for n in ("Emma by Jane Austen", "Emma", "It", "horror")
    ]
    assert shown == [False, False, True, False]


def test_contexts_are_built_with_the_settings_of_the_config(tables: Tables) -> None:
    cfg = DataConfig(context_titles=1, context_genres=1, context_template="Read {titles}")
    built = build_contexts(tables, cfg)
    assert built.builder.template == "Read {titles}"
    assert all(text.startswith("Read Book ") and ";" not in text for text in built.text)


def test_every_user_has_a_context_of_context_books_only(
    tables: Tables, contexts: Contexts, data_cfg: DataConfig
) -> None:
    assert len(contexts.text) == len(tables.users)
    assert all(text.startswith("Likes: ") for text in contexts.text)
    assert not contexts.rows["is_target"].any()
    assert len(contexts.rows) == (~tables.histories["is_target"]).sum()


def test_drop_targets_is_the_set_difference(tables: Tables) -> None:
    h = tables.histories
    # The integer type differs from that of the histories.
    targets = h.iloc[::3][["user", "book"]].astype(np.int64)
    left = drop_targets(h, targets, len(tables.books))
    pairs = set(zip(targets["user"], targets["book"], strict=True))
    expected = [i for i, p in enumerate(zip(h["user"], h["book"], strict=True)) if p not in pairs]
    assert left.index.tolist() == expected


def test_leave_one_out_contexts_use_drop_targets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Tests that plant a leak replace this function, so it has to be the only one."""
    builder = ContextBuilder(BOOKS, n_titles=2, n_genres=0, positive_rating=4)
    rows = np.array([0, 0]), np.array([0, 1]), np.array([5.0, 5]), np.zeros(2)
    left = {"left_user": np.array([0]), "left_book": np.array([0])}
    assert builder.render_without(*rows, **left) == ["Likes: Emma by Jane Austen."]
    monkeypatch.setattr(contexts, "drop_targets", lambda histories, targets, n_books: histories)
    assert builder.render_without(*rows, **left) == [
        "Likes: Dune by Frank Herbert; Emma by Jane Austen."
    ]
