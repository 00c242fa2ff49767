"""Values of published rows are cleaned, or recognised as missing."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.data.sources.cleaning import (
    clean_description,
    clean_text,
    parse_integer,
    parse_stars,
    parse_user_id,
    unix_seconds,
)


@pytest.mark.parametrize("value", [57854, "57854", "57854.0", 57854.0, " 57854 ", "57854."])
def test_a_number_of_any_type_gives_the_same_id(value: object) -> None:
    assert parse_integer(value) == 57854
    assert parse_user_id(value) == "57854"


@pytest.mark.parametrize(
    "value",
    [None, "", "x", "1.5", 1.5, math.nan, math.inf, True, -1, "-1", "1e3", "9" * 19, [1], {}],
)
def test_other_values_are_not_integers(value: object) -> None:
    assert parse_integer(value) is None


def test_hexadecimal_user_ids_are_unchanged() -> None:
    assert parse_user_id("8842281e1d1347389f2ab93d60773d4d") == "8842281e1d1347389f2ab93d60773d4d"
    assert parse_user_id("00000000000000000000000000007919") == "00000000000000000000000000007919"
    assert parse_user_id(1) == "1"
    assert [parse_user_id(value) for value in (True, "NaN", " ")] == [None] * 3


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((v, 0) for v in (0, "0", 0.0, None, "", " ", "NaN", math.nan)),
        *((v, 4) for v in (4, "4", 4.0, "4.0")),
        *((v, -1) for v in (6, -1, "-1", 3.5, "3.5", "five", True, [4])),
    ],
)
def test_parse_stars(value: object, expected: int) -> None:
    assert parse_stars(value) == expected


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One.</p><p>Two<br />three</p>", "One. Two three"),
        ("<b>H</b>ello <a href='x>y'>you</a>", "Hello you"),
        ("<script>var x = 1 < 2;</script>seen<style>p {}</style>", "seen"),
        ("x < y and y > z, I <3 it", "x < y and y > z, I <3 it"),
        ("R&amp;D &lt;b&gt; caf&eacute; &#128218; &#0; &#xD800;", "R&D <b> café 📚 \ufffd \ufffd"),
        ("<!DOCTYPE x><![CDATA[a]]><!-- b -->c", "c"),
        ("a\u0000b\r\n\t c\x85d\xa0e", "a b c d e"),
        ("\ud83d | \ud83d\udcda".replace("\ud83d\udcda", "📚"), "\ufffd | 📚"),
        ("حب \u200fحب", "حب \u200fحب"),
        ("<p> </p>", ""),
        ("<i>NaN</i>", ""),
        ("<" * 30_000, "<" * 20_000),
    ],
)
def test_descriptions_are_the_visible_text_of_the_html(html: str, text: str) -> None:
    assert clean_description(html) == text


@pytest.mark.parametrize("value", [None, math.nan, "nan", "NULL", " None ", [], {"a": 1}, True])
def test_missing_values_are_empty(value: object) -> None:
    assert clean_text(value) == clean_description(value) == ""


def test_numbers_are_valid_titles() -> None:
    texts = [clean_text(value) for value in (1984, 1984.0, 2.5, "Love & Rockets &lt;3")]
    assert texts == ["1984", "1984", "2.5", "Love & Rockets <3"]


@given(st.text(st.characters(codec=None)) | st.text("<>&;!?/-[]ab# \x00\ud800"))
def test_any_text_becomes_one_line_of_unicode(text: str) -> None:
    for line in (clean_text(text), clean_description(text)):
        assert line.encode() is not None
        assert line == " ".join(line.split())
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in line)


@given(
    st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29)),
    st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)
def test_dates_equal_those_of_the_standard_library(time: datetime, zone: timezone) -> None:
    moment = time.replace(microsecond=0, tzinfo=UTC).astimezone(zone)
    text = moment.strftime("%a %b %d %H:%M:%S %z ") + f"{moment.year:04d}"
    assert unix_seconds(text) == int(moment.timestamp())


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "NaN",
        1509696000,
        "2017-11-03",
        "Fri Nov 31 00:00:00 -0800 2017",
        "Fri Now 03 00:00:00 -0800 2017",
        "Fri Nov 03 24:00:00 -0800 2017",
        "Fri Nov 03 00:00:00 2017",
        "Thu Jan 01 00:00:00 +0000 1970",
        "Mon Jan 01 00:00:00 -0800 0001",
        "Mon Jan 01 00:00:00 -0800 0000",
    ],
)
def test_other_formats_impossible_days_and_times_before_1970_are_not_dates(value: object) -> None:
    assert unix_seconds(value) is None
