"""One part of the pairs: some users, whole, drawn and written by a pure function that any worker can run again."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, digest_file
from reranker.config import SamplingConfig
from reranker.data.draws import IntArray, bits, ranges
from reranker.errors import DataError
from reranker.sampling import negatives
from reranker.sampling.negatives import SOURCES, Choice
from reranker.sampling.weighted import MISSING, Shelf

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
    positive: Shelf
    choice: Choice
    context: pa.Array
    first_context: int | None


@dataclass(frozen=True)
class Written:
    """What `write` did: a part file of all pairs, and the codes of those that refinement keeps.

    Attributes:
        name, rows, sha256: Of the part file.
        kept: user, context, book int32, label, source int8; by user, each positive before its negatives.
        row, context: (n_kept rows,) places of the user and of the context in the part.
        counts: Draws that found no book, or came from another source than asked for.
    """

    name: str
    rows: int
    sha256: str
    kept: pd.DataFrame
    row: IntArray
    context: IntArray
    counts: dict[str, int]


def write(part: Part, cfg: SamplingConfig, books: Path, folder: Path) -> Written:
    """Draw the part's pairs and write them to `folder/part-<number>.parquet`, whole or not at all.

    Args:
        books: books.parquet of the tables: book_id, book_text by book code.

    Raises:
        DataError: A user has too few books to draw from, and sampling.shortfall is `error`.
    """
    codes, row, context, is_kept, counts = draw(part, cfg)
    path = folder / f"part-{part.number:05d}.parquet"
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    pq.write_table(flat(part, codes, row, context, books), temp, **WRITE)
    os.replace(temp, path)
    kept = pd.DataFrame({name: column[is_kept] for name, column in codes.items()})
    return Written(path.name, len(row), digest_file(path), kept, row[is_kept], context[is_kept], counts)


def draw(part: Part, cfg: SamplingConfig) -> tuple[dict[str, IntArray], IntArray, IntArray, np.ndarray, dict[str, int]]:
    """The part's pairs as codes (user, context, book, label, source), places of users and contexts, which are kept.

    Refinement: a user with at least min_positives keeps max_positives of them, by hash; they are first in the order
    of drawing, slot by slot (the first negative of each, then the second of each), and the user's other positives come
    after them. So kept pairs do not depend on the others, and those of neg_ratio=3 are among those of 5.
    """
    row, book, place, n_kept, origin = _ordered(part, cfg)
    n_positives = np.bincount(row, minlength=len(part.user))
    k = n_positives * cfg.neg_ratio
    drawn, source = negatives.draw(part.choice, k, cfg)
    turn = _turn(place[:, None], np.arange(cfg.neg_ratio), n_kept[row][:, None], n_positives[row][:, None])
    turn += (np.cumsum(k) - k)[row][:, None]
    negative, source = drawn[turn], source[turn]
    is_kept = place < n_kept[row]
    counts = _account(part, cfg, row, negative, source, is_kept)
    keep = np.column_stack([np.ones(len(row), dtype=bool), negative != MISSING])
    n_pairs = keep.sum(axis=1)
    p = np.repeat(np.arange(len(row)), n_pairs)
    user, context = row[p], row[p] if part.first_context is None else origin[p]
    numbers = part.user[user] if part.first_context is None else part.first_context + context
    codes = {
        "user": part.user[user].astype(np.int32),
        "context": numbers.astype(np.int32),
        "book": np.column_stack([book, negative])[keep].astype(np.int32),
        "label": (ranges(n_pairs) == 0).astype(np.int8),
        "source": np.column_stack([np.zeros(len(row), dtype=np.int8), source])[keep],
    }
    return codes, user, context, is_kept[p], counts


def _ordered(part: Part, cfg: SamplingConfig) -> tuple[IntArray, IntArray, IntArray, IntArray, IntArray]:
    """Positives by (row, hash): row, book, place in the row, how many each row keeps, where they stood before."""
    row, book = part.positive.row, part.positive.book
    chance = bits(cfg.seed, "positives", part.choice.key[row], book)
    n_bits = np.uint64(len(part.user).bit_length())
    # Row and hash in one integer, for one sort; a stable one, for the hashes lose some bits.
    order = np.argsort(row.astype(np.uint64) << (np.uint64(64) - n_bits) | chance >> n_bits, kind="stable")
    n = np.bincount(row, minlength=len(part.user))
    n_kept = np.where(n >= cfg.min_positives, n if cfg.max_positives is None else np.minimum(n, cfg.max_positives), 0)
    return row, book[order], ranges(n), n_kept, order


def _turn(place: IntArray, slot: IntArray, n_kept: IntArray, n: IntArray) -> IntArray:
    """When negative `slot` of positive `place` is drawn among all draws of its user."""
    kept = slot * n_kept + place
    other = len(slot) * n_kept + slot * (n - n_kept) + place - n_kept
    return np.where(place < n_kept, kept, other)


def _account(
    part: Part, cfg: SamplingConfig, row: IntArray, negative: IntArray, source: IntArray, is_kept: np.ndarray
) -> dict[str, int]:
    short = np.flatnonzero(is_kept & (negative == MISSING).any(axis=1))
    if len(short) and cfg.shortfall == "error":
        u = row[short[0]]
        raise DataError(
            f"sampling.neg_ratio={cfg.neg_ratio}: user_id={part.user_id[u].as_py()} has too few books to draw distinct "
            f"negatives from (of {part.choice.n_books}, {int((part.choice.rated.row == u).sum())} are rated and "
            f"{int((part.choice.near.row == u).sum())} kept for the retriever). Lower sampling.neg_ratio, "
            "sampling.max_positives or sampling.retriever_depth, or set sampling.shortfall=truncate."
        )
    mine, found = negative[is_kept], source[is_kept]
    counts = {f"negatives_{name}": int((found[mine != MISSING] == i).sum()) for i, name in enumerate(SOURCES) if i}
    return counts | {"negatives_missing": int((mine == MISSING).sum())}


def flat(
    part: Part, codes: dict[str, IntArray] | pd.DataFrame, row: IntArray, context: IntArray, books: Path
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
    return table["book_id"].to_numpy(), *_distinct(table["book_text"].cast(pa.string()).combine_chunks())


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
