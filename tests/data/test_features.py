"""Books have genres, authors by name and rendered texts, and editions become one work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.config import DataConfig
from reranker.data import features
from reranker.data.sources import bookdb
from tests.conftest import GENRES

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


def test_reading_habits_are_not_genres_and_synonyms_are_one_genre(raw: Raw) -> None:
    books = built(
        raw(shelves={1: ["to-read", "sci-fi", "scifi", "owned", "favorites"], 2: ["to-read"]})
    )
    assert books.loc[1, "genres"] == "science fiction"
    assert books.loc[2, "genres"] == ""


def test_the_rarest_genres_come_first_for_any_order_of_shelves(raw: Raw) -> None:
    # 38 of 40 books have one of four other genres; `art` is on one book, `war` on two.
    books = built(raw(shelves={1: ["fantasy", "war", "art"], 2: ["war", "fantasy"]}), max_genres=2)
    assert books.loc[1, "genres"] == "art, war"
    assert books.loc[2, "genres"] == "war, fantasy"


def test_equally_rare_genres_keep_the_order_of_the_shelves(
    raw: Raw,
) -> None:
    shelves = {1: ["war", "to-read", "art", "military"], 2: ["westerns", "art", "war"]}
    for genres in (GENRES, dict(reversed(GENRES.items()))):
        books = built(raw(shelves=shelves), genres=genres)
        assert books.loc[1, "genres"] == "war, art"
        assert books.loc[2, "genres"] == "westerns, art, war"


def test_the_vocabulary_defines_the_genres(raw: Raw) -> None:
    root = raw(shelves={1: ["to-read", "space-opera"]})
    assert built(root).loc[1, "genres"] == ""
    genres = {"unread": ["to-read"], "space opera": ["space-opera"]}
    assert built(root, genres=genres).loc[1, "genres"] == "space opera, unread"
    assert (built(root, genres={})["genres"] == "").all()


def test_authors_are_names_in_order_and_unknown_ids_are_left_out(raw: Raw) -> None:
    books = built(raw(authors={1: ["3", "99", "1"], 2: []}))
    assert books.loc[1, "authors"] == "Author 3, Author 1"
    assert books.loc[2, "authors"] == ""


def test_a_repeated_author_counts_once_and_commas_in_names_are_removed(
    raw: Raw,
) -> None:
    root = raw(authors={1: ["3", "1", "3"], 2: ["0", "2"], 3: ["4"]})
    names = ["King, Jr.", "Author 1", "Author 2", "Author 3", " , "]
    authors = pa.table({"author_id": list("01234"), "name": names})
    pq.write_table(authors, root / "new_authors.parquet")
    books = built(root)
    assert books["authors"].head(3).tolist() == ["Author 3, Author 1", "King Jr., Author 2", ""]


def test_a_text_of_the_source_is_kept_and_a_missing_one_is_rendered(raw: Raw) -> None:
    books = built(raw(texts={1: "as given", 3: "nan"}, titles={3: "Dune (Dune, #1)"}))
    assert books.loc[1, "book_text"] == "as given"
    assert books.loc[3, "book_text"] == (
        "Title: Dune (Dune, #1) | Authors: Author 3 | Series: Dune #1 | Genres: travel | "
        "Description: About book 3."
    )


def test_the_template_renders_books_without_text(raw: Raw) -> None:
    books = built(
        raw(texts={1: "as given"}),
        book_template="{title} | by {authors}. Of {series}.\n{description}",
    )
    assert books.loc[1, "book_text"] == "as given"
    assert books.loc[2, "book_text"] == "Book 2 | by Author 2."
    assert books.loc[3, "book_text"] == "Book 3 | by Author 3.\nAbout book 3."


def test_with_text_template_texts_of_the_source_are_ignored(raw: Raw) -> None:
    books = built(
        raw(texts={1: "as given"}), text="template", book_template="{title} | by {authors}"
    )
    assert books.loc[1, "book_text"] == "Book 1 | by Author 1"


@pytest.mark.parametrize(
    ("raw_text", "text"),
    [
        ("<p>Now &amp;  <b>then</b></p><p>again</p>", "Now & then again"),
        ("\u00a0\n", ""),
        ("None", ""),
        ("<i>null</i>", ""),
    ],
)
def test_descriptions_are_stripped_of_html_and_of_words_for_null(
    raw: Raw, raw_text: str, text: str
) -> None:
    root = raw(authors={1: []}, shelves={1: []})
    books = pq.read_table(root / "reduced_books.parquet")
    at = books.schema.get_field_index("description")
    pq.write_table(
        books.set_column(at, "description", pa.array([raw_text] * 40)),
        root / "reduced_books.parquet",
    )
    book = built(root).loc[1]
    assert book["description"] == text
    assert book["book_text"] == "Title: Book 1" + (f" | Description: {text}" if text else "")


def test_the_order_and_the_batch_size_do_not_change_the_books(
    raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = raw(texts={9: "as given"})
    expected = built(root)
    books = pq.read_table(root / "reduced_books.parquet")
    pq.write_table(
        books.take([*range(20, 40), *range(20)]), root / "reduced_books.parquet", row_group_size=7
    )
    monkeypatch.setattr(features, "BATCH_ROWS", 3)
    pd.testing.assert_frame_equal(built(root), expected)


def test_no_text_is_ever_nan_or_none(raw: Raw) -> None:
    books = built(raw(authors={1: []}, shelves={1: []}))
    assert books.loc[1, "book_text"] == "Title: Book 1"
    text = books.drop(columns=["book_text"]).stack().astype(str)
    assert not text.str.contains(r"\b(?:nan|None)\b").any()


def test_null_lists_are_empty_lists(raw: Raw) -> None:
    root = raw()
    books = pq.read_table(root / "reduced_books.parquet")
    for column in ("popular_shelves", "authors"):
        empty = pa.array([None, *books[column].to_pylist()[1:]], books.schema.field(column).type)
        books = books.set_column(books.schema.get_field_index(column), column, empty)
    pq.write_table(books, root / "reduced_books.parquet")
    assert built(root).loc[[1, 2], ["authors", "genres"]].to_numpy().tolist() == [
        ["", ""],
        ["Author 2", "poetry"],
    ]


def test_author_ids_may_be_integers(raw: Raw) -> None:
    root = raw(authors={1: ["3", "99"]})
    books = pq.read_table(root / "reduced_books.parquet")
    ids = books["authors"].cast(pa.large_list(pa.int64()))
    pq.write_table(
        books.set_column(books.schema.get_field_index("authors"), "authors", ids),
        root / "reduced_books.parquet",
    )
    assert built(root).loc[1, "authors"] == "Author 3"


def test_the_most_rated_edition_of_a_work_is_kept(raw: Raw) -> None:
    titles = {1: "Dune", 2: "Dune (Dune Chronicles, #1)", 3: "DUNE! (Paperback)", 4: "Dune"}
    authors = {1: ["1"], 2: ["1", "2"], 3: ["1"], 4: ["2"]}
    root = raw([("a", 2, 5), ("b", 2, 5), ("a", 3, 4)], n_books=4, titles=titles, authors=authors)
    all_books = features.build_books(bookdb.read(root), DataConfig())
    books, editions = features.merge_editions(all_books, np.array([0, 2, 1, 0]))
    assert books["book_id"].tolist() == [2, 4]  # 4 has another author
    assert editions.set_index("book_id")["book"].to_dict() == {1: 0, 2: 0, 3: 0, 4: 1}


def test_volumes_of_a_series_are_different_works(raw: Raw) -> None:
    titles = {1: "Naruto (Naruto, #1)", 2: "Naruto (Naruto, #2)", 3: "Naruto"}
    root = raw([("a", 2, 5)], n_books=3, titles=titles, authors={i: ["1"] for i in (1, 2, 3)})
    keys = features.work_keys(features.build_books(bookdb.read(root), DataConfig()))
    assert keys.nunique() == 3


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("\u0915\u093f", "\u0915\u0940"),  # Devanagari: the vowel signs i and ii
        ("\u0b95\u0bbf", "\u0b95\u0bc0"),  # Tamil
        ("\u0e01\u0e34\u0e19", "\u0e01\u0e31\u0e19"),  # Thai
        ("C", "C++"),
        ("C#", "C++"),
        ("C#", "C"),
        ("Programming in C++", "Programming in C"),
        ("Poems (1965)", "Poems (1984)"),
        ("Henry IV (Part 1)", "Henry IV (Part 2)"),
        ("Henry IV (Part I)", "Henry IV (Part II)"),
        ("Letters (Vol. 3)", "Letters (volume 4)"),
        ("Naruto (Naruto, #1)", "Naruto (Naruto, #2)"),
    ],
)
def test_titles_of_different_works(one: str, other: str, raw: Raw) -> None:
    assert n_works(raw, one, other) == 2


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Caf\u00e9 Society", "Cafe\u0301 Society"),  # composed and decomposed
        ("Emma", "EMMA!"),
        ("Dune", "Dune (1965)"),
        ("Dune (Dune Chronicles, #1)", "Dune (1965)"),
        ("Dune (Paperback)", "Dune (Part 1)"),
        ("#Girlboss", "Girlboss"),
        ("Love + Hate", "Love Hate"),
        ("Naruto #1", "Naruto 1"),
    ],
)
def test_titles_of_one_work(one: str, other: str, raw: Raw) -> None:
    assert n_works(raw, one, other) == 1


def n_works(raw: Raw, *titles: str) -> int:
    """The number of works that the titles of one author are."""
    named = dict(enumerate(titles, start=1))
    root = raw([("a", 2, 5)], n_books=len(named), titles=named, authors={i: ["1"] for i in named})
    return int(features.work_keys(features.build_books(bookdb.read(root), DataConfig())).nunique())


def test_books_without_author_are_separate_works(raw: Raw) -> None:
    root = raw([("a", 2, 5)], n_books=2, titles={1: "Poems", 2: "Poems"}, authors={1: [], 2: []})
    assert features.work_keys(features.build_books(bookdb.read(root), DataConfig())).nunique() == 2
