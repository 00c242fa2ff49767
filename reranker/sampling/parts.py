"""One part of the pairs: some users, whole, drawn and written by a pure function that any worker can run again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, digest_file
from reranker.config import SamplingConfig
from reranker.data.draws import BoolArray, IntArray, bits
from reranker.errors import DataError
from reranker.sampling import negatives
from reranker.sampling.negatives import SOURCES, Choice
from reranker.sampling.weighted import UserBooks

if TYPE_CHECKING:
    from reranker.sampling.kernels import Laid

FLAT = pa.schema(
    [
        ("user_id", pa.dictionary(pa.int32(), pa.string())),
        ("user_ctx", pa.dictionary(pa.int32(), pa.string())),
        ("book_id", pa.int64()),
        ("book_text", pa.dictionary(pa.int32(), pa.string())),
        ("label", pa.int8()),
    ]
)
WRITE = {
    "compression": COMPRESSION,
    # Above its default of 1 MiB a dictionary page falls back to plain strings, each text once for every pair.
    "dictionary_pagesize_limit": 64 * 2**20,
    # The least and the greatest of the texts tell a reader nothing, and take half of the time of writing.
    "write_statistics": ["book_id", "label"],
}


@dataclass(frozen=True)
class Part:
    """What the pairs of some users are made from; row i is user i of the part.

    Attributes:
        number: Of the part, from 0.
        user: (n_users,) codes, ascending.
        user_id: (n_users,) str.
        positive: All positives of the users.
        choice: What negatives are drawn from.
        context: Texts: one of each user, or one of each positive (leave_one_out).
        first_context: Where the contexts of a positive's own are numbered from; None: a context is its user's code.
    """

    number: int
    user: IntArray
    user_id: pa.Array
    positive: UserBooks
    choice: Choice
    context: pa.Array
    first_context: int | None


@dataclass(frozen=True)
class Written:
    """What `write` did.

    Attributes:
        name, rows, sha256: Of the part file, which holds all pairs.
        is_kept: (rows,) bool, what refinement keeps; None where it keeps all.
        n_positives, n_pairs: Kept.
        counts: Draws that found no book, or came from another source than asked for.
    """

    name: str
    rows: int
    sha256: str
    is_kept: BoolArray | None
    n_positives: int
    n_pairs: int
    counts: dict[str, int]


def write(
    part: Part, cfg: SamplingConfig, books: Path, folder: Path, codes_folder: Path
) -> Written:
    """Draw the part's pairs and write `part-<number>.parquet` in both folders, whole or not at all.

    All pairs as texts in `folder`, and those that refinement keeps as codes in `codes_folder`: user, context, book
    int32, label, source int8; by user, each positive before its negatives.

    Args:
        books: books.parquet of the tables: book_id, book_text by book code.

    Raises:
        DataError: A user has too few books to draw from, and sampling.shortfall is `error`.
    """
    codes, row, context, is_kept, counts = draw(part, cfg)
    name = f"part-{part.number:05d}.parquet"
    _write(flat(part, codes, row, context, books), folder / name, **WRITE)
    kept = (
        pa.table(codes)
        if is_kept.all()
        else pa.table({key: column[is_kept] for key, column in codes.items()})
    )
    # LZ4, without a dictionary of users: twice as fast as zstd to write, read and hash, for 1.8 times the bytes.
    _write(kept, codes_folder / name, compression="lz4", use_dictionary=["book", "label", "source"])
    return Written(
        name=name,
        rows=len(row),
        sha256=digest_file(folder / name),
        is_kept=None if kept.num_rows == len(row) else is_kept,
        n_positives=int(np.count_nonzero(kept["label"])),
        n_pairs=kept.num_rows,
        counts=counts,
    )


def _write(table: pa.Table, path: Path, **settings: Any) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(table, temp, **settings)
    os.replace(temp, path)


def refined(path: Path, is_kept: BoolArray | None) -> pa.Table:
    """The kept pairs of a part file, FLAT, with no text in a dictionary that none of them has."""
    table = pq.read_table(
        path, read_dictionary=["user_id", "user_ctx", "book_text"]
    ).combine_chunks()
    if is_kept is not None:
        table = table.filter(pa.array(is_kept)).combine_chunks()
    columns = [column.chunk(0) for column in table.columns]
    columns = [
        _encoded(c.indices.to_numpy(), c.dictionary) if pa.types.is_dictionary(c.type) else c
        for c in columns
    ]
    return pa.Table.from_arrays(columns, schema=FLAT)


def with_texts(table: pa.Table, book_text: pa.Array) -> pa.Table:
    """The pairs of a FLAT table with other candidate texts, (n_pairs,)."""
    codes, distinct = _distinct(book_text.cast(pa.string()))
    return table.set_column(
        FLAT.get_field_index("book_text"), FLAT.field("book_text"), _encoded(codes, distinct)
    )


def draw(
    part: Part, cfg: SamplingConfig
) -> tuple[dict[str, IntArray], IntArray, IntArray, BoolArray, dict[str, int]]:
    """The part's pairs as codes (user, context, book, label, source), places of users and contexts, which are kept.

    Refinement: a user with at least min_positives keeps max_positives of them, by hash; they are first in the order
    of drawing, and the user's other positives come after them. So kept pairs do not depend on the others, and those of
    neg_ratio=3 are among those of 5.
    """
    from reranker.sampling import kernels

    n = np.bincount(part.positive.row, minlength=len(part.user))
    n_kept = np.where(
        n >= cfg.min_positives,
        n if cfg.max_positives is None else np.minimum(n, cfg.max_positives),
        0,
    )
    order = _order(part, cfg)
    drawn, source = negatives.draw(part.choice, n * cfg.neg_ratio, cfg)
    laid = kernels.Laid(
        *kernels.build_rows(n, n_kept, part.positive.book[order], drawn, source, cfg.neg_ratio)
    )
    counts = _account(part, cfg, n_kept, laid)
    context = laid.row if part.first_context is None else order[laid.positive].astype(np.int32)
    user = part.user.astype(np.int32)[laid.row]
    codes = {
        "user": user,
        "context": user if part.first_context is None else np.int32(part.first_context) + context,
        "book": laid.book,
        "label": laid.label,
        "source": laid.source,
    }
    return codes, laid.row, context, laid.is_kept, counts


def _order(part: Part, cfg: SamplingConfig) -> IntArray:
    """Where the positives stand by (row, hash): in the order in which refinement keeps them."""
    row = part.positive.row
    chance = bits(cfg.seed, "positives", part.choice.key[row], part.positive.book)
    n_bits = np.uint64(len(part.user).bit_length())
    # Row and hash in one integer, for one sort; a stable one, for the hashes lose some bits.
    return np.argsort(
        row.astype(np.uint64) << (np.uint64(64) - n_bits) | chance >> n_bits, kind="stable"
    )


def _account(part: Part, cfg: SamplingConfig, n_kept: IntArray, laid: Laid) -> dict[str, int]:
    """Kept negatives by source, and how many could not be drawn."""
    is_negative = laid.is_kept & (laid.label == 0)
    n_of_source = np.bincount(laid.source[is_negative], minlength=len(SOURCES))
    counts = {f"negatives_{name}": int(n_of_source[i]) for i, name in enumerate(SOURCES) if i}
    counts["negatives_missing"] = int(n_kept.sum()) * cfg.neg_ratio - int(is_negative.sum())
    if counts["negatives_missing"] and cfg.shortfall == "error":
        n_found = np.bincount(laid.row[is_negative], minlength=len(n_kept))
        u = int(np.flatnonzero(n_found < n_kept * cfg.neg_ratio)[0])
        raise DataError(
            f"sampling.neg_ratio={cfg.neg_ratio}: user_id={part.user_id[u].as_py()} has too few "
            f"books for distinct negatives (of {part.choice.n_books} books, "
            f"{int((part.choice.rated.row == u).sum())} are rated and "
            f"{int((part.choice.near.row == u).sum())} are reserved for the retriever). Lower "
            "sampling.neg_ratio, sampling.max_positives or sampling.retriever_depth, or set "
            "sampling.shortfall=truncate."
        )
    return counts


def flat(
    part: Part, codes: dict[str, IntArray], row: IntArray, context: IntArray, books: Path
) -> pa.Table:
    """Pairs in the seed's schema, FLAT: every text stands once in a dictionary, not once for each pair."""
    book_id, book_code, book_text = _catalogue(books)
    book = np.asarray(codes["book"])
    context_code, context_text = _distinct(part.context)
    columns = [
        _encoded(row, part.user_id),
        _encoded(context_code[context], context_text),
        pa.array(book_id[book]),
        _encoded(book_code[book], book_text),
        pa.array(np.asarray(codes["label"])),
    ]
    return pa.Table.from_arrays(columns, schema=FLAT)


@lru_cache(maxsize=2)
def _catalogue(books: Path) -> tuple[IntArray, IntArray, pa.Array]:
    """The id of every book, the code of its text, and the texts, each once."""
    table = pq.read_table(books, columns=["book_id", "book_text"])
    return table["book_id"].to_numpy(), *_distinct(
        table["book_text"].cast(pa.string()).combine_chunks()
    )


def _distinct(texts: pa.Array) -> tuple[IntArray, pa.Array]:
    """The code of every text, and the texts, each once.

    Two users may have one context text. Of a dictionary with a repeated value Arrow 25 writes plain strings and, before
    them, a dictionary page whose last bytes it never set: larger files, of other bytes each time.
    """
    encoded = texts.dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def _encoded(codes: IntArray, values: pa.Array) -> pa.DictionaryArray:
    """Distinct values by code, with a dictionary of those that come up."""
    is_used = np.zeros(len(values), dtype=bool)
    is_used[codes] = True
    place = np.cumsum(is_used, dtype=np.int32) - np.int32(1)
    return pa.DictionaryArray.from_arrays(pa.array(place[codes]), values.filter(pa.array(is_used)))
