"""Books and histories from the raw tables: genres, authors, series, editions, book texts."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reranker import templates
from reranker.config import DataConfig
from reranker.data import texts
from reranker.data.draws import IntArray
from reranker.data.sources.bookdb import RawTables

BATCH_ROWS = 65_536  # books in work at a time

_BRACKET = re.compile(r"\s*\(([^()]*)\)\s*$")
_NUMBER = re.compile(
    r"#\s*(\d+(?:\.\d+)?(?:-\d+(?:\.\d+)?)?)"
)  # #1, #0.5, and #1-3 of a volume with three


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


def build_books(raw: RawTables, cfg: DataConfig) -> pd.DataFrame:
    """One row per raw book, ascending book_id.

    Genres come from shelf names alone, by cfg.genres: shelf counts sum over all readers, so they hold ratings of dev
    and test users. A book keeps its rarest genres (fewest books), for these tell most, rarest first, equally rare ones
    in the order of its shelves. Authors keep their order, primary ones first; an id without a name is left out.

    Returns:
        book_id int64 and str columns without nulls: title, series, authors and genres (joined by ", "), description
        (without HTML), book_text (with cfg.text=given of book_texts_reduced where present, else by cfg.book_template).
    """
    columns = {
        "authors": _author_names(raw.books["authors"], raw.authors),
        "genres": _genres(raw.books["popular_shelves"], cfg),
        "given": _given_texts(raw) if cfg.text == "given" else texts.arrow([""] * len(raw.books)),
    }
    parts = templates.parse_book(cfg.book_template)
    done: list[pa.Table] = []
    at = 0
    for batch in raw.books.select(["title", "description"]).to_batches(max_chunksize=BATCH_ROWS):
        done.append(
            _texts(batch, {name: c.slice(at, len(batch)) for name, c in columns.items()}, parts)
        )
        at += len(batch)
    frame = pa.concat_tables(done).combine_chunks().to_pandas()
    frame.insert(0, "book_id", raw.books["book_id"].to_numpy().astype(np.int64))
    return frame.sort_values("book_id", ignore_index=True)


def _texts(
    batch: pa.RecordBatch, columns: dict[str, pa.Array], parts: tuple[templates.Part, ...]
) -> pa.Table:
    title = texts.clean(batch["title"])
    known = {
        "title": title,
        "series": texts.arrow([series(t) for t in title.to_pylist()]),
        "authors": columns["authors"],
        "genres": columns["genres"],
        "description": texts.clean(texts.strip_html(batch["description"])),
    }
    given = columns["given"]
    return pa.table(
        known | {"book_text": pc.if_else(pc.equal(given, ""), texts.fill(parts, known), given)}
    )


def _given_texts(raw: RawTables) -> pa.Array:
    """(n_books,) the text that came with each book, empty where none did."""
    at = pc.index_in(
        raw.books["book_id"].cast(pa.int64()), value_set=raw.texts["book_id"].cast(pa.int64())
    )
    return texts.clean(texts.arrow(raw.texts["text"]).take(at.combine_chunks()))


def given_ids(raw: RawTables) -> IntArray:
    """The book_ids that came with a text of their own; others have one rendered from their columns."""
    has_text = pc.not_equal(texts.clean(texts.arrow(raw.texts["text"])), "")
    return raw.texts["book_id"].to_numpy()[has_text.to_numpy(zero_copy_only=False)]


def _author_names(column: pa.ChunkedArray, authors: pa.Table) -> pa.Array:
    name = texts.clean(
        pc.replace_substring(texts.arrow(authors["name"]), ",", "")
    )  # the comma separates authors
    code = np.where(pc.equal(name, "").to_numpy(zero_copy_only=False), -1, np.arange(len(name)))
    row, author = _members(column, texts.arrow(authors["author_id"]), code)
    return texts.join(row, name.take(pa.array(author)), len(column), ", ")


def _genres(column: pa.ChunkedArray, cfg: DataConfig) -> pa.Array:
    code = np.repeat(np.arange(len(cfg.genres)), [len(shelves) for shelves in cfg.genres.values()])
    shelves = texts.arrow([shelf for shelves in cfg.genres.values() for shelf in shelves])
    row, genre = _members(column, shelves, code)
    order = np.lexsort(
        (np.bincount(genre)[genre], row)
    )  # stable: ties keep the order of the shelves
    row, genre = row[order], genre[order]
    kept = np.arange(len(row)) - np.searchsorted(row, row) < cfg.max_genres
    return texts.join(
        row[kept], texts.arrow(list(cfg.genres)).take(pa.array(genre[kept])), len(column), ", "
    )


def _members(column: pa.ChunkedArray, known: pa.Array, code: IntArray) -> tuple[IntArray, IntArray]:
    """Row and code of every element of a list column, by row, in the order of the list, each code once in a row.

    Args:
        column: CandidateLists of texts or integers, or of structs with a text `name`; null lists have no elements.
        known: (n_known,) the elements that have a code, as texts.
        code: (n_known,) their codes; -1 for none.
    """
    found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
    at = 0
    for batch in pa.table({"lists": column}).to_batches(max_chunksize=BATCH_ROWS):
        values = pc.list_flatten(batch["lists"])
        names = pc.struct_field(values, "name") if pa.types.is_struct(values.type) else values
        place = pc.fill_null(pc.index_in(names.cast(texts.TEXT), value_set=known), -1).to_numpy()
        row = pc.list_parent_indices(batch["lists"]).to_numpy()
        its_code = np.append(code, -1)[place]
        row, its_code = row[its_code >= 0], its_code[its_code >= 0]
        first = np.sort(np.unique(row * (len(known) + 1) + its_code, return_index=True)[1])
        found.append((at + row[first], its_code[first]))
        at += len(batch)
    return np.concatenate([r for r, _ in found]), np.concatenate([c for _, c in found])


def work_keys(books: pd.DataFrame) -> pd.Series:
    """A key per book that all editions of a work share: short title, first author and, in a series, the number.

    The number counts only where one title and author have several (`Naruto (#1)`, `Naruto (#2)`), so that `Dune` and
    `Dune (Dune Chronicles, #1)` are one work. A book without title or author is a work of its own.
    """
    title = (
        books["title"].map(short_title).str.lower().str.replace(r"\W+", " ", regex=True).str.strip()
    )
    author = books["authors"].str.replace(",.*", "", regex=True).str.lower()
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
    work = pd.factorize(work_keys(books))[0]
    ids = books["book_id"].to_numpy()
    order = np.lexsort((ids, -n_ratings, work))
    first = order[np.unique(work[order], return_index=True)[1]]
    row = first[work]  # of the edition kept
    is_kept = row == np.arange(len(books))
    code = (np.cumsum(is_kept) - 1)[row].astype(np.int32)
    return books[is_kept].reset_index(drop=True), pd.DataFrame({"book_id": ids, "book": code})
