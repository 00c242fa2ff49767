"""The UCSD Book Graph with invalid rows gives valid raw tables; dropped rows are counted."""

from __future__ import annotations

import gzip
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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

Converted = dict[str, tuple[Path, dict[str, int]]]
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
    "dates_dropped_unreadable": 240,  # read_at and date_updated of the third element of DATES
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


def convert(
    tmp_path: Path, root: Path, *, batch_rows: int = 1000, name: str = "out"
) -> tuple[Path, dict[str, int]]:
    folder = tmp_path / name
    folder.mkdir()
    return folder, ucsd.convert(root, folder, batch_rows=batch_rows, shelves=SHELVES)


def check_error(tmp_path: Path, root: Path, *texts: str) -> None:
    with pytest.raises(DataError) as error:
        convert(tmp_path, root)
    assert all(text in str(error.value) for text in texts), str(error.value)


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """Format -> the folder of converted tables and the counts."""
    tmp_path = tmp_path_factory.mktemp("ucsd")
    roots = {
        kind: write_ucsd(tmp_path / f"root-{kind}", interactions=kind) for kind in ("json", "csv")
    }
    return {kind: convert(tmp_path, root, name=kind) for kind, root in roots.items()}


def books_of(converted: Converted) -> dict[int, dict[str, Any]]:
    """Return book number -> row of the converted books."""
    rows = pq.read_table(converted["json"][0] / "reduced_books.parquet").to_pylist()
    return {row["book_id"] - 57_000: row for row in rows}


def test_every_row_is_written_or_counted_as_dropped(converted: Converted) -> None:
    assert converted["json"][1] == JSON_COUNTS
    assert converted["csv"][1] == CSV_COUNTS
    for counts in (JSON_COUNTS, CSV_COUNTS):
        for table in ("books", "authors", "ratings"):
            prefix = f"{table}_dropped"
            dropped = sum(n for reason, n in counts.items() if reason.startswith(prefix))
            assert counts[f"{table}_in"] == counts[table] + dropped


def test_valid_ratings_are_unchanged_in_csv_and_json(converted: Converted) -> None:
    expected = [(ucsd_user(u), ucsd_book(b), r) for u, b, r in ratings()]
    for kind in ("json", "csv"):
        table = pa.concat_tables(bookdb.ratings(converted[kind][0], 1000)).to_pydict()
        rows = zip(table["user_id"], table["book_id"], table["rating"], strict=True)
        assert list(rows) == expected


def test_the_time_of_a_rating_is_its_first_valid_date(converted: Converted) -> None:
    expected: list[int] = []
    for i in range(600):
        which = USABLE[i % 5]
        if which is None:
            expected.append(0)
        else:
            date = datetime.strptime(str(DATES[i % 5][which]), "%a %b %d %H:%M:%S %z %Y")
            expected.append(int(date.timestamp()))
    times = {
        kind: pa.concat_tables(bookdb.ratings(folder, 1000))["timestamp"].to_pylist()
        for kind, (folder, _) in converted.items()
    }
    assert times == {"json": expected, "csv": [0] * 600}  # 0 means unknown


def test_titles_and_descriptions_are_clean_text(converted: Converted) -> None:
    books = books_of(converted)
    assert books[1]["title"] == "Dune & Sons (Dune, #1)"
    assert books[1]["description"] == "Spice must flow. Café 1 < 2 <3"
    assert books[2]["title"] == "كتاب 📚 \ufffd"
    assert books[2]["description"] == "a b \ufffd end"
    assert books[3]["title"] == "Without its series"
    assert (books[4]["title"], books[4]["description"]) == (None, None)
    assert books[60]["description"] == "About book 60."


def test_authors_without_a_role_come_first_and_are_distinct(converted: Converted) -> None:
    books = books_of(converted)
    assert books[6]["authors"] == ["2", "1", "3"]
    assert books[7]["authors"] == []
    names = bookdb.read(converted["json"][0]).authors.to_pydict()
    assert dict(zip(names["author_id"], names["name"], strict=True)) == {
        str(i): f"Author {i}" for i in range(7)
    }


def test_published_genres_are_added_to_books_without_a_genre_shelf(
    converted: Converted,
) -> None:
    books = books_of(converted)
    added = [
        ("40", "history"),
        ("40", "historical-fiction"),
        ("40", "biography"),
        ("31", "fantasy"),
        ("31", "paranormal"),
    ]
    assert [(s["count"], s["name"]) for s in books[5]["popular_shelves"]] == added
    assert [(s["count"], s["name"]) for s in books[8]["popular_shelves"]] == [
        ("9", "to-read"),
        *added,
    ]
    assert books[7]["popular_shelves"] == []
    assert [s["name"] for s in books[9]["popular_shelves"]] == ["to-read", "horror"]


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_batch_rows_and_gzip_do_not_change_the_output(
    tmp_path: Path, converted: Converted, kind: str
) -> None:
    plain = write_ucsd(tmp_path / "plain", interactions=kind, gz=False)
    folder, counts = convert(tmp_path, plain, batch_rows=10**6)
    assert counts == converted[kind][1]
    for name in bookdb.SCHEMA:
        assert (folder / name).read_bytes() == (converted[kind][0] / name).read_bytes()


def test_memory_for_json_depends_on_batch_rows_and_not_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raw_tables.RowGroupWriter.__init__, "__kwdefaults__", {"rows": 250})
    row = {"book_id": str(ucsd_book(1)), "rating": 5, "date_added": DATES[0][2]}
    peaks = []
    for n in (1_000, 4_000):
        text = json_lines(row | {"user_id": f"{i:032x}"} for i in range(n))
        path = write(tmp_path / f"goodreads_interactions_{n}.json", text, gz=False)
        tracemalloc.start()
        write_json([path], tmp_path, books={ucsd_book(1)}, counts=Counter(), batch_rows=250)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]  # with four times the rows
    assert peaks[1] < 4_000 * 81  # less than the user ids would take


def test_the_tables_can_be_loaded_and_are_rebuilt_only_for_other_files(
    tmp_path: Path, cache: Cache
) -> None:
    root = write_ucsd(tmp_path / "root")
    cfg = DataConfig(name="ucsd", root=str(root), genres=GENRES)
    first = fetch(cfg, cache)
    assert first.counts == JSON_COUNTS
    assert fetch(replace(cfg, batch_rows=1000), cache) == first
    tables = load_tables(DataConfig(name="bookdb", root=str(first.folder), genres=GENRES), cache)
    assert (len(tables.users), len(tables.books), len(tables.histories)) == (60, 60, 600)
    assert tables.books["authors"][5] == "Author 2, Author 1, Author 3"

    authors = json_lines([{"author_id": "2", "name": "Other"}])
    write(root / "goodreads_book_authors.json", authors, gz=True)
    other = fetch(cfg, cache)
    assert other.folder != first.folder
    assert pd.read_parquet(other.folder / "new_authors.parquet")["name"].tolist() == ["Other"]


def test_the_error_for_missing_files_names_the_files_found(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root", interactions="csv", gz=True)
    (root / "user_id_map.csv.gz").unlink()
    (root / "goodreads_books.json.gz").unlink()
    message = r"missing goodreads_books.json, user_id_map.csv \(or .gz\).*found book_id_map"
    with pytest.raises(DataError, match=message):
        ucsd.files(root)
    with pytest.raises(DataError, match="nowhere' is not a folder"):
        ucsd.files(tmp_path / "nowhere")


def test_files_of_two_formats_are_an_error(tmp_path: Path) -> None:
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
    message = r"books.json.gz and goodreads_books_poetry.json.gz hold the same"
    with pytest.raises(DataError, match=message):
        ucsd.files(root)
    (root / "goodreads_books_poetry.json.gz").unlink()
    with pytest.raises(DataError, match="keep one of them"):
        ucsd.files(root)
    (root / "goodreads_interactions_poetry.json.gz").unlink()
    write_ucsd(root, interactions="csv", gz=False)
    with pytest.raises(DataError, match="both exist; keep one"):
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
def test_the_error_for_a_damaged_gzip_names_the_file(
    tmp_path: Path, name: str, damage: str
) -> None:
    root = write_ucsd(tmp_path / "root", interactions="csv")
    data = bytearray((root / name).read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 0xFF
    damaged = {
        "truncated": data[: len(data) * 2 // 3],
        "flipped": data,
        "not gzip": b"<html>404</html>",
    }[damage]
    (root / name).write_bytes(damaged)
    check_error(tmp_path, root, name, "is truncated or damaged", "Download it again")


@pytest.mark.parametrize("line", ['{"user_id": "a", "rating"', "nonsense", "3", "[" * 100_000])
def test_the_error_for_many_malformed_lines_names_the_first(tmp_path: Path, line: str) -> None:
    root = write_ucsd(tmp_path / "root")
    name = "goodreads_interactions_dedup.json"
    rows = gzip.decompress((root / f"{name}.gz").read_bytes()).decode().splitlines()
    write(root / name, json_lines([line] * 5 + rows), gz=True)
    check_error(tmp_path, root, f"{name}.gz", "7 of 626 lines are malformed", "line 1: ")


def test_a_csv_with_other_columns_is_an_error(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root", interactions="csv", gz=False)
    write(root / "goodreads_interactions.csv", "user,book\n1,2\n", gz=False)
    message = "missing column user_id, book_id, rating; found user, book"
    check_error(tmp_path, root, "goodreads_interactions.csv", message)


def test_ratings_of_another_catalogue_are_an_error_that_lists_the_reasons(tmp_path: Path) -> None:
    root = write_ucsd(tmp_path / "root")
    row = json_lines([{"user_id": "a", "book_id": "1", "rating": 5}])
    write(root / "goodreads_interactions_dedup.json", row, gz=True)
    check_error(tmp_path, root, "none of 1 ratings can be used (ratings_dropped_unknown_book=1)")
