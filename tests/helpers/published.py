"""Write small UCSD Book Graph and goodbooks-10k folders with valid and invalid rows."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.conftest import Rating, some_ratings

N_USERS, N_BOOKS, PER_USER = 60, 60, 10
GENRES = ["fantasy", "horror", "poetry", "travel"]

# Five combinations of (read_at, date_updated, date_added).
DATES: list[tuple[object, object, object]] = [
    (
        "Fri Nov 03 00:00:00 -0800 2017",
        "Fri Nov 03 10:41:31 -0700 2017",
        "Wed Nov 01 09:00:00 -0700 2017",
    ),
    ("", "Mon Feb 29 23:59:59 +0130 2016", "Sun Feb 28 01:02:03 -0800 2016"),
    ("Thu Feb 30 00:00:00 -0800 2017", "garbage", "Tue Jan 03 00:00:00 +0000 2017"),
    (
        "Sat Feb 01 00:00:00 -0800 2107",
        "Sun Dec 31 12:00:00 -0800 2006",
        "Sat Dec 30 12:00:00 -0800 2006",
    ),
    (None, "NaN", ""),
]
# Index of the date that is the time of the rating.
USABLE = [0, 1, 2, 1, None]


def write(path: Path, text: str, *, gz: bool) -> Path:
    """Write a text file; with `gz` it is gzipped and `.gz` is added to its name."""
    data = text.encode()
    path = path.with_name(f"{path.name}.gz") if gz else path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 1) if gz else data)
    return path


def json_lines(rows: Iterable[object]) -> str:
    """Return one JSON value per line; strings are used as lines unchanged."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def csv_lines(rows: Iterable[Sequence[object]]) -> str:
    """Return CSV lines; None is an empty field."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def ratings() -> list[Rating]:
    """Return the valid ratings of both sources: (user number, book number from 1, stars)."""
    return [(u.removeprefix("user"), b, r) for u, b, r in some_ratings(N_USERS, N_BOOKS, PER_USER)]


def ucsd_user(number: str) -> str:
    """Return the id of a user: 32 hexadecimal digits."""
    return f"{int(number) * 7919:032x}"


def ucsd_book(number: int) -> int:
    """Return the id of a book."""
    return 57_000 + number


def write_ucsd(folder: Path, *, interactions: str = "json", gz: bool = True) -> Path:
    """Write a UCSD Book Graph of 60 users with 10 ratings each over 60 books.

    Args:
        folder: Created if it does not exist.
        interactions: "json" (goodreads_interactions_dedup, which cycles through DATES) or "csv"
            (with the two maps).
        gz: Whether files are gzipped.
    """
    write(folder / "goodreads_books.json", json_lines(_ucsd_books()), gz=gz)
    write(folder / "goodreads_book_authors.json", json_lines(_ucsd_authors()), gz=gz)
    genres = {"history, historical fiction, biography": 40, "fantasy, paranormal": 31}
    rows: list[object] = [
        {"book_id": str(ucsd_book(n)), "genres": genres if n in (5, 8) else {}}
        for n in range(1, 61)
    ]
    write(folder / "goodreads_book_genres_initial.json", json_lines(rows), gz=gz)
    if interactions == "json":
        write(folder / "goodreads_interactions_dedup.json", json_lines(_ucsd_json()), gz=gz)
    else:
        _write_ucsd_csv(folder, gz)
    return folder


def _ucsd_books() -> list[object]:
    books = [_ucsd_book(n) for n in range(1, N_BOOKS + 1)]
    books[0] |= {
        "title": "Dune &amp; Sons (Dune, #1)",
        "description": "<p>Spice<br/>must <b>fl</b>ow.</p><script>x < y</script>"
        "Caf&eacute; 1 < 2 <3",
    }
    books[1] |= {"title": "كتاب 📚\u0000 \ud83d", "description": "a\u0000b\r\n \ud83d end"}
    books[2] |= {"title": None, "title_without_series": "Without its series"}
    books[3] |= {"title": "NaN", "title_without_series": "", "description": "null"}
    books[4] |= {"popular_shelves": []}
    books[5] |= {
        "authors": [
            {"author_id": "3", "role": "Illustrator"},
            {"author_id": 2, "role": ""},
            {"author_id": "1.0", "role": None},
            {"author_id": "2", "role": "Editor"},
            {"author_id": "", "role": ""},
        ]
    }
    books[6] |= {"popular_shelves": None, "authors": None, "description": None}
    books[7] |= {
        "popular_shelves": [
            {"count": "9", "name": "to-read"},
            {"count": None, "name": "NaN"},
            "fantasy",
        ]
    }
    twin = _ucsd_book(1) | {"title": "The twin"}
    return [*books, twin, *(_ucsd_book(1) | {"book_id": bad} for bad in ("", None, "NaN", "x1"))]


def _ucsd_book(n: int) -> dict[str, Any]:
    book_id = [ucsd_book(n), str(ucsd_book(n)), f"{ucsd_book(n)}.0"][n % 3]
    return {
        "isbn": "",
        "series": [],
        "popular_shelves": [
            {"count": "9", "name": "to-read"},
            {"count": "4", "name": GENRES[n % 4]},
        ],
        "is_ebook": "false",
        "description": f"About book {n}.",
        "authors": [{"author_id": str(n % 7), "role": ""}],
        "publication_year": "1984",
        "book_id": book_id,
        "work_id": str(n),
        "title": f"Book {n}",
        "title_without_series": f"Book {n}",
    }


def _ucsd_authors() -> list[object]:
    people: list[object] = [
        {"author_id": str(i), "name": f"Author {i}", "ratings_count": "9"} for i in range(7)
    ]
    return [
        *people,
        {"author_id": 1, "name": "Twin"},
        {"author_id": "8", "name": ""},
        {"author_id": "", "name": "X"},
    ]


def _ucsd_json() -> list[object]:
    valid = [
        _interaction(
            ucsd_user(u), str(ucsd_book(b)), [r, str(r), float(r)][i % 3 if i < 9 else 0], i=i
        )
        for i, (u, b, r) in enumerate(ratings())
    ]
    user, book = ucsd_user("000"), str(ucsd_book(1))
    invalid: list[object] = [
        *(_interaction(user, book, rating, i=0) for rating in (0, 0, None, "", "NaN")),
        *(_interaction(user, book, rating, i=0) for rating in (9, -1, 3.5, "five", True, [5])),
        *(_interaction(bad, book, 5, i=0) for bad in (None, "", "null")),
        *(_interaction(user, bad, 5, i=0) for bad in (None, "", "x", -7)),
        _interaction(user, "999999", 5, i=0),
        "{broken",
        "[1, 2]",
        "",
    ]
    return [*valid[:300], *invalid, *valid[300:]]


def _interaction(user: object, book: object, rating: object, *, i: int) -> dict[str, object]:
    read, updated, added = DATES[i % len(DATES)]
    return {
        "user_id": user,
        "book_id": book,
        "review_id": f"{i:032x}",
        "is_read": True,
        "rating": rating,
        "review_text_incomplete": "",
        "date_added": added,
        "date_updated": updated,
        "read_at": read,
        "started_at": "",
    }


def _write_ucsd_csv(folder: Path, gz: bool) -> None:
    head = ["user_id", "book_id", "is_read", "rating", "is_reviewed"]
    # Numbers in the CSV: users in ascending order, books in descending order.
    valid: list[list[object]] = [[int(u), N_BOOKS - b, 1, r, 0] for u, b, r in ratings()]
    invalid: list[list[object]] = [
        *([0, 1, 0, rating, 0] for rating in (0, 0, None, "NaN", " ")),
        *([0, 1, 1, rating, 0] for rating in (9, -1, 3.5, "five")),
        *([bad, 1, 1, 5, 0] for bad in (None, "x")),
        *([0, bad, 1, 5, 0] for bad in (None, "0x1F", "")),
        *([0, unknown, 1, 5, 0] for unknown in (61, 777)),  # 61 is in the map only
        [999, 1, 1, 5, 0],
        [0, 1],
        [0, 1, 1, 5, 0, 0],
    ]
    valid[3] = ["0.0", f" {valid[3][1]}.0", 1, f"{valid[3][3]}.0", 0]
    rows = csv_lines([head, *valid[:300], *invalid, *valid[300:]])
    write(folder / "goodreads_interactions.csv", rows, gz=gz)
    books = [[N_BOOKS - n, ucsd_book(n)] for n in range(1, N_BOOKS + 1)]
    rows = csv_lines([["book_id_csv", "book_id"], *books, [61, 4], [1, 4]])
    write(folder / "book_id_map.csv", rows, gz=gz)
    users = [[u, ucsd_user(str(u))] for u in range(N_USERS)]
    rows = csv_lines([["user_id_csv", "user_id"], *users, [0, "twin"]])
    write(folder / "user_id_map.csv", rows, gz=gz)


def write_goodbooks(folder: Path, *, gz: bool = False) -> Path:
    """Write a goodbooks-10k of 60 users with 10 ratings each over 60 books.

    The folder is created if it does not exist.
    """
    write(folder / "books.csv", csv_lines(_goodbooks_books()), gz=gz)
    valid: list[list[object]] = [[int(u) + 1, b, r] for u, b, r in ratings()]
    valid[3] = ["1.0", f"{valid[3][1]}.0", f" {valid[3][2]}"]
    invalid: list[list[object]] = [
        *([1, 1, rating] for rating in (0, None, "NaN")),
        *([1, 1, rating] for rating in (6, -1, 4.5)),
        *([1, unknown, 5] for unknown in (61, 10_001)),
        *([bad, 1, 5] for bad in (None, "x")),
        [1, None, 5],
        [1, 1],
    ]
    rows = [["user_id", "book_id", "rating"], *valid[:300], *invalid, *valid[300:]]
    write(folder / "ratings.csv", csv_lines(rows), gz=gz)
    tags = {1: "to-read", 2: "fantasy", 3: 'quo"ted, and comma', 4: "حب", 5: "NaN"}
    write(folder / "tags.csv", csv_lines([["tag_id", "tag_name"], *tags.items()]), gz=gz)
    write(folder / "book_tags.csv", csv_lines(_goodbooks_tags()), gz=gz)
    write(folder / "to_read.csv", csv_lines([["user_id", "book_id"], [1, 1]]), gz=gz)
    return folder


def _goodbooks_books() -> list[list[object]]:
    head = [
        "book_id",
        "goodreads_book_id",
        "best_book_id",
        "work_id",
        "authors",
        "original_title",
        "title",
        "image_url",
    ]
    books = {
        n: [n, 5000 + n, 5000 + n, n, f"Author {n % 7}", f"Book {n}", f"Book {n}", "u"]
        for n in range(1, 61)
    }
    books[1][4:7] = ["Ann Lee, Martin King, Jr., Ann Lee", "Dune", 'Dune &amp; "Sons" (Dune, #1)']
    books[2][4:7] = ["Жан ❤", "", "two\nlines\x00"]
    books[3][6] = ""
    books[4][4:7] = ["NaN", "", "NaN"]
    twin: list[object] = [1, 9999, 9999, 9, "Twin", "Twin", "Twin", "u"]
    return [head, *books.values(), twin, [None, *twin[1:]], ["x", *twin[1:]]]


def _goodbooks_tags() -> list[list[object]]:
    rows: list[list[object]] = [["goodreads_book_id", "tag_id", "count"]]
    for n in range(1, 61):
        rows += [[5000 + n, 1, 100], [5000 + n, 2, 50]]
    return [
        *rows,
        [5001, 3, 70],
        [5001, 2, 80],  # repeated: the larger count is used
        [5001, 4, 70],  # the count of tag 3: file order decides
        [5002, 3, -1],
        [5002, 4, 0],
        [5002, 5, 7],  # a tag without a name
        [5002, 6, 7],
        [4, 1, 7],
        ["", 1, 7],
    ]
