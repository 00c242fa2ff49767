"""data=bookdb_features: the original system's feature tables, its own spellings and ours."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import Tables, load_tables
from reranker.errors import DataError
from tests.conftest import GENRES

N_BOOKS, N_USERS = 40, 60


def write(folder: Path, **changes: Any) -> Path:
    """Write the three files; `changes` replaces users, books or texts, and None leaves one out."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = list(range(1, N_BOOKS + 1))
    frames: dict[str, Any] = {
        "users": pd.DataFrame(
            {
                "user_id": [f"u{u:02d}" for u in range(N_USERS)],
                "books_read": [
                    [1 + (u * 7 + i * 3) % N_BOOKS for i in range(8)] for u in range(N_USERS)
                ],
            }
        ),
        "books": pd.DataFrame(
            {
                "book_id": ids,
                "title": [f"Book {i}" for i in ids],
                "description": [f"About {i}." for i in ids],
                "genre": ["fantasy, horror" if i % 2 else "romance, no such genre" for i in ids],
                "authors": [f"Author {i % 5}, Second {i % 3}" for i in ids],
            }
        ),
        "texts": pd.DataFrame({"book_id": ids[:30], "text": [f"Given text {i}" for i in ids[:30]]}),
    }
    names = {
        "users": "sampled_users_book",
        "books": "reduce_books_df",
        "texts": "book_texts_reduced",
    }
    for key, frame in (frames | changes).items():
        if frame is not None:
            frame.to_parquet(folder / f"{names[key]}.parquet", index=False)
    return folder


def load(root: Path, cache: Cache) -> Tables:
    cfg = DataConfig(
        name="bookdb_features", root=str(root), rating_range=None, genres=GENRES, min_ratings=4
    )
    return load_tables(cfg, cache)


def test_every_book_read_is_a_positive(tmp_path: Path, cache: Cache) -> None:
    tables = load(write(tmp_path / "raw"), cache)
    assert len(tables.users) == N_USERS and len(tables.histories) == 8 * N_USERS
    assert (tables.histories["rating"] >= tables.positive_rating).all()
    assert (tables.histories["timestamp"] == 0).all()
    first = tables.books.iloc[0]
    assert first["authors"] == "Author 1, Second 1"
    assert sorted(first["genres"].split(", ")) == ["fantasy", "horror"]
    assert first["book_text"] == "Given text 1"
    assert tables.books.iloc[35]["book_text"].startswith("Title: Book 36")
    assert tables.counts["source_genres_dropped_unknown"] == N_BOOKS / 2
    assert tables.counts["ratings_implicit"] == 8 * N_USERS


@pytest.mark.parametrize("spelling", ["strings", "floats", "text", "mixed texts", "null member"])
def test_lists_of_any_spelling_give_the_same_tables(
    spelling: str, tmp_path: Path, cache: Cache
) -> None:
    plain = load(write(tmp_path / "plain"), cache)
    users = pd.read_parquet(tmp_path / "plain" / "sampled_users_book.parquet")
    change = {
        "strings": lambda ids: [str(i) for i in ids],
        "floats": lambda ids: [float(i) for i in ids],
        "text": lambda ids: str([int(i) for i in ids]),
        "mixed texts": lambda ids: [f"{i}.0" if i % 2 else str(i) for i in ids],
        "null member": lambda ids: [*map(int, ids), None],
    }[spelling]
    users["books_read"] = users["books_read"].map(change)
    other = load(write(tmp_path / "other", users=users), cache)
    assert other.histories.equals(plain.histories)
    assert other.users.equals(plain.users)


def test_repeated_books_are_counted(tmp_path: Path, cache: Cache) -> None:
    users = pd.DataFrame(
        {
            "user_id": [f"u{i:02d}" for i in range(N_USERS)],
            "books_read": [[1, 2, 3, 4, 4, 5]] * N_USERS,
        }
    )
    tables = load(write(tmp_path / "raw", users=users), cache)
    assert tables.counts["source_ratings_dropped_repeated"] == N_USERS
    assert len(tables.histories) == 5 * N_USERS


def test_descriptions_and_texts_may_be_missing(tmp_path: Path, cache: Cache) -> None:
    write(tmp_path / "raw", texts=None)
    books = pd.read_parquet(tmp_path / "raw" / "reduce_books_df.parquet")
    write(tmp_path / "raw", texts=None, books=books.drop(columns="description"))
    tables = load(tmp_path / "raw", cache)
    assert tables.books["book_text"].str.startswith("Title: Book").all()


def test_our_own_feature_tables_can_be_read_back(tmp_path: Path, cache: Cache) -> None:
    first = load(write(tmp_path / "raw"), cache)
    root = tmp_path / "again"
    root.mkdir()
    for name in ("reduce_books_df.parquet", "sampled_users_book.parquet"):
        (root / name).symlink_to(first.path / name)
    texts = first.books[["book_id", "book_text"]].rename(columns={"book_text": "text"})
    texts.to_parquet(root / "book_texts_reduced.parquet")
    again = load(root, cache)
    assert again.users.equals(first.users)
    assert again.histories.equals(first.histories)
    assert again.books.drop(columns="genres").equals(first.books.drop(columns="genres"))
    genres = [table.books["genres"].str.split(", ").map(set) for table in (again, first)]
    assert genres[0].equals(genres[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"users": None}, "missing sampled_users_book.parquet"),
        ({"books": pd.DataFrame({"book_id": [1]})}, "missing column title"),
        ({"users": pd.DataFrame({"user_id": ["a"], "books": [[1]]})}, "missing column books_read"),
        ({"users": pd.DataFrame({"user_id": ["a"], "books_read": [["x"]]})}, "books_read must be"),
        ({"users": pd.DataFrame({"user_id": ["a"], "books_read": [True]})}, "books_read must be"),
    ],
)
def test_what_cannot_be_read_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path, cache: Cache
) -> None:
    with pytest.raises(DataError, match=message):
        load(write(tmp_path / "raw", **changes), cache)
