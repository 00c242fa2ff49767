"""Books and histories: genres without habits, authors by name, editions as one work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reranker.config import DataConfig
from reranker.data import bookdb, features

from .conftest import GENRES

Raw = Callable[..., Path]


def built(root: Path, **settings: Any) -> pd.DataFrame:
    cfg = DataConfig(**{"genres": GENRES, **settings})
    return features.build_books(bookdb.read(root), cfg).set_index("book_id")


@pytest.mark.parametrize(
    ("title", "short", "series"),
    [
        ("Dune (Dune Chronicles, #1)", "Dune", "Dune Chronicles #1"),
        ("Dune", "Dune", ""),
        ("1984 (Penguin Classics)", "1984", ""),
        ("Half (A, #0.5)", "Half", "A #0.5"),
        ("All of A (A, #1-3)", "All of A", "A #1-3"),
        ("One (A, #1; B, #7)", "One", "A #1"),
        ("(500) Days", "(500) Days", ""),
        ("(What)", "(What)", ""),
    ],
)
def test_title_and_series(title: str, short: str, series: str) -> None:
    assert (features.short_title(title), features.series(title)) == (short, series)


def test_reader_habits_are_no_genres_and_synonyms_are_one(raw: Raw) -> None:
    books = built(raw(shelves={1: ["to-read", "sci-fi", "scifi", "owned", "favorites"], 2: ["to-read"]}))
    assert books.loc[1, "genres"] == "science fiction"
    assert books.loc[2, "genres"] == ""


def test_the_rarest_genres_come_first_whatever_the_shelf_order(raw: Raw) -> None:
    # Of 40 books, all but two are on one of four genre shelves; `art` is on one book, `war` on two.
    books = built(raw(shelves={1: ["fantasy", "war", "art"], 2: ["war", "fantasy"]}), max_genres=2)
    assert books.loc[1, "genres"] == "art, war"
    assert books.loc[2, "genres"] == "war, fantasy"


def test_authors_are_names_in_order_and_unknown_ids_are_left_out(raw: Raw) -> None:
    books = built(raw(authors={1: ["3", "99", "1"], 2: []}))
    assert books.loc[1, "authors"] == "Author 3, Author 1"
    assert books.loc[2, "authors"] == ""


def test_a_given_text_stands_and_a_missing_one_is_rendered_description_last(raw: Raw) -> None:
    books = built(raw(texts={1: "as given"}, titles={3: "Dune (Dune, #1)"}))
    assert books.loc[1, "book_text"] == "as given"
    assert books.loc[3, "book_text"] == (
        "Title: Dune (Dune, #1) | Authors: Author 3 | Series: Dune #1 | Genres: travel | Description: About book 3."
    )


def test_no_text_is_ever_nan_or_none(raw: Raw) -> None:
    books = built(raw(authors={1: []}, shelves={1: []}))
    assert books.loc[1, "book_text"] == "Title: Book 1"
    text = books.drop(columns=["book_text"]).stack().astype(str)
    assert not text.str.contains(r"\b(?:nan|None)\b").any()


def test_editions_of_a_work_become_the_one_rated_most(raw: Raw) -> None:
    titles = {1: "Dune", 2: "Dune (Dune Chronicles, #1)", 3: "DUNE! (Paperback)", 4: "Dune"}
    authors = {1: ["1"], 2: ["1", "2"], 3: ["1"], 4: ["2"]}
    root = raw([("a", 2, 5), ("b", 2, 5), ("a", 3, 4)], n_books=4, titles=titles, authors=authors)
    tables = bookdb.read(root)
    books, editions = features.merge_editions(features.build_books(tables, DataConfig()), tables.ratings.to_pandas())
    assert books["book_id"].tolist() == [2, 4]  # 4 has another author
    assert editions.set_index("book_id")["book"].to_dict() == {1: 0, 2: 0, 3: 0, 4: 1}


def test_volumes_of_a_series_stay_apart(raw: Raw) -> None:
    titles = {1: "Naruto (Naruto, #1)", 2: "Naruto (Naruto, #2)", 3: "Naruto"}
    root = raw([("a", 2, 5)], n_books=3, titles=titles, authors={i: ["1"] for i in (1, 2, 3)})
    keys = features.work_keys(features.build_books(bookdb.read(root), DataConfig()))
    assert keys.nunique() == 3


def test_books_without_author_are_works_of_their_own(raw: Raw) -> None:
    root = raw([("a", 2, 5)], n_books=2, titles={1: "Poems", 2: "Poems"}, authors={1: [], 2: []})
    assert features.work_keys(features.build_books(bookdb.read(root), DataConfig())).nunique() == 2
