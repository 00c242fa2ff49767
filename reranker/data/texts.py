"""Columns of texts as Arrow arrays: cleaned, freed of HTML, joined by row, and filled into a template."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.draws import IntArray
from reranker.templates import Part

TEXT = pa.large_string()  # 64-bit offsets: a column of book texts passes 2 GiB
NULL_WORDS = (
    "nan",
    "NaN",
    "None",
    "null",
    "NULL",
    "<NA>",
)  # a missing value that went through str()

# What str.split() splits at, where it is more than single spaces inside the text.
_UNTIDY = r"^ | $|  |[\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]"
_BLOCKS = (
    "address|article|blockquote|br|center|dd|div|dl|dt|figure|footer|form|h[1-6]|header|hr|li|ol|p|pre|section|table|"
    "td|th|tr|ul"
)
# In this order; RE2 takes linear time, where Python's html.parser of 3.11 raises on `<![x` and is quadratic.
_MARKUP = (
    (r"(?s)<!--.*?-->", " "),
    (r"(?is)<script\b.*?</script\s*>", " "),
    (r"(?is)<style\b.*?</style\s*>", " "),
    (rf"(?i)</?(?:{_BLOCKS})(?:[\s/][^<>]*)?>", " "),
    (r"</?[a-zA-Z][^<>]*>|<![a-zA-Z\[][^<>]*>", ""),
)


def arrow(column: Sequence[str] | pd.Series | pa.ChunkedArray | pa.Array) -> pa.Array:
    """The texts as one Arrow array of type TEXT."""
    values = column if isinstance(column, pa.ChunkedArray | pa.Array) else pa.array(column, TEXT)
    values = values.cast(TEXT)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def clean(texts: pa.Array) -> pa.Array:
    """The texts with single spaces only and none at the ends; nulls and NULL_WORDS as empty texts."""
    tidy = _mend(pc.fill_null(arrow(texts), ""), _UNTIDY, lambda text: " ".join(text.split()))
    return pc.if_else(pc.is_in(tidy, value_set=pa.array(NULL_WORDS, TEXT)), "", tidy)


def strip_html(texts: pa.Array) -> pa.Array:
    """The texts without HTML: no tags, comments, scripts or styles, and characters in place of entities.

    A tag that breaks lines gives a space, any other nothing. A `<` that opens no tag stays.
    """
    out = arrow(texts)
    for pattern, by in _MARKUP:
        out = pc.replace_substring_regex(out, pattern, by)
    return _mend(out, "&", html.unescape)


def _mend(texts: pa.Array, pattern: str, mend: Callable[[str], str]) -> pa.Array:
    """Apply `mend` to the texts that match, which are few: the others never become Python objects."""
    found = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    mended = [mend(text) for text in texts.filter(found).to_pylist()]
    return pc.replace_with_mask(texts, found, pa.array(mended, TEXT)) if mended else texts


def join(row: IntArray, values: pa.Array, n_rows: int, separator: str) -> pa.Array:
    """(n_rows,) the values of each row with the separator between them; empty where a row has none.

    Args:
        row: (n_values,) ascending.
    """
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.cast(TEXT))
    return pc.binary_join(lists, pa.scalar(separator, TEXT))


def fill(parts: Sequence[Part], values: Mapping[str, pa.Array]) -> pa.Array:
    """(n_rows,) texts: the parts in order, without those whose value is empty; no gap stands before the first.

    Args:
        values: Field -> (n_rows,) texts without nulls.
    """
    n_rows = len(next(iter(values.values())))
    everywhere = pa.array(np.ones(n_rows, dtype=bool))
    started = pa.array(np.zeros(n_rows, dtype=bool))
    pieces = []
    for part in parts:
        value = values[part.field] if part.field else None
        stands = everywhere if value is None else pc.not_equal(value, "")
        pieces.append(_where(stands, _where(started, part.gap + part.before, part.before), ""))
        pieces += [] if value is None else [value]
        pieces += [_where(stands, part.after, "")] if part.after else []
        started = pc.or_(started, stands)
    return pc.binary_join_element_wise(*pieces, pa.scalar("", TEXT))


def _where(condition: pa.Array, yes: pa.Array | str, no: str) -> pa.Array:
    return pc.if_else(
        condition, pa.scalar(yes, TEXT) if isinstance(yes, str) else yes, pa.scalar(no, TEXT)
    )
