"""Build the books table: genres, authors, series, editions and book texts."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reranker import templates
from reranker.config import DataConfig
from reranker.data import texts
from reranker.data.draws import BoolArray, IntArray
from reranker.data.sources.bookdb import RawTables

BATCH_ROWS = 65_536  # books per batch

_BRACKET = re.compile(r"\s*\(([^()]*)\)\s*$")
# #1, #0.5, and #1-3 for a volume of three books
_NUMBER = re.compile(r"#\s*(\d+(?:\.\d+)?(?:-\d+(?:\.\d+)?)?)")
# A year or another number alone, or the number of a part: (1965), (Part II), (Vol. 3).
_PART = re.compile(
    r"^\s*(\d{1,4})\s*$|\b(?:part|volume|vol|book|season)\b\.?\s*(\d+|[ivxlc]+)\b", re.IGNORECASE
)
# Everything except letters, digits, combining marks (vowel signs of Devanagari, Tamil or Thai), _
# and the signs of C++ and C#.
_NO_WORD = r"[^\p{L}\p{N}\p{M}_+#]+"
_NO_SUFFIX = re.compile(r"(?<!\w)[+#]+|[+#]+(?=\w)")  # + and # that do not end a word


def short_title(title: str) -> str:
    """Return the title without the parentheses at its end.

    Example:
        >>> short_title("Dune (Dune Chronicles, #1)")
        'Dune'
    """
    return _BRACKET.sub("", title).strip() or title.strip()


def series(title: str) -> str:
    """Return the series and number in the parentheses at a title's end; empty if there are none.

    Example:
        >>> series("Dune (Dune Chronicles, #1)")
        'Dune Chronicles #1'
    """
    bracket = _BRACKET.search(title)
    number = _NUMBER.search(bracket.group(1)) if bracket else None
    if not bracket or not number:
        return ""
    return f"{bracket.group(1)[: number.start()].strip(' ,;')} #{number.group(1)}".strip()


def build_books(raw: RawTables, cfg: DataConfig) -> pd.DataFrame:
    """Return one row per raw book, by ascending book_id.

    Genres are derived from shelf names by cfg.genres. Shelf counts are not used, because they sum
    over all users, including dev and test users. A book keeps its rarest genres (those with the
    fewest books), because they are the most informative. The rarest genre comes first; equally rare
    genres keep the order of the book's shelves. Authors keep their order, primary authors first; an
    author id without a name is left out.

    Returns:
        book_id int64, and str columns without nulls: title, series, authors and genres (joined by
        ", "), description (without HTML), book_text. With cfg.text=given, book_text is taken from
        book_texts_reduced if the book has a text there; otherwise it is rendered with
        cfg.book_template.
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
        rows = {name: column.slice(at, len(batch)) for name, column in columns.items()}
        done.append(_texts(batch, rows, parts))
        at += len(batch)
    frame = pa.concat_tables(done).combine_chunks().to_pandas()
    frame.insert(0, "book_id", raw.books["book_id"].to_numpy())
    return frame.sort_values("book_id", ignore_index=True)


def _texts(
    batch: pa.RecordBatch, columns: dict[str, pa.Array], parts: tuple[templates.Part, ...]
) -> pa.Table:
    """Return the columns of the books table, except book_id, for a batch of raw books."""
    title = texts.clean(batch["title"])
    known = {
        "title": title,
        "series": texts.arrow([series(t) for t in title.to_pylist()]),
        "authors": columns["authors"],
        "genres": columns["genres"],
        "description": texts.clean(texts.strip_html(batch["description"])),
    }
    given = columns["given"]
    book_text = pc.if_else(pc.equal(given, ""), texts.fill(parts, known), given)
    return pa.table(known | {"book_text": book_text})


def _given_texts(raw: RawTables) -> pa.Array:
    """Return (n_books,) texts of the source; empty for a book without one."""
    at = pc.index_in(raw.books["book_id"], value_set=raw.texts["book_id"])
    return texts.clean(texts.arrow(raw.texts["text"]).take(at.combine_chunks()))


def given_ids(raw: RawTables) -> IntArray:
    """Return the book_ids for which the source has a text; the others are rendered."""
    has_text = pc.not_equal(texts.clean(texts.arrow(raw.texts["text"])), "")
    return raw.texts["book_id"].to_numpy()[has_text.to_numpy(zero_copy_only=False)]


def _author_names(column: pa.ChunkedArray, authors: pa.Table) -> pa.Array:
    """Return (n_books,) texts: the author names of each book, joined by ", "."""
    # Commas are removed from names, because they separate authors.
    name = texts.clean(pc.replace_substring(texts.arrow(authors["name"]), ",", ""))
    code = np.where(pc.equal(name, "").to_numpy(zero_copy_only=False), -1, np.arange(len(name)))
    row, author = _members(column, texts.arrow(authors["author_id"]), code)
    return texts.join(row, name.take(pa.array(author)), len(column), ", ")


def _genres(column: pa.ChunkedArray, cfg: DataConfig) -> pa.Array:
    """Return (n_books,) texts: the rarest genres of each book, joined by ", "."""
    code = np.repeat(np.arange(len(cfg.genres)), [len(shelves) for shelves in cfg.genres.values()])
    shelves = texts.arrow([shelf for shelves in cfg.genres.values() for shelf in shelves])
    row, genre = _members(column, shelves, code)
    n_books = np.bincount(genre)[genre]
    order = np.lexsort((n_books, row))  # stable: ties keep the order of the shelves
    row, genre = row[order], genre[order]
    shown = np.arange(len(row)) - np.searchsorted(row, row) < cfg.max_genres
    names = texts.arrow(list(cfg.genres)).take(pa.array(genre[shown]))
    return texts.join(row[shown], names, len(column), ", ")


def _members(column: pa.ChunkedArray, known: pa.Array, code: IntArray) -> tuple[IntArray, IntArray]:
    """Return the row and the code of every element of a list column that has a code.

    They are sorted by row and keep the order of the list; a repeated code is returned once.

    Args:
        column: Lists of texts.
        known: (n_known,) the elements that have a code, as texts.
        code: (n_known,) their codes; -1 leaves an element out.
    """
    found = [(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))]
    at = 0
    for batch in pa.table({"lists": column}).to_batches(max_chunksize=BATCH_ROWS):
        names = pc.list_flatten(batch["lists"])
        position = pc.fill_null(pc.index_in(names, value_set=known), -1).to_numpy()
        row = pc.list_parent_indices(batch["lists"]).to_numpy()
        codes = np.append(code, -1)[position]
        row, codes = row[codes >= 0], codes[codes >= 0]
        first = np.sort(np.unique(row * (len(known) + 1) + codes, return_index=True)[1])
        found.append((at + row[first], codes[first]))
        at += len(batch)
    rows, codes_of_rows = zip(*found, strict=True)
    return np.concatenate(rows), np.concatenate(codes_of_rows)


def work_keys(books: pd.DataFrame) -> pd.Series:
    """Return one key per book; all editions of a work have the same key.

    The key consists of the short title, the first author, the number in a series, and a year or a
    part number in brackets. Punctuation and case do not matter, but `C`, `C++` and `C#` differ. A
    number is used only if books with the same title and author have different ones (`Naruto (#1)`
    and `Naruto (#2)`, `Poems (1965)` and `Poems (1984)`), so that `Dune` and
    `Dune (Dune Chronicles, #1)` are one work. A book without a title or an author is a separate
    work.
    """
    title = _words(books["title"].map(short_title))
    author = books["authors"].str.replace(",.*", "", regex=True).str.lower()
    base = title + " / " + author
    number = books["series"].str.extract(r"#(\S+)$", expand=False).fillna("")
    part = books["title"].map(part_number)
    key = base.where(~_differ(number, base), base + " #" + number)
    key = key.where(~_differ(part, base), key + " part " + part)
    anonymous = (title == "") | (author == "")
    return key.mask(anonymous, "book " + books["book_id"].astype(str))


def part_number(title: str) -> str:
    """Return the year or part number in the brackets at a title's end; empty if there is none.

    Example:
        >>> part_number("Poems (1965)"), part_number("Henry IV (Part II)"), part_number("Emma (#1)")
        ('1965', 'ii', '')
    """
    bracket = _BRACKET.search(title)
    found = _PART.search(bracket.group(1)) if bracket and not series(title) else None
    return (found.group(1) or found.group(2)).lower() if found else ""


def _words(titles: pd.Series) -> pd.Series:
    """Return titles in lower case, in the composed Unicode form, without punctuation."""
    plain = titles.str.normalize("NFC").str.lower().str.replace(_NO_SUFFIX, " ", regex=True)
    words = pc.replace_substring_regex(texts.arrow(plain), _NO_WORD, " ")
    return pd.Series(words.to_pylist(), index=titles.index, dtype=titles.dtype).str.strip()


def _differ(number: pd.Series, base: pd.Series) -> BoolArray:
    """Return (n,) whether books with the same base have different numbers; "" is no number."""
    n = number[number != ""].groupby(base).nunique()
    return n.reindex(base).fillna(0).to_numpy() > 1


def merge_editions(books: pd.DataFrame, n_ratings: IntArray) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Keep the most rated edition of each work; of equally rated ones, the smallest id.

    Args:
        n_ratings: (n_books,) the number of ratings of each row of `books`.

    Returns:
        The kept books, sorted by book_id; their row numbers are the book codes. And `editions`:
        every raw book_id (int64) with the code `book` (int32) of the kept edition.
    """
    work = pd.factorize(work_keys(books))[0]
    ids = books["book_id"].to_numpy()
    order = np.lexsort((ids, -n_ratings, work))
    first = order[np.unique(work[order], return_index=True)[1]]
    kept_row = first[work]
    is_kept = kept_row == np.arange(len(books))
    code = (np.cumsum(is_kept) - 1)[kept_row].astype(np.int32)
    return books[is_kept].reset_index(drop=True), pd.DataFrame({"book_id": ids, "book": code})
