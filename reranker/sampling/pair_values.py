"""Convert a column of a pairs file: ids and texts to strings, labels to 0 and 1."""

from __future__ import annotations

from typing import Literal, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Kind = Literal["id", "text", "label"]
EXPECTED: dict[Kind, str] = {
    "id": "integers or text",
    "text": "text",
    "label": "0 and 1 as booleans, numbers or text",
}
MAX_EXACT = 2**53  # larger floats do not hold every integer
_TEXTS = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")


class BadValueError(Exception):
    """A value cannot be converted: its row in the column, the value, and what was expected."""

    def __init__(self, row: int, found: object, expected: str) -> None:
        super().__init__(f"row {row} is {found!r}; expected {expected}")
        self.row, self.found, self.expected = row, str(found)[:80], expected


def is_accepted(kind: Kind, stored: pa.DataType) -> bool:
    """Return whether a column of this Arrow type can be converted to the kind."""
    if pa.types.is_dictionary(stored):
        stored = stored.value_type
    if pa.types.is_null(stored) or _is_text(stored):  # a column of nulls only has the type null
        return True
    types = pa.types
    is_number = types.is_integer(stored) or types.is_floating(stored) or types.is_decimal(stored)
    return kind != "text" and (is_number or (kind == "label" and types.is_boolean(stored)))


def convert(kind: Kind, values: pa.Array) -> pa.Array:
    """Return ids and texts as strings, and labels as int8; nulls stay, NaN is null.

    Raises:
        BadValueError: The first value that has no such form.

    Example:
        >>> convert("id", pa.array([7.0, None])).to_pylist()
        ['7', None]
    """
    values = _plain(values)
    if kind == "label":
        return _labels(values)
    return values if pa.types.is_string(values.type) else _ids(values)


def is_blank(values: pa.Array) -> pa.Array:
    """Return whether a value is a text with nothing but white space; False for nulls."""
    if not pa.types.is_string(values.type):
        return pa.repeat(False, len(values))
    return pc.fill_null(pc.equal(pc.utf8_trim_whitespace(values), ""), False)


def _is_text(stored: pa.DataType) -> bool:
    return any(getattr(pa.types, f"is_{name}")(stored) for name in _TEXTS)


def _plain(values: pa.Array) -> pa.Array:
    """Return the values without dictionary, bytes as text, decimals and floats without NaN."""
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_null(values.type):
        return values.cast(pa.string())
    if pa.types.is_floating(values.type):
        values = values.cast(pa.float64())
        return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)
    return _utf8(values) if _is_text(values.type) else values


def _utf8(values: pa.Array) -> pa.Array:
    raw = values.cast(pa.binary())
    try:
        return raw.cast(pa.string())  # refuses bytes that are not UTF-8
    except pa.ArrowInvalid:
        _refuse_bytes(raw)


def _refuse_bytes(raw: pa.Array) -> NoReturn:
    for row, value in enumerate(raw):
        try:
            value.cast(pa.string())
        except pa.ArrowInvalid as error:
            raise BadValueError(row, value.as_py(), "text in UTF-8") from error
    raise AssertionError("every value is UTF-8")


def _ids(values: pa.Array) -> pa.Array:
    if not pa.types.is_integer(values.type):
        is_whole = pc.equal(values, pc.floor(values))
        if pa.types.is_floating(values.type):
            is_whole = pc.and_(is_whole, pc.less(pc.abs(values), MAX_EXACT))
        _refuse(values, is_whole, "an integer or text")
        whole = pa.int64() if pa.types.is_floating(values.type) else pa.decimal128(38, 0)
        values = values.cast(whole)
    return values.cast(pa.string())


def _labels(values: pa.Array) -> pa.Array:
    if pa.types.is_string(values.type):
        _refuse(values, pc.is_in(values, pa.array(["0", "1"])), "'0' or '1'")
    elif not pa.types.is_boolean(values.type):
        number = values.cast(pa.float64())
        _refuse(values, pc.is_in(number, pa.array([0.0, 1.0])), "0 or 1")
    return values.cast(pa.int8())


def _refuse(values: pa.Array, is_good: pa.Array, expected: str) -> None:
    """Raise with the first value that is bad and not null."""
    is_bad = pc.and_(values.is_valid(), pc.invert(pc.fill_null(is_good, False)))
    rows = np.flatnonzero(is_bad.to_numpy(zero_copy_only=False))
    if len(rows):
        row = int(rows[0])
        raise BadValueError(row, values[row].as_py(), expected)
