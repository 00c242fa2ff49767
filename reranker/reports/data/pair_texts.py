"""Read the texts of a pairs file once: contexts, lengths, missing values and a few rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from reranker.data.draws import BoolArray, IntArray

PAIR = ("user_ctx", "book_text")
TEXTS = ("user_id", *PAIR)
COLUMNS = ("user_id", "user_ctx", "book_id", "book_text", "label")

CountTokens = Callable[[list[str]], IntArray]


@dataclass(frozen=True)
class PairTexts:
    """Properties of the texts of the pairs; a null has length 0.

    Attributes:
        context: (n_pairs,) number of a pair's context, from 0. Consecutive rows with the same user
            and user_ctx have the same context.
        chars: (n_pairs,) characters of `user_ctx` and of `book_text`.
        tokens: (n_measured,) tokens of both, for the measured rows.
        n_null: Number of nulls by column.
        n_blank: Number of rows with only white space, by text column.
        shown: (user_ctx, book_text) of the shown rows, by row number.
    """

    context: IntArray
    chars: dict[str, IntArray]
    tokens: dict[str, IntArray]
    n_null: dict[str, int] = field(default_factory=dict)
    n_blank: dict[str, int] = field(default_factory=dict)
    shown: dict[int, tuple[str, str]] = field(default_factory=dict)


def read_texts(
    path: Path, user: IntArray, count_tokens: CountTokens, *, measured: BoolArray, shown: IntArray
) -> PairTexts:
    """Read the texts of a pairs file, one row group at a time.

    The tokens of each distinct text are counted once.

    Args:
        path: The pairs with the columns COLUMNS: a file, or a folder of part files.
        user: (n_pairs,) user codes of its rows, in the file's order.
        count_tokens: Returns the number of tokens of each text, without special tokens.
        measured: (n_pairs,) rows whose tokens are counted.
        shown: Numbers of the rows whose texts are returned.
    """
    n = len(user)
    chars: dict[str, IntArray] = {name: np.empty(n, np.int32) for name in PAIR}
    n_null, n_blank = dict.fromkeys(COLUMNS, 0), dict.fromkeys(TEXTS, 0)
    texts = PairTexts(np.empty(n, np.int32), chars, {}, n_null, n_blank)
    distinct = {name: DistinctTexts() for name in PAIR}
    contexts = ContextNumbers()
    for rows, columns in _row_groups(path):
        coded = {name: CodedColumn.from_chunks(columns[name]) for name in TEXTS}
        _count_missing(columns, coded, texts)
        texts.context[rows] = contexts.next(user[rows], coded["user_ctx"])
        wanted = np.flatnonzero(measured[rows])
        for name in PAIR:
            texts.chars[name][rows] = coded[name].per_row(pc.utf8_length(coded[name].values))
            distinct[name].add(coded[name], wanted)
        for row in shown[(shown >= rows.start) & (shown < rows.stop)].tolist():
            context, book = (coded[name].text(row - rows.start) for name in PAIR)
            texts.shown[row] = (context, book)
    texts.tokens.update({name: found.tokens(count_tokens) for name, found in distinct.items()})
    return texts


def _row_groups(path: Path) -> Iterator[tuple[slice, pa.Table]]:
    start = 0
    for part in sorted(path.glob("*.parquet")) if path.is_dir() else [path]:
        file = pq.ParquetFile(part, read_dictionary=list(TEXTS))
        for group in range(file.num_row_groups):
            columns = file.read_row_group(group, columns=list(COLUMNS))
            yield slice(start, start + len(columns)), columns
            start += len(columns)


def _count_missing(columns: pa.Table, coded: dict[str, CodedColumn], texts: PairTexts) -> None:
    for name in COLUMNS:
        texts.n_null[name] += columns[name].null_count
    for name, column in coded.items():
        blank = pc.equal(pc.utf8_trim_whitespace(column.values), "")
        texts.n_blank[name] += int(column.per_row(blank).sum())


@dataclass(frozen=True)
class CodedColumn:
    """A column of texts as codes: a row's text is `values[index]`; a null has the code -1."""

    index: IntArray
    values: pa.Array

    @classmethod
    def from_chunks(cls, column: pa.ChunkedArray) -> CodedColumn:
        """Return the column with one dictionary for all its chunks."""
        chunks = column.unify_dictionaries().chunks
        index = [pc.fill_null(chunk.indices, -1).to_numpy(zero_copy_only=False) for chunk in chunks]
        return cls(np.concatenate(index), chunks[0].dictionary)

    def per_row(self, of_value: pa.Array) -> IntArray:
        """Return (n_rows,) the entry of `of_value` of each row's text; 0 for a null."""
        values = np.append(of_value.to_numpy(zero_copy_only=False).astype(np.int32), 0)
        return values[self.index]

    def text(self, row: int) -> str:
        """Return a row's text; an empty text for a null."""
        return self.text_of(int(self.index[row]))

    def text_of(self, code: int) -> str:
        """Return the text of a code; an empty text for -1."""
        return "" if code < 0 else str(self.values[code])


class DistinctTexts:
    """The distinct texts of some rows, across row groups."""

    def __init__(self) -> None:
        self.number: dict[str, int] = {}
        self.rows: list[IntArray] = []

    def add(self, column: CodedColumn, rows: IntArray) -> None:
        """Add the texts of some rows of a column; a null counts as an empty text."""
        used, place = np.unique(column.index[rows], return_inverse=True)
        texts = (column.text_of(code) for code in used.tolist())
        numbers = [self.number.setdefault(text, len(self.number)) for text in texts]
        self.rows.append(np.array(numbers, dtype=np.int64)[place])

    def tokens(self, count_tokens: CountTokens) -> IntArray:
        """Return (n_rows,) tokens of all rows that were added, in their order."""
        return np.asarray(count_tokens(list(self.number)))[np.concatenate(self.rows)]


@dataclass
class ContextNumbers:
    """Numbers the contexts of consecutive rows; a context may continue in the next row group."""

    user: int = -1
    text: str | None = None
    number: int = -1

    def next(self, user: IntArray, context: CodedColumn) -> IntArray:
        """Return (n_rows,) the context numbers of the next rows."""
        new = np.empty(len(user), bool)
        new[0] = (int(user[0]), context.text(0)) != (self.user, self.text)
        new[1:] = (user[1:] != user[:-1]) | (context.index[1:] != context.index[:-1])
        numbers = self.number + np.cumsum(new)
        self.user, self.text = int(user[-1]), context.text(len(user) - 1)
        self.number = int(numbers[-1])
        return numbers
