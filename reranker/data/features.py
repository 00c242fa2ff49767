"""Books and histories from the raw tables: genres, authors, series, editions, book texts."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.bookdb import RawTables
from reranker.data.draws import IntArray

# Shelf -> genre. Shelves that are not here are reader habits ("to-read"), formats, awards or book-specific names.
# Written from the 300 most frequent shelves of goodbooks-10k.
GENRES: dict[str, str] = {
    shelf: genre
    for genre, shelves in {
        "fantasy": "fantasy high-fantasy epic-fantasy",
        "urban fantasy": "urban-fantasy",
        "science fiction": "science-fiction sci-fi scifi sf",
        "dystopia": "dystopia dystopian post-apocalyptic",
        "romance": "romance contemporary-romance",
        "paranormal": "paranormal supernatural vampires vampire werewolves witches paranormal-romance",
        "historical fiction": "historical-fiction",
        "historical romance": "historical-romance",
        "mystery": "mystery mysteries detective",
        "crime": "crime true-crime",
        "thriller": "thriller suspense thrillers mystery-thriller",
        "horror": "horror",
        "classics": "classics classic classic-literature",
        "literary fiction": "literary-fiction literature",
        "contemporary": "contemporary contemporary-fiction realistic-fiction",
        "chick lit": "chick-lit",
        "young adult": "young-adult ya teen ya-fiction",
        "new adult": "new-adult",
        "children": "childrens children children-s children-s-books childrens-books kids kids-books",
        "middle grade": "middle-grade",
        "picture books": "picture-books picture-book",
        "humor": "humor humour funny comedy",
        "adventure": "adventure action",
        "graphic novels": "graphic-novels graphic-novel comics manga comic",
        "short stories": "short-stories",
        "poetry": "poetry",
        "drama": "plays theatre drama",
        "nonfiction": "non-fiction nonfiction",
        "biography": "biography biographies",
        "memoir": "memoir memoirs autobiography",
        "history": "history",
        "science": "science popular-science",
        "psychology": "psychology",
        "philosophy": "philosophy",
        "religion": "religion christian christianity spirituality theology",
        "self-help": "self-help personal-development",
        "business": "business economics",
        "politics": "politics political",
        "travel": "travel",
        "cooking": "cooking cookbooks food cookbook",
        "art": "art design",
        "sports": "sports",
        "war": "war military",
        "westerns": "western westerns",
        "erotica": "erotica",
        "mythology": "mythology myths",
    }.items()
    for shelf in shelves.split()
}

_BRACKET = re.compile(r"\s*\(([^()]*)\)\s*$")
_NUMBER = re.compile(r"#\s*(\d+(?:\.\d+)?)")


def short_title(title: str) -> str:
    """The title without a bracket at its end: `Dune (Dune Chronicles, #1)` gives `Dune`."""
    return _BRACKET.sub("", title).strip() or title.strip()


def series(title: str) -> str:
    """The series and number in a title's last bracket, `Dune Chronicles #1`; empty where there is none."""
    bracket = _BRACKET.search(title)
    number = _NUMBER.search(bracket.group(1)) if bracket else None
    if not bracket or not number:
        return ""
    return f"{bracket.group(1)[: number.start()].strip(' ,;')} #{number.group(1)}".strip()


def build_books(raw: RawTables, *, max_genres: int) -> pd.DataFrame:
    """One row per raw book, ascending book_id.

    Genres come from shelf names alone: shelf counts sum over all readers, so they hold ratings of dev and test users.
    A book keeps its rarest genres first (fewest books), for these tell most. Authors keep their order; an author id
    without a name is left out.

    Returns:
        book_id int64 and str columns without nulls: title, series, authors and genres (joined by ", "), description,
        book_text (of book_texts_reduced where present, else from the other columns).
    """
    books = raw.books.sort_by("book_id")
    ids = books["book_id"].to_numpy().astype(np.int64)
    title = _strings(books["title"])
    frame = pd.DataFrame({"book_id": ids, "title": title, "series": [series(t) for t in title]})
    frame["authors"] = _author_names(books["authors"], raw.authors)
    frame["genres"] = _genres(books["popular_shelves"], max_genres)
    frame["description"] = _strings(books["description"])
    given = dict(zip(raw.texts["book_id"].to_pylist(), _strings(raw.texts["text"]), strict=True))
    rendered = render_book_texts(frame)
    frame["book_text"] = [given.get(b) or text for b, text in zip(ids.tolist(), rendered, strict=True)]
    return frame


def render_book_texts(books: pd.DataFrame) -> list[str]:
    """Book texts from title, authors, series, genres, description, in this order: truncation takes the description."""
    parts = {
        "Title": "title",
        "Authors": "authors",
        "Series": "series",
        "Genres": "genres",
        "Description": "description",
    }
    rows = zip(*(books[column].tolist() for column in parts.values()), strict=True)
    return [" | ".join(f"{name}: {v}" for name, v in zip(parts, row, strict=True) if v) for row in rows]


def _strings(column: pa.ChunkedArray) -> list[str]:
    return [" ".join(v.split()) for v in pc.fill_null(column.cast(pa.string()), "").to_pylist()]


def _flat(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """Row number and value of every element of a list column; null lists have none."""
    lists = column.combine_chunks()
    return pc.list_parent_indices(lists).to_numpy(zero_copy_only=False), pc.list_flatten(lists)


def _author_names(column: pa.ChunkedArray, authors: pa.Table) -> list[str]:
    name = dict(zip(authors["author_id"].to_pylist(), _strings(authors["name"]), strict=True))
    out: list[list[str]] = [[] for _ in range(len(column))]
    row, ids = _flat(column)
    for r, author in zip(row.tolist(), ids.cast(pa.string()).to_pylist(), strict=True):
        if name.get(author):
            out[r].append(name[author].replace(",", ""))  # the comma separates authors
    return [", ".join(names) for names in out]


def _genres(column: pa.ChunkedArray, max_genres: int) -> list[str]:
    row, shelves = _flat(column)
    genre = [GENRES.get(s) for s in pc.struct_field(shelves, "name").to_pylist()]
    pairs = sorted({(r, g) for r, g in zip(row.tolist(), genre, strict=True) if g})
    n_books = pd.Series([g for _, g in pairs]).value_counts()
    out: list[list[str]] = [[] for _ in range(len(column))]
    for r, g in sorted(pairs, key=lambda p: (p[0], n_books[p[1]], p[1])):
        out[r].append(g)
    return [", ".join(genres[:max_genres]) for genres in out]


def work_keys(books: pd.DataFrame) -> pd.Series:
    """A key per book that all editions of a work share: short title, first author and, in a series, the number.

    The number counts only where one title and author have several (`Naruto (#1)`, `Naruto (#2)`), so that `Dune` and
    `Dune (Dune Chronicles, #1)` are one work. A book without title or author is a work of its own.
    """
    title = books["title"].map(short_title).str.lower().str.replace(r"\W+", " ", regex=True).str.strip()
    author = books["authors"].str.split(", ").str[0].str.lower()
    base = title + " / " + author
    number = books["series"].str.extract(r"#(\S+)$", expand=False).fillna("")
    several = number[number != ""].groupby(base).nunique().reindex(base).fillna(0).to_numpy() > 1
    key = base.where(~several, base + " #" + number)
    anonymous = (title == "") | (author == "")
    return key.mask(anonymous, "book " + books["book_id"].astype(str))


def merge_editions(books: pd.DataFrame, n_ratings: IntArray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep one edition of each work, the one rated most often (then the smallest id).

    Args:
        n_ratings: (n_books,) ratings of each row of `books`.

    Returns:
        The kept books, ascending book_id (a row's number is the book's code from now on), and `editions`: for every
        raw book_id (int64) the code `book` (int32) of the edition kept.
    """
    frame = books.assign(work=work_keys(books))
    order = frame.assign(n=n_ratings).sort_values(["work", "n", "book_id"], ascending=[True, False, True])
    first = order.drop_duplicates("work").set_index("work")["book_id"]
    kept_id = frame["work"].map(first).to_numpy()
    kept = books[books["book_id"].to_numpy() == kept_id].reset_index(drop=True)
    code = np.searchsorted(kept["book_id"].to_numpy(), kept_id).astype(np.int32)
    return kept, pd.DataFrame({"book_id": books["book_id"].to_numpy(), "book": code})
