"""Parse and clean the values of published files: texts, ids, star ratings and dates."""

from __future__ import annotations

import html
import re
from datetime import date
from functools import lru_cache
from html.parser import HTMLParser

# Spellings of a missing value, in lower case.
NULL_WORDS = frozenset({"", "nan", "null", "none"})
# Longer descriptions are cut before parsing. A 512-token encoder reads fewer than 4,000 characters.
DESCRIPTION_CHARS = 20_000

# Control characters become spaces. Lone surrogates cannot be encoded as UTF-8. Marks of
# right-to-left text are kept.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECLARATION = re.compile(r"<[!?][^<>]*>")
# A "<" that opens no tag, as in "x < y" or "<3". The parser would drop the text after it.
_LESS_THAN = re.compile(r"<(?!/?[A-Za-z][^<>]*>)")
_INTEGER = re.compile(r"(\d{1,18})(?:\.0*)?", re.ASCII)
_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2} \d\d) ([01]\d|2[0-3]):([0-5]\d):([0-5]\d) "
    r"([+-])(\d\d)(\d\d) (\d{4})",
    re.ASCII,
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


class _VisibleText(HTMLParser):
    """Collects the visible text of an HTML page."""

    BLOCKS = frozenset(
        {"br", "p", "div", "li", "ul", "ol", "tr", "td", "h1", "h2", "h3", "h4", "hr", "blockquote"}
    )
    HIDDEN = frozenset({"script", "style"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in self.HIDDEN
        if tag in self.BLOCKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False
        if tag in self.BLOCKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(data)


def clean_text(value: object) -> str:
    """Return the value as one line of text.

    Entities are unescaped, and control characters and lone surrogates are replaced. The result is
    empty for null, NaN, containers and the words of NULL_WORDS.
    """
    text = _as_string(value)
    return _single_line(html.unescape(text) if "&" in text else text)


def clean_description(value: object) -> str:
    """Return `clean_text` without HTML.

    Tags are removed, block tags become spaces, scripts and styles are dropped. Only the first
    DESCRIPTION_CHARS characters are read.
    """
    text = _as_string(value)[:DESCRIPTION_CHARS]
    if "<" not in text:
        return clean_text(text)
    parser = _VisibleText()
    parser.feed(_LESS_THAN.sub("&lt;", _DECLARATION.sub(" ", text)))
    parser.close()
    return _single_line("".join(parser.parts))


def parse_integer(value: object) -> int | None:
    """Return an id or a count as an integer >= 0, or None if the value is not one.

    57854, "57854", "57854.0" and 57854.0 give the same result.
    """
    if isinstance(value, str):
        # Nearly all values take this branch, which needs half the time of the pattern.
        if value.isdecimal() and value.isascii() and len(value) <= 18:
            return int(value)
        match = _INTEGER.fullmatch(value.strip())
        return int(match.group(1)) if match else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    return None


# The rows of a user are adjacent, so the cache gives them one shared string object.
@lru_cache(maxsize=1 << 10, typed=True)
def parse_user_id(value: object) -> str | None:
    """Return a user's id as a string, or None if the value is missing.

    7, "7" and "7.0" give the same id. Hexadecimal ids are unchanged.
    """
    numeric = not isinstance(value, str) or value.strip().endswith((".", ".0"))
    number = parse_integer(value) if numeric else None
    return str(number) if number is not None else clean_text(value) or None


def parse_stars(value: object) -> int:
    """Return the stars of a rating, 1 to 5; 0 if there is none (0, null, NaN, ""), else -1."""
    if type(value) is int:  # the published type
        return value if 0 <= value <= 5 else -1
    if value is None:
        return 0
    if isinstance(value, str | float) and _as_string(value).strip().lower() in NULL_WORDS:
        return 0
    number = parse_integer(value)
    return number if number is not None and number <= 5 else -1


def unix_seconds(value: object) -> int | None:
    """Return the Unix time of a date such as `Fri Nov 03 00:00:00 -0800 2017`.

    None for another format, an impossible day, or a time before 1970.
    """
    match = _DATE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    day, hour, minute, second, sign, zone_hour, zone_minute, year = match.groups()
    midnight = _midnight(day, year)
    offset = 3600 * int(zone_hour) + 60 * int(zone_minute)
    time = 3600 * int(hour) + 60 * int(minute) + int(second) + (offset if sign == "-" else -offset)
    return midnight + time if midnight is not None and midnight + time > 0 else None


@lru_cache(maxsize=1 << 16)
def _midnight(day: str, year: str) -> int | None:
    try:
        month = _MONTHS.index(day[:3]) // 3 + 1
        return 86_400 * (date(int(year), month, int(day[4:])) - date(1970, 1, 1)).days
    except ValueError:
        return None


def _as_string(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = parse_integer(value)
        return str(value if number is None else number)
    return ""


def _single_line(text: str) -> str:
    line = " ".join(_SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text)).split())
    return "" if line.lower() in NULL_WORDS else line
