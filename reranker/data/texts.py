"""Operations on columns of texts as Arrow arrays: clean, strip HTML, join, fill a template."""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from reranker.data.draws import IntArray
from reranker.templates import Part

TEXT = pa.large_string()  # 64-bit offsets: a column of book texts may exceed 2 GiB
# How str() writes a missing value.
NULL_WORDS = ("nan", "NaN", "None", "null", "NULL", "<NA>")

# White space of str.split(), other than single spaces inside the text.
_UNTIDY = (
    r"^ | $|  |[\t-\r\x1c-\x1f\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}"
    r"\x{205f}\x{3000}]"
)
_BLOCKS = (
    "address|article|blockquote|br|center|dd|div|dl|dt|figure|footer|form|h[1-6]|header|hr|li|ol|p|"
    "pre|section|table|td|th|tr|ul"
)
# Pattern and replacement, applied in this order. RE2 takes linear time; html.parser of Python 3.11
# takes quadratic time and raises on `<![x`.
_MARKUP = (
    (r"(?s)<!--.*?-->", " "),
    (r"(?is)<script\b.*?</script\s*>", " "),
    (r"(?is)<style\b.*?</style\s*>", " "),
    (rf"(?i)</?(?:{_BLOCKS})(?:[\s/][^<>]*)?>", " "),
    (r"</?[a-zA-Z][^<>]*>|<![a-zA-Z\[][^<>]*>", ""),
)


def arrow(column: Sequence[str] | pd.Series | pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return the texts as one Arrow array of type TEXT."""
    values = column if isinstance(column, pa.ChunkedArray | pa.Array) else pa.array(column, TEXT)
    values = values.cast(TEXT)
    return values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values


def clean(texts: pa.Array) -> pa.Array:
    """Return the texts with single spaces, stripped; nulls and NULL_WORDS become empty texts."""
    tidy = _map_matching(
        pc.fill_null(arrow(texts), ""), _UNTIDY, lambda text: " ".join(text.split())
    )
    return pc.if_else(pc.is_in(tidy, value_set=pa.array(NULL_WORDS, TEXT)), "", tidy)


def strip_html(texts: pa.Array) -> pa.Array:
    """Return the texts without tags, comments, scripts and styles, and with entities decoded.

    A tag that breaks lines becomes a space, any other tag is removed. A `<` that does not begin a
    tag stays.
    """
    out = arrow(texts)
    for pattern, replacement in _MARKUP:
        out = pc.replace_substring_regex(out, pattern, replacement)
    return _map_matching(out, "&", html.unescape)


def _map_matching(texts: pa.Array, pattern: str, function: Callable[[str], str]) -> pa.Array:
    """Apply a function to the texts that match; the others, usually most, stay in Arrow."""
    found = pc.fill_null(pc.match_substring_regex(texts, pattern), False)
    changed = [function(text) for text in texts.filter(found).to_pylist()]
    return pc.replace_with_mask(texts, found, pa.array(changed, TEXT)) if changed else texts


def join(row: IntArray, values: pa.Array, n_rows: int, separator: str) -> pa.Array:
    """Return (n_rows,) texts: the joined values of each row, empty for a row without values.

    Args:
        row: (n_values,) row numbers, ascending.
        values: (n_values,) texts.
    """
    offsets = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=n_rows))])
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values.cast(TEXT))
    return pc.binary_join(lists, pa.scalar(separator, TEXT))


def fill(parts: Sequence[Part], values: Mapping[str, pa.Array]) -> pa.Array:
    """Return (n_rows,) texts: the parts of a template in order, filled with values.

    A part whose value is empty is left out, and the first part has no gap before it.

    Args:
        values: Field -> (n_rows,) texts without nulls.
    """
    n_rows = len(next(iter(values.values())))
    everywhere = pa.array(np.ones(n_rows, dtype=bool))
    started = pa.array(np.zeros(n_rows, dtype=bool))
    pieces = []
    for part in parts:
        value = values[part.field] if part.field else None
        present = everywhere if value is None else pc.not_equal(value, "")
        pieces.append(_where(present, _where(started, part.gap + part.before, part.before), ""))
        pieces += [] if value is None else [value]
        pieces += [_where(present, part.after, "")] if part.after else []
        started = pc.or_(started, present)
    return pc.binary_join_element_wise(*pieces, pa.scalar("", TEXT))


def _where(condition: pa.Array, yes: pa.Array | str, no: str) -> pa.Array:
    """Return (n_rows,) texts: `yes` where the condition holds, else `no`."""
    chosen = pa.scalar(yes, TEXT) if isinstance(yes, str) else yes
    return pc.if_else(condition, chosen, pa.scalar(no, TEXT))
