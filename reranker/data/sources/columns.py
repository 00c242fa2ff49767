"""Read columns of any Arrow type as ids, texts, numbers, times or lists; refuse other types."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reranker.errors import DataError

TEXT = pa.large_string()
# Texts that stand for a missing number, in lower case and without spaces around them.
MISSING = pa.array(["", "nan", "null", "none", "<na>", "nat"], TEXT)
EXACT = 2.0**53  # doubles represent every integer up to this one
# Python joins adjacent literals, so ['a' 'b'], as numpy writes an array, would be read as ['ab'].
_ADJACENT = re.compile(r"""['"]\s+['"]""")
_INTEGER = r"^[+-]?[0-9]+(\.0*)?$"
_NUMBER = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"


class _UnreadableError(Exception):
    """A type, or the value of a row, that a kind does not accept."""

    def __init__(self, found: str = "", row: int | None = None) -> None:
        super().__init__(found)
        self.row = row


@dataclass(frozen=True)
class Kind:
    """How to read a column.

    Attributes:
        expected: What the column must be, for messages.
        read: Returns the values of an array in the kind's own type.
        usual: Spellings of the documented types; values of other spellings are counted.
    """

    expected: str
    read: Callable[[pa.Array], pa.Array]
    usual: tuple[str, ...]


def read_column(
    array: pa.Array, kind: Kind, *, file: str, column: str, first_row: int = 0
) -> tuple[pa.Array, Counter[str]]:
    """Return the values in the kind's own type, and the number of converted values by spelling.

    Args:
        array: Any Arrow type.
        kind: How to read it.
        file, column: Where the array comes from, for messages.
        first_row: Number of the array's first row in the file.

    Raises:
        DataError: The kind does not accept the type or a value; the first such row is named.

    Example:
        >>> ids = pa.array(["7", "8.0", None])
        >>> values, converted = read_column(ids, ID, file="books.parquet", column="book_id")
        >>> values.to_pylist(), dict(converted)
        ([7, 8, None], {'text': 2})
    """
    where = f"{file}: column {column} must be {kind.expected}, but is {array.type}"
    try:
        values = kind.read(array)
    except _UnreadableError as error:
        if error.row is None:
            raise DataError(f"{where}.") from error
        row = f"row {first_row + error.row}, counted from 0"
        raise DataError(f"{where}, with {error} in {row}.") from error
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"{where} ({error}).") from error
    spelling = _spelling(array.type)
    n = len(array) - array.null_count
    is_usual = spelling in kind.usual or spelling.startswith("null")
    return values, Counter() if is_usual or not n else Counter({spelling: n})


def check_type(arrow_type: pa.DataType, kind: Kind, *, file: str, column: str) -> None:
    """Raise as `read_column` does if the kind accepts no column of this type."""
    read_column(pa.nulls(0, arrow_type), kind, file=file, column=column)


def _spelling(t: pa.DataType) -> str:
    """Return a word for a type that is the same for all its widths and encodings."""
    if isinstance(t, pa.BaseExtensionType):
        return _spelling(t.storage_type)
    if pa.types.is_dictionary(t):
        return _spelling(t.value_type)
    if _is_list(t):
        return f"{_spelling(t.value_type)}_list"
    words = {
        "integer": pa.types.is_integer,
        "float": pa.types.is_floating,
        "decimal": pa.types.is_decimal,
        "text": _is_text,
        "struct": pa.types.is_struct,
        "null": pa.types.is_null,
    }
    return next((word for word, check in words.items() if check(t)), "time")


def _is_text(t: pa.DataType) -> bool:
    kinds = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view")
    return any(getattr(pa.types, f"is_{kind}")(t) for kind in kinds)


def _is_list(t: pa.DataType) -> bool:
    kinds = ("list", "large_list", "fixed_size_list", "list_view", "large_list_view")
    return any(getattr(pa.types, f"is_{kind}")(t) for kind in kinds)


def _plain(array: pa.Array) -> pa.Array:
    """Return the array in the widest type of its spelling; bytes are read as UTF-8."""
    if isinstance(array.type, pa.BaseExtensionType):
        return _plain(array.storage)
    if pa.types.is_dictionary(array.type):
        return _plain(array.dictionary_decode())
    if pa.types.is_decimal(array.type):
        return array.cast(pa.decimal256(76, max(array.type.scale, 0)))
    return array.cast(TEXT) if _is_text(array.type) else array


def _refuse(bad: pa.Array, values: pa.Array) -> None:
    """Raise with the first value for which `bad` is true."""
    row = pc.index(bad, True).as_py()
    if row >= 0:
        raise _UnreadableError(_shown(values[row].as_py()), row)


def _shown(value: object) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def _trimmed(array: pa.Array) -> pa.Array:
    """Return texts of numbers without spaces around them; MISSING becomes null."""
    text = pc.utf8_trim_whitespace(array)
    missing = pc.is_in(pc.utf8_lower(text), value_set=MISSING)
    return pc.if_else(missing, pa.scalar(None, TEXT), text)


def _floats(array: pa.Array) -> pa.Array:
    """Return doubles with null for NaN."""
    values = array.cast(pa.float64())
    return pc.if_else(pc.is_nan(values), pa.scalar(None, pa.float64()), values)


def _integers(array: pa.Array) -> pa.Array:
    """Return int64: integers, and floats, decimals and texts that are whole numbers."""
    plain = _plain(array)
    t = plain.type
    if _is_text(t):
        text = _trimmed(plain)
        _refuse(pc.invert(pc.match_substring_regex(text, _INTEGER)), plain)
        digits = pc.replace_substring_regex(text, r"^\+|\.0*$", "")
        return digits.cast(pa.int64())
    if pa.types.is_floating(t):
        values = _floats(plain)
        whole = pc.and_(pc.less_equal(pc.abs(values), EXACT), pc.equal(values, pc.floor(values)))
        _refuse(pc.invert(whole), plain)
        return values.cast(pa.int64())
    if pa.types.is_decimal(t):
        _refuse(pc.not_equal(plain, pc.floor(plain)), plain)
        return plain.cast(pa.int64())
    if pa.types.is_integer(t) or pa.types.is_null(t):
        return plain.cast(pa.int64())
    raise _UnreadableError


def _texts(array: pa.Array) -> pa.Array:
    """Return texts unchanged, and whole numbers as their digits."""
    plain = _plain(array)
    if _is_text(plain.type) or pa.types.is_null(plain.type) or pa.types.is_integer(plain.type):
        return plain.cast(TEXT)
    return _integers(plain).cast(TEXT)


def _numbers(array: pa.Array) -> pa.Array:
    """Return doubles: numbers, and texts of numbers; NaN becomes null."""
    plain = _plain(array)
    t = plain.type
    if _is_text(t):
        text = _trimmed(plain)
        _refuse(pc.invert(pc.match_substring_regex(text, _NUMBER)), plain)
        return pc.replace_substring_regex(text, r"^\+", "").cast(pa.float64())
    if pa.types.is_decimal(t):
        return plain.cast(pa.string()).cast(pa.float64())  # the nearest double, unlike a cast
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_null)
    if any(check(t) for check in numeric):
        return _floats(plain)
    raise _UnreadableError


def _seconds(array: pa.Array) -> pa.Array:
    """Return Unix seconds as int64; fractions are dropped, and times without a zone are UTC."""
    plain = _plain(array)
    t = plain.type
    if pa.types.is_date(t):
        return plain.cast(pa.timestamp("s")).cast(pa.int64())
    if pa.types.is_timestamp(t):
        return plain.cast(pa.timestamp("s", t.tz), safe=False).cast(pa.int64())
    if pa.types.is_integer(t):
        return plain.cast(pa.int64())
    values = pc.floor(_numbers(plain))
    _refuse(pc.greater(pc.abs(values), EXACT), plain)
    return values.cast(pa.int64())


def _lists(array: pa.Array, field: str, *, takes_single: bool) -> pa.Array:
    """Return lists of texts without nulls; a null list is empty.

    Args:
        array: Lists of texts, whole numbers or structs; or texts, each a list as JSON or as a
            Python literal.
        field: Field of the structs with the text.
        takes_single: Whether a value that is no list is a list of one element.
    """
    plain = _plain(array)
    if _is_list(plain.type):
        row = pc.list_parent_indices(plain).to_numpy(zero_copy_only=False)
        return _regrouped(row, _members(pc.list_flatten(plain), field), len(plain))
    if _is_text(plain.type):
        members = [
            _parsed(text, row, field, takes_single=takes_single)
            for row, text in enumerate(plain.to_pylist())
        ]
        return pa.array(members, pa.large_list(TEXT))
    if not takes_single and not pa.types.is_null(plain.type):
        raise _UnreadableError
    return _regrouped(np.arange(len(plain)), _members(plain, field), len(plain))


def _members(values: pa.Array, field: str) -> pa.Array:
    """Return the elements of lists as texts."""
    plain = _plain(values)
    if pa.types.is_struct(plain.type):
        if plain.type.get_field_index(field) < 0:
            raise _UnreadableError
        plain = pc.struct_field(plain, field)
    try:
        return _texts(plain)
    except _UnreadableError as error:
        raise _UnreadableError from error  # the row of an element is not a row of the file


def _regrouped(row: np.ndarray, members: pa.Array, n_rows: int) -> pa.Array:
    """Return (n_rows,) lists of the members that are not null; `row` ascends."""
    known = members.is_valid().to_numpy(zero_copy_only=False)
    offsets = np.append(0, np.cumsum(np.bincount(row[known], minlength=n_rows)))
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), members.drop_null())


def _parsed(text: str | None, row: int, field: str, *, takes_single: bool) -> list[str]:
    """Return the members of a list that is written as JSON or as a Python literal."""
    stripped = (text or "").strip()
    if stripped.lower() in MISSING.to_pylist():
        return []
    if stripped[0] not in "[{(":
        if takes_single:
            return [stripped]
        raise _UnreadableError(_shown(text), row)
    try:
        value = _literal(stripped)
        items = value if isinstance(value, list | tuple) else [value]
        fields = [item[field] if isinstance(item, dict) else item for item in items]
        return [_member(item) for item in fields if item is not None and item == item]
    except (ValueError, SyntaxError, KeyError, TypeError, MemoryError, RecursionError) as error:
        raise _UnreadableError(_shown(text), row) from error


def _literal(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if _ADJACENT.search(text):
            raise
        return ast.literal_eval(text)


def _member(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{value!r} is neither a text nor a whole number")


ID = Kind("an integer (64-bit)", _integers, ("integer",))
KEY = Kind("a string or an integer", _texts, ("text",))
STRING = Kind("a string", _texts, ("text",))
NUMBER = Kind("a number", _numbers, ("integer", "float"))
TIME = Kind("an integer (Unix seconds) or a timestamp", _seconds, ("integer",))


def list_kind(expected: str, field: str, *, usual: str, takes_single: bool = False) -> Kind:
    """Return the kind of a column of lists; see `_lists`."""

    def read(array: pa.Array) -> pa.Array:
        return _lists(array, field, takes_single=takes_single)

    return Kind(expected, read, (usual,))
