"""One pass over the pairs file: contexts, lengths, blanks, and the texts of a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.data.draws import IntArray

PAIR = ("user_ctx", "book_text")
TEXTS = ("user_id", *PAIR)
COLUMNS = ("user_id", "user_ctx", "book_id", "book_text", "label")

CountTokens = Callable[[list[str]], IntArray]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Texts:
    """What the texts of the pairs are like; a null counts as length 0.

    Attributes:
        context: (n_pairs,) number of a pair's context, from 0. One context is a stretch of rows of one user and one
            user_ctx.
        chars: (n_pairs,) characters of `user_ctx` and of `book_text`.
        tokens: (n_measured,) tokens of both, for the rows that were asked for.
        n_null: Nulls by column.
        n_blank: Rows by text column that hold nothing but white space.
        shown: (user_ctx, book_text) of the rows that were asked for.
    """

    context: IntArray
    chars: dict[str, IntArray]
    tokens: dict[str, IntArray]
    n_null: dict[str, int] = field(default_factory=dict)
    n_blank: dict[str, int] = field(default_factory=dict)
    shown: dict[int, tuple[str, str]] = field(default_factory=dict)


def read_texts(
    path: Path, user: IntArray, count: CountTokens, *, measured: BoolArray, shown: IntArray
) -> Texts:
    """The texts of a pairs file, a row group at a time; a text's tokens are counted once, its characters once a group.

    Args:
        path: The pairs in the seed's schema: a file, or a folder of part files.
        user: (n_pairs,) user codes of its rows, in its order.
        count: Tokens of texts, without special tokens.
        measured: (n_pairs,) rows whose tokens are counted.
        shown: Row numbers whose texts are wanted.
    """
    n = len(user)
    chars: dict[str, IntArray] = {name: np.empty(n, np.int32) for name in PAIR}
    texts = Texts(
        np.empty(n, np.int32), chars, {}, dict.fromkeys(COLUMNS, 0), dict.fromkeys(TEXTS, 0)
    )
    distinct = {name: Distinct() for name in PAIR}
    last = Last()
    for rows, columns in _row_groups(path):
        coded = {name: Coded.of(columns[name]) for name in TEXTS}
        _count_missing(columns, coded, texts)
        texts.context[rows] = last.number(user[rows], coded["user_ctx"])
        wanted = np.flatnonzero(measured[rows])
        for name in PAIR:
            texts.chars[name][rows] = coded[name].per_row(pc.utf8_length(coded[name].values))
            distinct[name].add(coded[name], wanted)
        for row in shown[(shown >= rows.start) & (shown < rows.stop)].tolist():
            context, book = (coded[name].text(row - rows.start) for name in PAIR)
            texts.shown[row] = (context, book)
    texts.tokens.update({name: found.tokens(count) for name, found in distinct.items()})
    return texts


def _row_groups(path: Path) -> Iterator[tuple[slice, pa.Table]]:
    start = 0
    for part in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        file = pq.ParquetFile(part, read_dictionary=list(TEXTS))
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=list(COLUMNS))
            yield slice(start, start + len(columns)), columns
            start += len(columns)


def _count_missing(columns: pa.Table, coded: dict[str, Coded], texts: Texts) -> None:
    for name in COLUMNS:
        texts.n_null[name] += columns[name].null_count
    for name, column in coded.items():
        blank = pc.equal(pc.utf8_trim_whitespace(column.values), "")
        texts.n_blank[name] += int(column.per_row(blank).sum())


@dataclass(frozen=True)
class Coded:
    """A column of texts as codes: the row's text is `values[index]`; a null has the code -1."""

    index: IntArray
    values: pa.Array

    @classmethod
    def of(cls, column: pa.ChunkedArray) -> Coded:
        """The column with one dictionary for all of its chunks."""
        chunks = column.unify_dictionaries().chunks
        index = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in chunks]
        return cls(np.concatenate(index), chunks[0].dictionary)

    def per_row(self, of_value: pa.Array) -> IntArray:
        """(n_rows,) what a text's value is, 0 for a null."""
        values = np.append(of_value.to_numpy(zero_copy_only=False).astype(np.int32), 0)
        return values[self.index]

    def text(self, row: int) -> str:
        """A row's text; empty for a null."""
        return self.text_of(int(self.index[row]))

    def text_of(self, code: int) -> str:
        """A code's text; empty for -1."""
        return "" if code < 0 else str(self.values[code])


class Distinct:
    """The texts of some rows, each once, whatever row groups they come from."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.rows: list[IntArray] = []

    def add(self, column: Coded, rows: IntArray) -> None:
        """Take in the rows given of a column; a null is an empty text."""
        used, place = np.unique(column.index[rows], return_inverse=True)
        numbers = [
            self.number.setdefault(column.text_of(code), len(self.number)) for code in used.tolist()
        ]
        self.rows.append(np.array(numbers, dtype=np.int64)[place])

    def tokens(self, count: CountTokens) -> IntArray:
        """(n_rows,) tokens of all rows that were taken in, in their order."""
        return np.asarray(count(list(self.number)))[np.concatenate(self.rows)]


@dataclass
class Last:
    """The context of the last row, so that one that spans two row groups keeps its number."""

    user: int = -1
    text: str | None = None
    context: int = -1

    def number(self, user: IntArray, context: Coded) -> IntArray:
        """(n_rows,) numbers of the contexts of the next rows."""
        new = np.empty(len(user), bool)
        new[0] = (int(user[0]), context.text(0)) != (self.user, self.text)
        new[1:] = (user[1:] != user[:-1]) | (context.index[1:] != context.index[:-1])
        numbers = self.context + np.cumsum(new)
        self.user, self.text, self.context = (
            int(user[-1]),
            context.text(len(user) - 1),
            int(numbers[-1]),
        )
        return numbers
