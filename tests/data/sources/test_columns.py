"""Columns of any Arrow type are read as the documented type, or refused by name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.data.sources import bookdb, columns
from reranker.data.sources.columns import read_column
from reranker.errors import DataError
from tests.conftest import some_ratings, write_raw

MISSING = {"", "nan", "null", "none", "<na>", "nat"}
WORDS = st.sampled_from(["7", "8.0", " 9 ", "+3", "-4", "007", "1e2", ".5", "2.5", "x", "", "NaN"])
TEXTS = WORDS | st.text("0123456789.+-eE naN", max_size=5)
JSON = st.sampled_from(["[", "[1, null]", "['a', 2.0]", '[{"name": "b"}]', "[true]", "['a' 'b']"])


@dataclass(frozen=True)
class Spelling:
    """An Arrow type, the class of its values, and a strategy for them."""

    type: pa.DataType
    of: str
    values: st.SearchStrategy[Any]


def integers(bits: int, *, signed: bool) -> Spelling:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    values = st.integers(low, high) | st.integers(0, 9)
    return Spelling(getattr(pa, f"{'' if signed else 'u'}int{bits}")(), "integer", values)


def decimals(digits: int) -> st.SearchStrategy[Decimal]:
    return st.integers(-(10**digits) + 1, 10**digits - 1).map(lambda n: Decimal(n) / 10)


def lists(make: Callable[[pa.DataType], pa.DataType], of: Spelling) -> Spelling:
    elements = st.none() | of.values
    return Spelling(make(of.type), f"{of.of}_list", st.lists(elements, max_size=3))


STRING = Spelling(pa.string(), "text", TEXTS | JSON)
INT64 = integers(64, signed=True)
FLOAT64 = Spelling(pa.float64(), "float", st.floats() | st.integers(-9, 9).map(float))
BYTES = TEXTS.map(str.encode) | st.just(b"\xff")
STRUCT = pa.struct([("name", pa.string()), ("author_id", pa.int64()), ("role", pa.string())])
STRUCTS = Spelling(
    STRUCT,
    "struct",
    st.fixed_dictionaries({"name": TEXTS, "author_id": st.integers(0, 9), "role": st.none()}),
)
BARE = Spelling(pa.struct([("other", pa.int64())]), "bare", st.just({"other": 1}))
BOOL = Spelling(pa.bool_(), "bool", st.booleans())
SPELLINGS = [
    *(integers(bits, signed=signed) for bits in (8, 16, 32, 64) for signed in (True, False)),
    FLOAT64,
    Spelling(pa.float32(), "float", st.floats(width=32) | st.integers(-9, 9).map(float)),
    Spelling(pa.float16(), "float", st.floats(width=16) | st.integers(-9, 9).map(float)),
    Spelling(pa.decimal128(20, 1), "decimal", decimals(18)),
    Spelling(pa.decimal32(5, 1), "decimal", decimals(4)),
    STRING,
    Spelling(pa.large_string(), "text", TEXTS),
    Spelling(pa.string_view(), "text", TEXTS),
    Spelling(pa.dictionary(pa.int8(), pa.string()), "text", TEXTS),
    Spelling(pa.binary(), "text", BYTES),
    Spelling(pa.binary_view(), "text", BYTES),
    Spelling(pa.binary(2), "fixed", st.just(b"ab")),
    Spelling(pa.null(), "null", st.none()),
    BOOL,
    Spelling(pa.date32(), "date", st.dates()),
    Spelling(pa.timestamp("ms"), "timestamp", st.datetimes(datetime(1970, 1, 1))),
    Spelling(pa.timestamp("ns", "UTC"), "timestamp", st.integers(0, 2**62)),
    Spelling(pa.time32("s"), "time", st.integers(0, 9)),
    Spelling(pa.duration("s"), "duration", st.integers(0, 9)),
    Spelling(pa.map_(pa.string(), pa.int64()), "map", st.just([("a", 1)])),
    lists(pa.list_, STRING),
    lists(pa.large_list, INT64),
    lists(pa.list_view, INT64),
    lists(pa.list_, FLOAT64),
    lists(pa.list_, STRUCTS),
    lists(pa.list_, BARE),
    lists(pa.list_, BOOL),
    lists(pa.list_, lists(pa.list_, INT64)),
    STRUCTS,
    BARE,
]
SIMPLE = {"integer", "float", "decimal", "text", "null"}
LISTS = {f"{of}_list" for of in ("text", "integer", "float", "struct")} | {"text", "null"}
ACCEPTED = {
    columns.ID: SIMPLE,
    columns.KEY: SIMPLE,
    columns.NUMBER: SIMPLE,
    columns.TIME: SIMPLE | {"date", "timestamp"},
    bookdb.SCHEMA["reduced_books.parquet"]["popular_shelves"]: LISTS,
    bookdb.SCHEMA["reduced_books.parquet"]["authors"]: LISTS | SIMPLE | {"struct"},
}
SHELVES, AUTHORS = list(ACCEPTED)[-2:]


def as_integer(value: Any) -> int | None:
    """Return the integer that a value means; raise ValueError if it means none."""
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in MISSING:
            return None
        if not re.fullmatch(r"[+-]?[0-9]+(\.0*)?", text):
            raise ValueError
        value = int(text.split(".")[0])
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and not abs(value) <= 2**53:
        raise ValueError
    if value != int(value) or not -(2**63) <= value < 2**63:
        raise ValueError
    return int(value)


def as_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode()
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return str(value)
    number = as_integer(value)
    return None if number is None else str(number)


def as_number(value: Any) -> float | None:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in MISSING:
            return None
        if "_" in text or not re.search("[0-9]", text):
            raise ValueError
        value = float(text)
    if value is None or math.isnan(value):
        return None
    if isinstance(value, int) and abs(value) > 2**53:
        raise ValueError
    return float(value)


def as_seconds(value: Any) -> int | None:
    if isinstance(value, datetime):
        return int(value.replace(tzinfo=UTC, microsecond=0).timestamp())
    if isinstance(value, date):
        return (value - date(1970, 1, 1)).days * 86_400
    if isinstance(value, int):
        return as_integer(value)
    number = as_number(value)
    if number is not None and not abs(number) <= 2**53:
        raise ValueError
    return None if number is None else math.floor(number)


def as_members(value: Any, field: str, *, takes_single: bool) -> list[str]:
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str) and value.strip()[:1] != "[":
        if value.strip().lower() not in MISSING and not takes_single:
            raise ValueError
        return [] if value.strip().lower() in MISSING else [value.strip()]
    if isinstance(value, str):
        value = {
            "[1, null]": [1],
            "['a', 2.0]": ["a", 2],
            '[{"name": "b"}]': [{"name": "b"}],
        }.get(value)
        if value is None or (field != "name" and value == [{"name": "b"}]):
            raise ValueError
    items = value if isinstance(value, list) else [value]
    texts = [as_text(item[field] if isinstance(item, dict) else item) for item in items]
    return [text for text in texts if text is not None]


ORACLES: dict[columns.Kind, Callable[[Any], Any]] = {
    columns.ID: as_integer,
    columns.KEY: as_text,
    columns.NUMBER: as_number,
    columns.TIME: as_seconds,
    SHELVES: lambda v: as_members(v, "name", takes_single=False),
    AUTHORS: lambda v: as_members(v, "author_id", takes_single=True),
}


def expected(kind: columns.Kind, spelling: Spelling, values: list[Any]) -> list[Any] | None:
    """Return the values that come out, or None if the column is refused."""
    if spelling.of not in ACCEPTED[kind]:
        return None
    try:
        if spelling.of == "timestamp" and spelling.type.unit == "ns":
            return [None if v is None else v // 10**9 for v in values]
        return [ORACLES[kind](value) for value in values]
    except (ValueError, TypeError):
        return None


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(list(ACCEPTED)), st.sampled_from(SPELLINGS))
def test_a_column_is_read_as_documented_or_refused_by_name(
    data: st.DataObject, kind: columns.Kind, spelling: Spelling
) -> None:
    values = data.draw(st.lists(st.none() | spelling.values, min_size=1, max_size=4))
    array = pa.array(values, spelling.type)
    found = expected(kind, spelling, values)
    if found is None:
        with pytest.raises(DataError) as error:
            read_column(array, kind, file="a.parquet", column="c")
        start = f"a.parquet: column c must be {kind.expected}, but is {array.type}"
        assert str(error.value).startswith(start)
    else:
        out, _ = read_column(array, kind, file="a.parquet", column="c")
        out.validate(full=True)
        assert out.to_pylist() == found
        assert out.type == kind.read(pa.nulls(0)).type


@pytest.mark.parametrize(
    ("kind", "values", "out", "counted"),
    [
        (columns.ID, pa.array(["7", " 8.0", "", None]), [7, 8, None, None], {"text": 3}),
        (columns.ID, pa.array([7.0, math.nan]), [7, None], {"float": 2}),
        (columns.ID, pa.array([7, 8], pa.uint64()), [7, 8], {}),
        (columns.KEY, pa.array([7, None], pa.int32()), ["7", None], {"integer": 1}),
        (columns.KEY, pa.array(["07", "7.0"]).dictionary_encode(), ["07", "7.0"], {}),
        (columns.NUMBER, pa.array(["4,5", "4.5"]).take([1]), [4.5], {"text": 1}),
        (columns.TIME, pa.array([1.9]), [1], {"float": 1}),
        (columns.TIME, pa.array([1500], pa.timestamp("ms")), [1], {"time": 1}),
        (SHELVES, pa.array([["a", None, "b"], None]), [["a", "b"], []], {"text_list": 1}),
        (SHELVES, pa.array(['["a", null]', "[]", None]), [["a"], [], []], {"text": 2}),
        (SHELVES, pa.array(['[{"count": "3", "name": "a"}]']), [["a"]], {"text": 1}),
        (SHELVES, pa.array([[{"name": "a"}, None, {"name": None}]]), [["a"]], {}),
        (AUTHORS, pa.array([[{"author_id": 3, "role": ""}]]), [["3"]], {"struct_list": 1}),
        (AUTHORS, pa.array(["[{'author_id': '3', 'role': ''}]"]), [["3"]], {"text": 1}),
        (AUTHORS, pa.array([[3, 4], []]), [["3", "4"], []], {"integer_list": 2}),
        (AUTHORS, pa.array([3, None]), [["3"], []], {"integer": 1}),
        (AUTHORS, pa.array(["a1"]), [["a1"]], {"text": 1}),
    ],
)
def test_spellings_of_values(
    kind: columns.Kind, values: pa.Array, out: list[Any], counted: dict[str, int]
) -> None:
    read, converted = read_column(values, kind, file="f", column="c")
    assert (read.to_pylist(), dict(converted)) == (out, counted)


@pytest.mark.parametrize(
    "text", ["fantasy", "[1.5]", "[true]", "[['a']]", "['a' 'b']", "{", '{"x":1}']
)
def test_a_text_that_is_no_list_of_names_is_refused_with_its_row(text: str) -> None:
    with pytest.raises(DataError, match=re.escape(repr(text)) + " in row 11, counted from 0"):
        read_column(pa.array(["[]", text]), SHELVES, file="f", column="c", first_row=10)


def test_deeply_nested_json_is_refused() -> None:
    with pytest.raises(DataError, match="in row 0"):
        read_column(pa.array(["[" * 100_000]), SHELVES, file="f", column="c")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_raw(tmp_path_factory.mktemp("columns"), some_ratings(2), texts={1: "a", 2: "b"})


@pytest.mark.parametrize("file", list(bookdb.SCHEMA))
def test_no_type_of_a_column_raises_anything_but_a_named_data_error(root: Path, file: str) -> None:
    original = pq.read_table(root / file)
    n_refused = 0
    for column in set(bookdb.SCHEMA[file]) - {"timestamp"}:
        for spelling in SPELLINGS:
            value = {"map": [("a", 1)], "timestamp": 1, "date": 1}.get(spelling.of)
            values = pa.array([value] * len(original), spelling.type)
            at = original.schema.get_field_index(column)
            pq.write_table(original.set_column(at, column, values), root / file)
            try:
                bookdb.read(root)
                list(bookdb.ratings(root, 1000))
            except DataError as error:
                n_refused += 1
                assert file in str(error), str(error)
                assert (
                    column in str(error) or "no rows" in str(error) or "can be used" in str(error)
                )
    pq.write_table(original, root / file)
    assert n_refused > 10
