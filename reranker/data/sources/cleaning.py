"""Values of published rows made sound: texts, ids, stars, dates."""

from __future__ import annotations

import html
import re
from datetime import date
from functools import lru_cache
from html.parser import HTMLParser

NOTHING = frozenset(
    {"", "nan", "null", "none"}
)  # what exporters write for a value that is not there; any case
DESCRIPTION_CHARS = (
    20_000  # of HTML read; an encoder of 512 tokens sees fewer than 4,000 characters
)

# Control characters part words; a lone surrogate has no UTF-8. Marks of right-to-left text are left alone.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_DECLARATION = re.compile(r"<[!?][^<>]*>")
_NO_TAG = re.compile(
    r"<(?!/?[A-Za-z][^<>]*>)"
)  # "x < y", "<3": text, though a parser would take all that follows
_WHOLE = re.compile(r"(\d{1,18})(?:\.0*)?", re.ASCII)
_DATE = re.compile(
    r"[A-Z][a-z]{2} ([A-Z][a-z]{2} \d\d) ([01]\d|2[0-3]):([0-5]\d):([0-5]\d) ([+-])(\d\d)(\d\d) (\d{4})",
    re.ASCII,
)
_MONTHS = "JanFebMarAprMayJunJulAugSepOctNovDec"


class _Words(HTMLParser):
    """Collects what a reader of the page would see."""

    BREAKS = frozenset(
        {"br", "p", "div", "li", "ul", "ol", "tr", "td", "h1", "h2", "h3", "h4", "hr", "blockquote"}
    )
    UNSEEN = frozenset({"script", "style"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.unseen = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.unseen = tag in self.UNSEEN
        if tag in self.BREAKS:
            self.parts.append(" ")

    def handle_endtag(self, tag: str) -> None:
        self.unseen = False
        if tag in self.BREAKS:
            self.parts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.unseen:
            self.parts.append(data)


def plain(value: object) -> str:
    """The value as one line of text: entities unescaped, control characters and lone surrogates replaced.

    Empty for null, NaN, containers and the words of NOTHING.
    """
    text = _text(value)
    return _line(html.unescape(text) if "&" in text else text)


def description(value: object) -> str:
    """`plain` without HTML: tags fall away, block tags part words, scripts and styles are left out.

    Of more than DESCRIPTION_CHARS characters the first are read.
    """
    text = _text(value)[:DESCRIPTION_CHARS]
    if "<" not in text:
        return plain(text)
    parser = _Words()
    parser.feed(_NO_TAG.sub("&lt;", _DECLARATION.sub(" ", text)))
    parser.close()
    return _line("".join(parser.parts))


def whole(value: object) -> int | None:
    """The whole number, 0 or more, that an id or a count stands for: 57854, "57854", "57854.0" and 57854.0 are one."""
    if isinstance(value, str):
        if (
            value.isdecimal() and value.isascii() and len(value) <= 18
        ):  # nearly all: half the time of the pattern
            return int(value)
        match = _WHOLE.fullmatch(value.strip())
        return int(match.group(1)) if match else None
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**18:
        return value
    return None


@lru_cache(
    maxsize=1 << 10, typed=True
)  # a user's rows stand together: one string object for all of them
def identifier(value: object) -> str | None:
    """A user's id as a string, or None where there is none; 7, "7" and "7.0" are one id, a hexadecimal id stays."""
    number = (
        whole(value) if not isinstance(value, str) or value.strip().endswith((".", ".0")) else None
    )
    return str(number) if number is not None else plain(value) or None


def stars(value: object) -> int:
    """The stars of a rating, 1 to 5; 0 where nothing was rated (0, null, NaN, ""), -1 for anything else."""
    if type(value) is int:  # as published
        return value if 0 <= value <= 5 else -1
    if value is None or (
        isinstance(value, str | float) and _text(value).strip().lower() in NOTHING
    ):
        return 0
    number = whole(value)
    return number if number is not None and number <= 5 else -1


def unix_seconds(value: object) -> int | None:
    """The Unix time of `Fri Nov 03 00:00:00 -0800 2017`; None for another form, an impossible day, or before 1970."""
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


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        number = whole(value)
        return str(value if number is None else number)
    return ""


def _line(text: str) -> str:
    line = " ".join(_SURROGATE.sub("\ufffd", _CONTROL.sub(" ", text)).split())
    return "" if line.lower() in NOTHING else line
