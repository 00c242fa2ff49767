"""Summarise a pairs file of any origin: rows, labels, users, lengths, repetitions, examples."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from reranker.reports.data.distributions import Distribution, distribution
from reranker.reports.pairs.examples import Example, Examples, Hashes
from reranker.sampling.pair_files import PairFile, PartFile

N_HEAD = 5
N_EXAMPLES = 4
TEXTS = ("user_ctx", "book_text")
DROPPED = "pairs_dropped_no_"
_PRIME = np.uint64(0x9E3779B97F4A7C15)

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairsSummary:
    """The numbers of a pairs file.

    Attributes:
        place: The file, folder or glob.
        parts, ignored: Its part files, and the files that are not parquet.
        digest: SHA-256 of the parts' content.
        columns: Type of every column; several types if the parts differ.
        dropped: Rows without a value that a pair needs, by column; each row counts once.
        n_null, n_blank: Null and blank values over all rows, by column.
        n: Numbers of rows, and of kept pairs, positives, negatives, users, contexts, books,
            duplicate_rows (rows equal to an earlier one), conflicts (one user and book with both
            labels), users_without_positives, users_without_negatives, users_with_several_contexts.
            A book is a book_id or, without one, a text.
        per_user: Distributions over users of positives, negatives and, for users with positives,
            negatives_per_positive.
        chars, words: Distributions over pairs, by text column.
        head: The first kept rows.
        examples: A few users, chosen by a hash of their ids.
    """

    place: str
    parts: list[PartFile]
    ignored: list[Path]
    digest: str
    columns: dict[str, str]
    dropped: dict[str, int]
    n_null: dict[str, int]
    n_blank: dict[str, int]
    n: dict[str, int]
    per_user: dict[str, Distribution]
    chars: dict[str, Distribution]
    words: dict[str, Distribution]
    head: list[dict[str, Any]]
    examples: Sequence[Example]

    def to_json(self) -> dict[str, Any]:
        """Return the summary as values of JSON; a distribution is its mean and quantiles."""
        lengths = {"per_user": self.per_user, "chars": self.chars, "words": self.words}
        return {
            "place": self.place,
            "digest": self.digest,
            "files": [
                {"name": str(part.path), "rows": part.rows, "bytes": part.bytes}
                for part in self.parts
            ],
            "ignored": [str(path) for path in self.ignored],
            "columns": self.columns,
            "n": self.n,
            "dropped": self.dropped,
            "null": self.n_null,
            "blank": self.n_blank,
            **{
                group: {name: values.stats() for name, values in named.items()}
                for group, named in lengths.items()
            },
            "head": self.head,
            "examples": [
                {
                    "user_id": example.user_id,
                    "user_ctx": example.context,
                    "positives": example.texts[1],
                    "negatives": example.texts[0],
                }
                for example in self.examples
            ],
        }


def summarise(pairs: PairFile) -> PairsSummary:
    """Return the numbers of a pairs file; the texts are read in batches.

    Memory grows by about 50 bytes per pair, because users, books and rows are compared as hashes
    of 64 bits.

    Raises:
        DataError: As `PairFile.tables`.

    Example:
        >>> summarise(read_pairs("pairs.parquet")).n["users"]
        225
    """
    counts: Counter[str] = Counter()
    head: list[dict[str, Any]] = []
    examples = Examples(N_EXAMPLES)
    batches = [_empty(pairs.schema)]
    for table in pairs.tables(counts):
        batch = _Batch.of(table)
        batches.append(batch)
        head += table.slice(0, N_HEAD - len(head)).to_pylist()
        examples.add(table, batch.user, batch.context)
    rows = _Batch.joined(batches)
    names = pairs.schema.names
    return PairsSummary(
        place=pairs.place,
        parts=pairs.parts,
        ignored=pairs.ignored,
        digest=pairs.digest,
        columns=_types(pairs.parts),
        dropped={
            key.removeprefix(DROPPED): n for key, n in counts.items() if key.startswith(DROPPED)
        },
        n_null={name: counts[f"null_{name}"] for name in names},
        n_blank={name: counts[f"blank_{name}"] for name in names},
        n={"rows": counts["pairs_in"], **_sizes(rows)},
        per_user=_per_user(rows),
        chars=_distributions(rows.chars),
        words=_distributions(rows.words),
        head=head,
        examples=examples.all(),
    )


@dataclass(frozen=True)
class _Batch:
    """The rows of a table as numbers, each (n_rows,); texts and ids are hashes."""

    user: Hashes
    context: Hashes
    book: Hashes
    row: Hashes
    label: npt.NDArray[np.int8]
    chars: dict[str, npt.NDArray[np.int32]]
    words: dict[str, npt.NDArray[np.int32]]

    @classmethod
    def of(cls, table: pa.Table) -> _Batch:
        label = table["label"].to_numpy()
        user, _ = _column(table["user_id"])
        context, context_lengths = _column(table["user_ctx"])
        text, text_lengths = _column(table["book_text"])
        book = text
        if "book_id" in table.column_names:
            has_id = table["book_id"].is_valid().to_numpy()
            book = np.where(has_id, _column(table["book_id"])[0], text)
        row = _mixed(user, context, book, text, label.astype(np.uint64))
        lengths = dict(zip(TEXTS, (context_lengths, text_lengths), strict=True))
        chars, words = ({name: found[i] for name, found in lengths.items()} for i in range(2))
        return cls(user, context, book, row, label, chars, words)

    @classmethod
    def joined(cls, batches: Sequence[_Batch]) -> _Batch:
        def all_of(name: str) -> Any:
            return np.concatenate([getattr(batch, name) for batch in batches])

        def lengths(name: str) -> dict[str, npt.NDArray[np.int32]]:
            found = [getattr(batch, name) for batch in batches]
            return {text: np.concatenate([of[text] for of in found]) for text in TEXTS}

        names = ("user", "context", "book", "row", "label")
        columns = {name: all_of(name) for name in names}
        return cls(**columns, chars=lengths("chars"), words=lengths("words"))


def _empty(schema: pa.Schema) -> _Batch:
    return _Batch.of(schema.empty_table())


def _column(
    column: pa.ChunkedArray,
) -> tuple[Hashes, tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]:
    """Return the hash, the characters and the words of every text; each distinct text once."""
    encoded = column.combine_chunks().dictionary_encode()
    code = pc.fill_null(encoded.indices, 0).to_numpy(zero_copy_only=False)
    texts = encoded.dictionary
    raw = texts.cast(pa.binary()).to_pylist()
    found = [hashlib.blake2b(text, digest_size=8).digest() for text in raw]
    hashes = np.frombuffer(b"".join(found), np.uint64)
    chars = pc.utf8_length(texts)
    words = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(texts)))
    sizes = [values.to_numpy(zero_copy_only=False).astype(np.int32) for values in (chars, words)]
    if not len(texts):  # no rows, or nulls only
        return np.zeros(len(code), np.uint64), (code.astype(np.int32), code.astype(np.int32))
    return hashes[code], (sizes[0][code], sizes[1][code])


def _mixed(*columns: Hashes) -> Hashes:
    """Return one hash of the hashes of each row."""
    out = np.zeros(len(columns[0]), np.uint64)
    for column in columns:
        out = (out ^ column) * _PRIME
        out ^= out >> np.uint64(29)
    return out


def _types(parts: Sequence[PartFile]) -> dict[str, str]:
    types: dict[str, dict[str, None]] = {}
    for part in parts:
        in_folders = dict.fromkeys(part.folder_values, "name of the folder")
        for name, kind in {**in_folders, **part.columns}.items():
            types.setdefault(name, {})[kind] = None
    return {name: " or ".join(kinds) for name, kinds in types.items()}


def _sizes(rows: _Batch) -> dict[str, int]:
    is_positive = rows.label == 1
    pair = _mixed(rows.user, rows.book)
    users, positives, negatives = (
        _n(rows.user[r]) for r in (slice(None), is_positive, ~is_positive)
    )
    contexts_of_users = _unique(_mixed(rows.user, rows.context), rows.user)
    return {
        "pairs": len(rows.label),
        "positives": int(is_positive.sum()),
        "negatives": int((~is_positive).sum()),
        "users": users,
        "contexts": _n(rows.context),
        "books": _n(rows.book),
        "duplicate_rows": len(rows.row) - _n(rows.row),
        "conflicts": len(np.intersect1d(pair[is_positive], pair[~is_positive])),
        "users_without_positives": users - positives,
        "users_without_negatives": users - negatives,
        "users_with_several_contexts": int((contexts_of_users > 1).sum()),
    }


def _n(values: Hashes) -> int:
    return len(np.unique(values))


def _unique(key: Hashes, user: Hashes) -> IntArray:
    """Return (n_users,) the number of distinct keys of every user."""
    first = np.unique(key, return_index=True)[1]
    return np.unique(user[first], return_counts=True)[1]


def _per_user(rows: _Batch) -> dict[str, Distribution]:
    user = np.unique(rows.user, return_inverse=True)[1]
    n_pairs = np.bincount(user)
    positives = np.bincount(user[rows.label == 1], minlength=len(n_pairs))
    negatives = n_pairs - positives
    has_positive = positives > 0
    ratio = negatives[has_positive] / positives[has_positive]
    return _distributions(
        {"positives": positives, "negatives": negatives, "negatives_per_positive": ratio}
    )


def _distributions(named: dict[str, Any]) -> dict[str, Distribution]:
    """Return the distributions of the names that have values."""
    return {name: distribution(values) for name, values in named.items() if len(values)}
