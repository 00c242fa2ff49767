"""Draw and write one part of the pairs (all pairs of some users); workers can repeat it safely."""

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
    from reranker.sampling.kernels import PairRows

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
    # Above its default of 1 MiB a dictionary page falls back to plain strings, one text per pair.
    "dictionary_pagesize_limit": 64 * 2**20,
    # Minima and maxima of texts are not useful, and take half of the writing time.
    "write_statistics": ["book_id", "label"],
}


@dataclass(frozen=True)
class Part:
    """The inputs for the pairs of some users; row i is user i of the part.

    Attributes:
        number: Number of the part, from 0.
        user: (n_users,) codes, ascending.
        user_id: (n_users,) str.
        positive: All positives of the users.
        choice: The books from which negatives are drawn.
        context: Context texts: one per user, or one per positive (leave_one_out).
        first_context: Code of the first context if there is one per positive; None if the code of
            a context is its user's code.
    """

    number: int
    user: IntArray
    user_id: pa.Array
    positive: UserBooks
    choice: Choice
    context: pa.Array
    first_context: int | None


@dataclass(frozen=True)
class WrittenPart:
    """The result of `write`.

    Attributes:
        name, rows, sha256: Name, number of rows and hash of the part file, which holds all pairs.
        is_kept: (rows,) bool, whether refinement keeps a pair; None if it keeps all.
        n_positives, n_pairs: Number of kept positives and pairs.
        counts: Number of negatives by source, and of draws that found no book.
    """

    name: str
    rows: int
    sha256: str
    is_kept: BoolArray | None
    n_positives: int
    n_pairs: int
    counts: dict[str, int]


def write(
    part: Part, *, cfg: SamplingConfig, books: Path, folder: Path, codes_folder: Path
) -> WrittenPart:
    """Draw the part's pairs and write `part-<number>.parquet` atomically in both folders.

    The file in `folder` has all pairs with texts. The file in `codes_folder` has the pairs that
    refinement keeps as codes: user, context, book int32, label, source int8; sorted by user, each
    positive before its negatives.

    Args:
        books: books.parquet of the tables, with book_id and book_text by book code.

    Raises:
        DataError: A user has too few books to draw from, and sampling.shortfall is `error`.
    """
    codes, row, context, is_kept, counts = draw(part, cfg)
    name = f"part-{part.number:05d}.parquet"
    _write(flat(part, codes, books, row=row, context=context), folder / name, **WRITE)
    if not is_kept.all():
        codes = {key: column[is_kept] for key, column in codes.items()}
    kept = pa.table(codes)
    # LZ4 without a dictionary of users is twice as fast as zstd to write, read and hash; the files
    # are 1.8 times as large.
    _write(kept, codes_folder / name, compression="lz4", use_dictionary=["book", "label", "source"])
    return WrittenPart(
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
    """Return the kept pairs of a part file, schema FLAT, without unused dictionary values."""
    texts = ["user_id", "user_ctx", "book_text"]
    table = pq.read_table(path, read_dictionary=texts).combine_chunks()
    if is_kept is not None:
        table = table.filter(pa.array(is_kept)).combine_chunks()
    columns = [column.chunk(0) for column in table.columns]
    columns = [
        _encoded(c.indices.to_numpy(), c.dictionary) if pa.types.is_dictionary(c.type) else c
        for c in columns
    ]
    return pa.Table.from_arrays(columns, schema=FLAT)


def with_texts(table: pa.Table, book_text: pa.Array) -> pa.Table:
    """Return a table of schema FLAT with other candidate texts, (n_pairs,)."""
    codes, distinct = _distinct(book_text.cast(pa.string()))
    index, field = FLAT.get_field_index("book_text"), FLAT.field("book_text")
    return table.set_column(index, field, _encoded(codes, distinct))


def draw(
    part: Part, cfg: SamplingConfig
) -> tuple[dict[str, IntArray], IntArray, IntArray, BoolArray, dict[str, int]]:
    """Draw the part's pairs.

    Refinement: a user with at least min_positives keeps max_positives of them, selected by hash,
    and each keeps the first negatives_per_positive of its negatives, which are in the order of
    their draws. These positives are drawn first, before the user's other positives. The kept pairs
    therefore do not depend on the others, and those of neg_ratio=3 are a subset of those of
    neg_ratio=5.

    Returns:
        Codes (user, context, book, label, source) of all pairs; (n_pairs,) indices of users and of
        contexts in the part; (n_pairs,) whether refinement keeps a pair; and counts.
    """
    from reranker.sampling import kernels

    n = np.bincount(part.positive.row, minlength=len(part.user))
    at_most = n if cfg.max_positives is None else np.minimum(n, cfg.max_positives)
    n_kept = np.where(n >= cfg.min_positives, at_most, 0)
    order = _order(part, cfg)
    drawn, source = negatives.draw(part.choice, n * cfg.neg_ratio, cfg)
    books = part.positive.book[order]
    ratios = cfg.neg_ratio, kept_negatives(cfg)
    columns = kernels.build_rows(n, n_kept, books, drawn, source, *ratios)
    rows = kernels.PairRows(*columns)
    counts = _count_negatives(part, cfg, n_kept, rows)
    context = rows.row if part.first_context is None else order[rows.positive].astype(np.int32)
    user = part.user.astype(np.int32)[rows.row]
    codes = {
        "user": user,
        "context": user if part.first_context is None else np.int32(part.first_context) + context,
        "book": rows.book,
        "label": rows.label,
        "source": rows.source,
    }
    return codes, rows.row, context, rows.is_kept, counts


def kept_negatives(cfg: SamplingConfig) -> int:
    """Return how many negatives of each kept positive refinement keeps."""
    n = cfg.negatives_per_positive
    return cfg.neg_ratio if n is None else n


def _order(part: Part, cfg: SamplingConfig) -> IntArray:
    """Return the order of the positives by (row, hash), in which refinement keeps them."""
    row = part.positive.row
    chance = bits(cfg.seed, "positives", part.choice.key[row], part.positive.book)
    n_bits = np.uint64(len(part.user).bit_length())
    # Row and hash in one integer need only one sort. It is stable, because the hashes lose bits.
    combined = row.astype(np.uint64) << (np.uint64(64) - n_bits) | chance >> n_bits
    return np.argsort(combined, kind="stable")


def _count_negatives(
    part: Part, cfg: SamplingConfig, n_kept: IntArray, rows: PairRows
) -> dict[str, int]:
    """Return the number of kept negatives by source, and of those that could not be drawn."""
    is_negative = rows.is_kept & (rows.label == 0)
    n_of_source = np.bincount(rows.source[is_negative], minlength=len(SOURCES))
    counts = {f"negatives_{name}": int(n_of_source[i]) for i, name in enumerate(SOURCES) if i}
    expected = n_kept * kept_negatives(cfg)
    counts["negatives_missing"] = int(expected.sum()) - int(is_negative.sum())
    if counts["negatives_missing"] and cfg.shortfall == "error":
        n_found = np.bincount(rows.row[is_negative], minlength=len(n_kept))
        u = int(np.flatnonzero(n_found < expected)[0])
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
    part: Part, codes: dict[str, IntArray], books: Path, *, row: IntArray, context: IntArray
) -> pa.Table:
    """Return the pairs with schema FLAT; dictionaries hold every text once, not once per pair."""
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
    """Return the id of every book, the code of its text, and the distinct texts."""
    table = pq.read_table(books, columns=["book_id", "book_text"])
    texts = table["book_text"].cast(pa.string()).combine_chunks()
    return table["book_id"].to_numpy(), *_distinct(texts)


def _distinct(texts: pa.Array) -> tuple[IntArray, pa.Array]:
    """Return the code of every text, and the distinct texts.

    Two users may have the same context text. For a dictionary with a repeated value Arrow 25 writes
    plain strings, after a dictionary page with uninitialised bytes: the files are larger and
    differ in each run.
    """
    encoded = texts.dictionary_encode()
    return encoded.indices.to_numpy(), encoded.dictionary


def _encoded(codes: IntArray, values: pa.Array) -> pa.DictionaryArray:
    """Return the values of the codes, with a dictionary of the used values only."""
    is_used = np.zeros(len(values), dtype=bool)
    is_used[codes] = True
    place = np.cumsum(is_used, dtype=np.int32) - np.int32(1)
    return pa.DictionaryArray.from_arrays(pa.array(place[codes]), values.filter(pa.array(is_used)))
