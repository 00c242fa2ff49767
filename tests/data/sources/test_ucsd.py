"""The UCSD Book Graph, as published and messy, ends in sound raw tables; every dropped row is counted."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import load_tables
from reranker.data.sources import bookdb, raw_tables, ucsd
from reranker.data.sources.fetch import fetch
from reranker.data.sources.ucsd.ratings import write_json
from reranker.errors import DataError
from tests.conftest import GENRES
from tests.helpers.published import (
    DATES,
    USABLE,
    json_lines,
    ratings,
    ucsd_book,
    ucsd_user,
    write,
    write_ucsd,
)

SHELVES = {shelf for shelves in GENRES.values() for shelf in shelves}
BOOK_COUNTS = {
    "books_in": 65,
    "books": 60,
    "books_dropped_duplicate_id": 1,
    "books_dropped_no_id": 4,
    "books_dropped_malformed_line": 0,
    "books_without_title": 1,
    "books_given_genres": 2,
    "authors_in": 10,
    "authors": 7,
    "authors_dropped_duplicate_id": 1,
    "authors_dropped_no_id": 1,
    "authors_dropped_no_name": 1,
    "authors_dropped_malformed_line": 0,
    "genres_dropped_malformed_line": 0,
}
JSON_COUNTS = BOOK_COUNTS | {
    "ratings_in": 600 + 21,
    "ratings": 600,
    "ratings_dropped_no_rating": 5,
    "ratings_dropped_wrong_rating": 6,
    "ratings_dropped_no_user_id": 3,
    "ratings_dropped_no_book_id": 4,
    "ratings_dropped_unknown_book": 1,
    "ratings_dropped_malformed_line": 2,
    "ratings_without_date": 120,
    "dates_dropped_unreadable": 240,  # of the third of DATES both read_at and date_updated
    "dates_dropped_after_update": 120,
}
CSV_COUNTS = BOOK_COUNTS | {
    "ratings_in": 600 + 19,
    "ratings": 600,
    "ratings_dropped_no_rating": 5,
    "ratings_dropped_wrong_rating": 4,
    "ratings_dropped_no_user_id": 2,
    "ratings_dropped_no_book_id": 3,
    "ratings_dropped_unknown_book": 2,
    "ratings_dropped_unknown_user": 1,
    "ratings_dropped_malformed_line": 2,
}


def converted(
    tmp_path: Path, root: Path, *, batch_rows: int = 1000, name: str = "out"
) -> tuple[Path, dict[str, int]]:
    folder = tmp_path / name
    folder.mkdir()
    return folder, ucsd.convert(root, folder, batch_rows=batch_rows, shelves=SHELVES)


def fails(tmp_path: Path, root: Path, *named: str) -> None:
    with pytest.raises(DataError) as error:
        converted(tmp_path, root)
    assert all(name in str(error.value) for name in named), str(error.value)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[dict[str, tuple[Path, dict[str, int]]]]:
    tmp_path = tmp_path_factory.mktemp("ucsd")
    yield {
        kind: converted(
            tmp_path, write_ucsd(tmp_path / f"root-{kind}", interactions=kind), name=kind
        )
        for kind in ("json", "csv")
    }


Made = dict[str, tuple[Path, dict[str, int]]]


def books_of(made: Made) -> dict[int, dict[str, Any]]:
    return {row["book_id"] - 57_000: row for row in bookdb.read(made["json"][0]).books.to_pylist()}


def test_every_row_in_is_a_row_out_or_counted_by_its_reason(made: Made) -> None:
    assert made["json"][1] == JSON_COUNTS
    assert made["csv"][1] == CSV_COUNTS
    for counts in (JSON_COUNTS, CSV_COUNTS):
        for table in ("books", "authors", "ratings"):
            dropped = sum(
                n for reason, n in counts.items() if reason.startswith(f"{table}_dropped")
            )
            assert counts[f"{table}_in"] == counts[table] + dropped


def test_csv_and_json_give_the_same_ratings_and_the_ones_that_were_written(made: Made) -> None:
    expected = [(ucsd_user(u), ucsd_book(b), r) for u, b, r in ratings()]
    for kind in ("json", "csv"):
        table = pa.concat_tables(bookdb.ratings(made[kind][0], 1000)).to_pydict()
        assert (
            list(zip(table["user_id"], table["book_id"], table["rating"], strict=True)) == expected
        )


def test_times_are_the_first_date_that_can_be_true(made: Made) -> None:
    expected: list[int] = []
    for i in range(600):
        which = USABLE[i % 5]
        text = None if which is None else str(DATES[i % 5][which])
        expected.append(
            0
            if text is None
            else int(datetime.strptime(text, "%a %b %d %H:%M:%S %z %Y").timestamp())
        )
    assert (
        pa.concat_tables(bookdb.ratings(made["json"][0], 1000))["timestamp"].to_pylist() == expected
    )
    assert (
        not pa.concat_tables(bookdb.ratings(made["csv"][0], 1000))["timestamp"].to_numpy().any()
    )  # unknown


def test_titles_and_descriptions_are_plain_text(made: Made) -> None:
    books = books_of(made)
    assert books[1]["title"] == "Dune & Sons (Dune, #1)"
    assert books[1]["description"] == "Spice must flow. Café 1 < 2 <3"
    assert books[2]["title"] == "كتاب 📚 \ufffd"
    assert books[2]["description"] == "a b \ufffd end"
    assert books[3]["title"] == "Without its series"
    assert (books[4]["title"], books[4]["description"]) == (None, None)
    assert books[60]["description"] == "About book 60."


def test_authors_without_a_role_come_first_and_once(made: Made) -> None:
    books = books_of(made)
    assert books[6]["authors"] == ["2", "1", "3"]
    assert books[7]["authors"] == []
    names = bookdb.read(made["json"][0]).authors.to_pydict()
    assert dict(zip(names["author_id"], names["name"], strict=True)) == {
        str(i): f"Author {i}" for i in range(7)
    }


def test_published_genres_follow_the_shelves_of_a_book_that_no_shelf_gives_a_genre(
    made: Made,
) -> None:
    books = books_of(made)
    given = [
        ("40", "history"),
        ("40", "historical-fiction"),
        ("40", "biography"),
        ("31", "fantasy"),
        ("31", "paranormal"),
    ]
    assert [(s["count"], s["name"]) for s in books[5]["popular_shelves"]] == given
    assert [(s["count"], s["name"]) for s in books[8]["popular_shelves"]] == [
        ("9", "to-read"),
        *given,
    ]
    assert books[7]["popular_shelves"] == []
    assert [s["name"] for s in books[9]["popular_shelves"]] == ["to-read", "horror"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_batch_rows_and_gzip_change_no_byte(tmp_path: Path, made: Made, kind: str) -> None:
    plain = write_ucsd(tmp_path / "plain", interactions=kind, gz=False)
    folder, counts = converted(tmp_path, plain, batch_rows=10**6)
    assert counts == made[kind][1]
    for name in bookdb.SCHEMA:
        assert (folder / name).read_bytes() == (made[kind][0] / name).read_bytes()


def test_json_memory_follows_batch_rows_and_not_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_tables.RowGroups.__init__, "__kwdefaults__", {"rows": 250})
    row = {"book_id": str(ucsd_book(1)), "rating": 5, "date_added": DATES[0][2]}
    peaks = []
    for n in (1_000, 4_000):
        text = json_lines(row | {"user_id": f"{i:032x}"} for i in range(n))
        path = write(tmp_path / f"goodreads_interactions_{n}.json", text, gz=False)
        tracemalloc.start()
        write_json([path], tmp_path, books={ucsd_book(1)}, counts=Counter(), batch_rows=250)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # of four times the rows
    assert peaks[1] < 4_000 * 81  # the user ids alone, were they kept


def test_the_source_ends_in_tables_and_batch_rows_builds_nothing_anew(
    tmp_path: Path, cache: Cache
) -> None:
    root = write_ucsd(tmp_path / "root")
    first = fetch(DataConfig(name="ucsd", root=str(root), genres=GENRES), cache)
    assert first.counts == JSON_COUNTS
    assert (
        fetch(DataConfig(name="ucsd", root=str(root), genres=GENRES, batch_rows=1000), cache)
        == first
    )
    tables = load_tables(DataConfig(name="bookdb", root=str(first.folder), genres=GENRES), cache)
    assert (len(tables.users), len(tables.books), len(tables.histories)) == (60, 60, 600)
    assert tables.books["authors"][5] == "Author 2, Author 1, Author 3"

    write(
        root / "goodreads_book_authors.json",
        json_lines([{"author_id": "2", "name": "Other"}]),
        gz=True,
    )
    other = fetch(DataConfig(name="ucsd", root=str(root), genres=GENRES), cache)
    assert other.folder != first.folder
    assert pd.read_parquet(other.folder / "new_authors.parquet")["name"].tolist() == ["Other"]


def test_missing_files_are_named_with_what_was_found(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root", interactions="csv", gz=True)
    (root / "user_id_map.csv.gz").unlink()
    (root / "goodreads_books.json.gz").unlink()
    with pytest.raises(
        DataError,
        match=r"missing goodreads_books.json, user_id_map.csv \(or .gz\).*found book_id_map",
    ):
        ucsd.files(root)
    with pytest.raises(DataError, match="nowhere' is not a folder"):
        ucsd.files(tmp_path / "nowhere")


def test_files_are_those_of_one_form(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root")
    assert [p.name for p in ucsd.files(root)] == [
        "goodreads_books.json.gz",
        "goodreads_book_authors.json.gz",
        "goodreads_book_genres_initial.json.gz",
        "goodreads_interactions_dedup.json.gz",
    ]
    (root / "goodreads_interactions_dedup.json.gz").rename(
        root / "goodreads_interactions_poetry.json.gz"
    )
    (root / "goodreads_books.json.gz").rename(root / "goodreads_books_poetry.json.gz")
    (root / "goodreads_book_genres_initial.json.gz").unlink()
    assert [p.name for p in ucsd.files(root)] == [
        "goodreads_books_poetry.json.gz",
        "goodreads_book_authors.json.gz",
        "goodreads_interactions_poetry.json.gz",
    ]
    write_ucsd(root, interactions="csv")
    with pytest.raises(
        DataError, match=r"books.json.gz and goodreads_books_poetry.json.gz hold the same"
    ):
        ucsd.files(root)
    (root / "goodreads_books_poetry.json.gz").unlink()
    with pytest.raises(DataError, match="keep one of them"):
        ucsd.files(root)
    (root / "goodreads_interactions_poetry.json.gz").unlink()
    write_ucsd(root, interactions="csv", gz=False)
    with pytest.raises(DataError, match="both there; keep one"):
        ucsd.files(root)


@pytest.mark.parametrize(
    "name",
    [
        "goodreads_books.json.gz",
        "goodreads_interactions.csv.gz",
        "user_id_map.csv.gz",
        "goodreads_book_authors.json.gz",
    ],
)
@pytest.mark.parametrize("damage", ["truncated", "flipped", "not gzip"])
def test_a_damaged_gzip_names_the_file_and_what_to_do(
    tmp_path: Path, name: str, damage: str
) -> None:
    root = write_ucsd(tmp_path / "root", interactions="csv")
    data = bytearray((root / name).read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    whole = {
        "truncated": data[: len(data) * 2 // 3],
        "flipped": data,
        "not gzip": b"<html>404</html>",
    }[damage]
    (root / name).write_bytes(whole)
    fails(tmp_path, root, name, "ends too early or is damaged", "Fetch it again")


@pytest.mark.parametrize("line", ['{"user_id": "a", "rating"', "nonsense", "3", "[" * 100_000])
def test_more_than_one_bad_line_in_a_hundred_is_an_error_that_names_the_first(
    tmp_path: Path, line: str
) -> None:
    root = write_ucsd(tmp_path / "root")
    file = root / "goodreads_interactions_dedup.json.gz"
    rows = gzip.decompress(file.read_bytes()).decode().splitlines()
    write(root / "goodreads_interactions_dedup.json", json_lines([line] * 5 + rows), gz=True)
    fails(
        tmp_path,
        root,
        "goodreads_interactions_dedup.json.gz",
        "7 of 626 lines are malformed",
        "line 1: ",
    )


def test_a_csv_of_another_kind_is_refused(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root", interactions="csv", gz=False)
    write(root / "goodreads_interactions.csv", "user,book\n1,2\n", gz=False)
    fails(
        tmp_path,
        root,
        "goodreads_interactions.csv",
        "missing column user_id, book_id, rating; found user, book",
    )


def test_ratings_of_another_catalogue_are_refused_with_the_reasons(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root")
    write(
        root / "goodreads_interactions_dedup.json",
        json_lines([{"user_id": "a", "book_id": "1", "rating": 5}]),
        gz=True,
    )
    fails(tmp_path, root, "none of 1 ratings can be used (ratings_dropped_unknown_book=1)")
