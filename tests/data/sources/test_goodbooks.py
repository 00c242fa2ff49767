"""goodbooks-10k with invalid rows gives valid raw tables, and every dropped row is counted."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import load_tables
from reranker.data.sources import bookdb, goodbooks
from reranker.data.sources.fetch import fetch
from reranker.errors import DataError
from tests.conftest import GENRES
from tests.helpers.published import ratings, write, write_goodbooks

COUNTS = {
    "books_in": 63,
    "books": 60,
    "books_dropped_duplicate_id": 1,
    "books_dropped_no_id": 2,
    "books_dropped_malformed_line": 0,
    "books_without_title": 1,
    "authors": 7 + 3,  # Ann Lee, Martin King Jr., Жан; Author 1, 2, 3 and 4 have other books
    "ratings_in": 600 + 12,
    "ratings": 600,
    "ratings_dropped_no_rating": 3,
    "ratings_dropped_wrong_rating": 3,
    "ratings_dropped_unknown_book": 2,
    "ratings_dropped_no_user_id": 2,
    "ratings_dropped_no_book_id": 1,
    "ratings_dropped_malformed_line": 1,
    "ratings_dropped_unknown_user": 0,
    "tags_dropped_malformed_line": 0,
    "book_tags_in": 120 + 9,
    "book_tags": 122,
    "book_tags_dropped_duplicate": 1,
    "book_tags_dropped_wrong_count": 2,
    "book_tags_dropped_unknown_tag": 2,
    "book_tags_dropped_unknown_book": 2,
    "book_tags_dropped_malformed_line": 0,
}


def convert(
    tmp_path: Path, root: Path, *, batch_rows: int = 1000, name: str = "out"
) -> tuple[Path, dict[str, int]]:
    folder = tmp_path / name
    folder.mkdir()
    return folder, goodbooks.convert(root, folder, batch_rows=batch_rows)


def check_error(tmp_path: Path, root: Path, *texts: str) -> None:
    with pytest.raises(DataError) as error:
        convert(tmp_path, root)
    assert all(text in str(error.value) for text in texts), str(error.value)


def test_every_row_is_written_or_counted_as_dropped(tmp_path: Path) -> None:
    assert convert(tmp_path, write_goodbooks(tmp_path / "root"))[1] == COUNTS
    for table in ("books", "ratings", "book_tags"):
        dropped = sum(n for reason, n in COUNTS.items() if reason.startswith(f"{table}_dropped"))
        assert COUNTS[f"{table}_in"] == COUNTS[table] + dropped


def test_valid_ratings_are_unchanged(tmp_path: Path) -> None:
    folder, _ = convert(tmp_path, write_goodbooks(tmp_path / "root"))
    table = pa.concat_tables(bookdb.ratings(folder, 1000))
    rows = list(zip(*(table[c].to_pylist() for c in ("user_id", "book_id", "rating")), strict=True))
    assert rows == [(str(int(u) + 1), b, r) for u, b, r in ratings()]
    assert not table["timestamp"].to_numpy().any()  # 0 means unknown


def test_books_have_clean_titles_and_distinct_authors(tmp_path: Path) -> None:
    folder, _ = convert(tmp_path, write_goodbooks(tmp_path / "root"))
    tables = bookdb.read(folder)
    books = {row["book_id"]: row for row in tables.books.to_pylist()}
    assert books[1]["title"] == 'Dune & "Sons" (Dune, #1)'
    assert books[1]["authors"] == ["Ann Lee", "Martin King, Jr."]
    assert (books[2]["title"], books[2]["authors"]) == ("two lines", ["Жан ❤"])
    assert books[3]["title"] == "Book 3"
    assert (books[4]["title"], books[4]["authors"]) == (None, [])
    names = {name for row in books.values() for name in row["authors"]}
    assert set(tables.authors["name"].to_pylist()) == names
    assert tables.texts.num_rows == 0


def test_tags_become_shelves_sorted_by_count_then_by_file_order(tmp_path: Path) -> None:
    folder, _ = convert(tmp_path, write_goodbooks(tmp_path / "root"))
    rows = pq.read_table(folder / "reduced_books.parquet").to_pylist()
    shelves = {row["book_id"]: row["popular_shelves"] for row in rows}
    assert [(s["count"], s["name"]) for s in shelves[1]] == [
        ("100", "to-read"),
        ("80", "fantasy"),
        ("70", 'quo"ted, and comma'),
        ("70", "حب"),
    ]
    assert [(s["count"], s["name"]) for s in shelves[2]] == [("100", "to-read"), ("50", "fantasy")]


def test_batch_rows_and_gzip_do_not_change_the_output(tmp_path: Path) -> None:
    few, counts = convert(tmp_path, write_goodbooks(tmp_path / "plain"), name="few")
    many, same = convert(
        tmp_path, write_goodbooks(tmp_path / "gz", gz=True), batch_rows=10**6, name="many"
    )
    assert counts == same
    for name in bookdb.SCHEMA:
        assert (few / name).read_bytes() == (many / name).read_bytes()


def test_the_tables_can_be_loaded(tmp_path: Path, cache: Cache) -> None:
    root = write_goodbooks(tmp_path / "root")
    source = fetch(DataConfig(name="goodbooks", root=str(root)), cache)
    assert source.counts == COUNTS
    tables = load_tables(DataConfig(name="bookdb", root=str(source.folder), genres=GENRES), cache)
    assert (len(tables.users), len(tables.books), len(tables.histories)) == (60, 60, 600)
    assert tables.books["genres"][0] == "fantasy"
    assert tables.books["authors"][0] == "Ann Lee, Martin King Jr."


def test_the_error_for_a_missing_file_names_the_files_found(tmp_path: Path) -> None:
    root = write_goodbooks(tmp_path / "root")
    (root / "tags.csv").unlink()
    with pytest.raises(
        DataError, match=r"missing tags.csv \(or .gz\) of data=goodbooks; found book_tags.csv"
    ):
        goodbooks.files(root)


def test_rows_swallowed_by_an_unclosed_quote_are_counted(tmp_path: Path) -> None:
    root = write_goodbooks(tmp_path / "root")
    text = (root / "books.csv").read_text().replace("Book 30,u", '"Book 30,u')
    write(root / "books.csv", text, gz=False)
    # The title of book 2 has two lines.
    check_error(tmp_path, root, "books.csv", "34 of 64 lines are malformed", "line 32: ")


def test_the_column_names_of_an_older_release_are_an_error(tmp_path: Path) -> None:
    root = write_goodbooks(tmp_path / "root")
    text = (root / "books.csv").read_text().replace("book_id,goodreads_book_id", "id,book_id")
    write(root / "books.csv", text, gz=False)
    check_error(tmp_path, root, "books.csv", "missing column goodreads_book_id; found id, book_id")


@pytest.mark.parametrize("name", ["books.csv.gz", "ratings.csv.gz", "book_tags.csv.gz"])
def test_the_error_for_a_truncated_gzip_names_the_file(tmp_path: Path, name: str) -> None:
    root = write_goodbooks(tmp_path / "root", gz=True)
    (root / name).write_bytes((root / name).read_bytes()[:-20])
    check_error(tmp_path, root, name, "is truncated or damaged", "Download it again")
