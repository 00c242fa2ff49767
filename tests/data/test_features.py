"""Books and histories: genres without habits, authors by name, editions as one work."""

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


def test_reader_habits_are_no_genres_and_synonyms_are_one(raw: Raw) -> None:
    books = built(
        raw(shelves={1: ["to-read", "sci-fi", "scifi", "owned", "favorites"], 2: ["to-read"]})
    )
    assert books.loc[1, "genres"] == "science fiction"
    assert books.loc[2, "genres"] == ""


def test_the_rarest_genres_come_first_whatever_the_shelf_order(raw: Raw) -> None:
    # Of 40 books, all but two are on one of four genre shelves; `art` is on one book, `war` on two.
    books = built(raw(shelves={1: ["fantasy", "war", "art"], 2: ["war", "fantasy"]}), max_genres=2)
    assert books.loc[1, "genres"] == "art, war"
    assert books.loc[2, "genres"] == "war, fantasy"


def test_equally_rare_genres_stand_in_the_order_of_the_shelves_not_of_the_alphabet_or_the_vocabulary(
    raw: Raw,
) -> None:
    shelves = {1: ["war", "to-read", "art", "military"], 2: ["westerns", "art", "war"]}
    for genres in (GENRES, dict(reversed(GENRES.items()))):
        books = built(raw(shelves=shelves), genres=genres)
        assert books.loc[1, "genres"] == "war, art"
        assert books.loc[2, "genres"] == "westerns, art, war"


def test_the_vocabulary_decides_what_is_a_genre(raw: Raw) -> None:
    root = raw(shelves={1: ["to-read", "space-opera"]})
    assert built(root).loc[1, "genres"] == ""
    assert built(root, genres={"unread": ["to-read"], "space opera": ["space-opera"]}).loc[
        1, "genres"
    ] == ("space opera, unread")
    assert (built(root, genres={})["genres"] == "").all()


def test_authors_are_names_in_order_and_unknown_ids_are_left_out(raw: Raw) -> None:
    books = built(raw(authors={1: ["3", "99", "1"], 2: []}))
    assert books.loc[1, "authors"] == "Author 3, Author 1"
    assert books.loc[2, "authors"] == ""


def test_an_author_who_stands_twice_counts_once_and_a_comma_in_a_name_separates_nobody(
    raw: Raw,
) -> None:
    root = raw(authors={1: ["3", "1", "3"], 2: ["0", "2"], 3: ["4"]})
    names = ["King, Jr.", "Author 1", "Author 2", "Author 3", " , "]
    pq.write_table(
        pa.table({"author_id": list("01234"), "name": names}), root / "new_authors.parquet"
    )
    books = built(root)
    assert books["authors"].head(3).tolist() == ["Author 3, Author 1", "King Jr., Author 2", ""]


def test_a_given_text_stands_and_a_missing_one_is_rendered_description_last(raw: Raw) -> None:
    books = built(raw(texts={1: "as given", 3: "nan"}, titles={3: "Dune (Dune, #1)"}))
    assert books.loc[1, "book_text"] == "as given"
    assert books.loc[3, "book_text"] == (
        "Title: Dune (Dune, #1) | Authors: Author 3 | Series: Dune #1 | Genres: travel | Description: About book 3."
    )


def test_the_template_renders_what_has_no_text(raw: Raw) -> None:
    books = built(
        raw(texts={1: "as given"}),
        book_template="{title} | by {authors}. Of {series}.\n{description}",
    )
    assert books.loc[1, "book_text"] == "as given"
    assert books.loc[2, "book_text"] == "Book 2 | by Author 2."
    assert books.loc[3, "book_text"] == "Book 3 | by Author 3.\nAbout book 3."


def test_with_text_template_a_given_text_is_not_looked_at(raw: Raw) -> None:
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
def test_descriptions_lose_their_html_and_what_stood_for_nothing(
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


def test_books_in_any_order_and_in_batches_of_any_size_are_the_same(
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


def test_null_lists_are_books_without_genre_and_author(raw: Raw) -> None:
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


def test_editions_of_a_work_become_the_one_rated_most(raw: Raw) -> None:
    titles = {1: "Dune", 2: "Dune (Dune Chronicles, #1)", 3: "DUNE! (Paperback)", 4: "Dune"}
    authors = {1: ["1"], 2: ["1", "2"], 3: ["1"], 4: ["2"]}
    root = raw([("a", 2, 5), ("b", 2, 5), ("a", 3, 4)], n_books=4, titles=titles, authors=authors)
    all_books = features.build_books(bookdb.read(root), DataConfig())
    books, editions = features.merge_editions(all_books, np.array([0, 2, 1, 0]))
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
