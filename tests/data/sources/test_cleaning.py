"""Values of published rows are made sound, or said to be nothing."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.data.sources.cleaning import (
    description,
    identifier,
    plain,
    stars,
    unix_seconds,
    whole,
)


@pytest.mark.parametrize("value", [57854, "57854", "57854.0", 57854.0, " 57854 ", "57854."])
def test_one_number_in_any_type_is_one_id(value: object) -> None:
    assert whole(value) == 57854
    assert identifier(value) == "57854"


@pytest.mark.parametrize(
    "value",
    [None, "", "x", "1.5", 1.5, math.nan, math.inf, True, -1, "-1", "1e3", "9" * 19, [1], {}],
)
def test_what_is_no_number_is_no_id(value: object) -> None:
    assert whole(value) is None


def test_a_users_id_stays_as_it_is() -> None:
    assert identifier("8842281e1d1347389f2ab93d60773d4d") == "8842281e1d1347389f2ab93d60773d4d"
    assert identifier("00000000000000000000000000007919") == "00000000000000000000000000007919"
    assert (identifier(1), identifier(True), identifier("NaN"), identifier(" ")) == (
        "1",
        None,
        None,
        None,
    )


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((v, 0) for v in (0, "0", 0.0, None, "", " ", "NaN", math.nan)),
        *((v, 4) for v in (4, "4", 4.0, "4.0")),
        *((v, -1) for v in (6, -1, "-1", 3.5, "3.5", "five", True, [4])),
    ],
)
def test_stars(value: object, expected: int) -> None:
    assert stars(value) == expected


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
def test_descriptions_read_as_a_page_does(html: str, text: str) -> None:
    assert description(html) == text


@pytest.mark.parametrize("value", [None, math.nan, "nan", "NULL", " None ", [], {"a": 1}, True])
def test_what_says_nothing_is_empty(value: object) -> None:
    assert plain(value) == description(value) == ""


def test_numbers_as_titles_are_text() -> None:
    assert (plain(1984), plain(1984.0), plain(2.5), plain("Love & Rockets &lt;3")) == (
        "1984",
        "1984",
        "2.5",
        "Love & Rockets <3",
    )


@given(st.text(st.characters(codec=None)) | st.text("<>&;!?/-[]ab# \x00\ud800"))
def test_any_text_becomes_one_line_of_unicode(text: str) -> None:
    for line in (plain(text), description(text)):
        assert line.encode() is not None
        assert line == " ".join(line.split())
        assert not any(unicodedata.category(c) in ("Cc", "Cs") for c in line)


@given(
    st.datetimes(datetime(1970, 1, 3), datetime(9999, 12, 29)),
    st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)
def test_dates_are_those_of_the_standard_library(time: datetime, zone: timezone) -> None:
    moment = time.replace(microsecond=0, tzinfo=UTC).astimezone(zone)
    text = moment.strftime("%a %b %d %H:%M:%S %z ") + f"{moment.year:04d}"
    assert unix_seconds(text) == int(moment.timestamp())


@pytest.mark.parametrize(
    "value",
    [
        None, "", "NaN", 1509696000, "2017-11-03", "Fri Nov 31 00:00:00 -0800 2017", "Fri Now 03 00:00:00 -0800 2017",
        "Fri Nov 03 24:00:00 -0800 2017", "Fri Nov 03 00:00:00 2017", "Thu Jan 01 00:00:00 +0000 1970",
        "Mon Jan 01 00:00:00 -0800 0001", "Mon Jan 01 00:00:00 -0800 0000",
    ],
)  # fmt: skip
def test_another_form_an_impossible_day_and_a_time_before_1970_are_no_dates(value: object) -> None:
    assert unix_seconds(value) is None
