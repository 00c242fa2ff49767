"""Operations on text columns agree with Python's split, html and HTMLParser."""

from __future__ import annotations

import html
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.data.texts import TEXT, arrow, clean, fill, join, strip_html
from reranker.templates import parse_book

# Letters, all white space of str.split(), and NUL.
UNTIDY = st.text(
    st.sampled_from(
        "ab\x00 \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f"
        "\u3000\u200b"
    )
)


@settings(max_examples=60, deadline=None)
@given(st.lists(UNTIDY))
def test_clean_texts_are_split_and_join_by_single_spaces(values: list[str]) -> None:
    assert clean(pa.array(values, TEXT)).to_pylist() == [" ".join(v.split()) for v in values]


def test_words_for_missing_values_become_empty_and_names_are_kept() -> None:
    values = ["nan", " None ", "null", None, "  ", "Nan", "The null", "none"]
    assert clean(pa.array(values)).to_pylist() == ["", "", "", "", "", "Nan", "The null", "none"]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("plain", "plain"),
        ("<b>bold</b>ly &amp; <i class='x'>so</i>", "boldly & so"),
        ("one<br>two<br/>three<p>four</p>five", "one two three four five"),
        ("&lt;b&gt; is a tag, &eacute;&#233;&#xe9;", "<b> is a tag, ééé"),
        ("a<!-- not <b>this</b> -->b", "a b"),
        ("a<script>if (x<y) {}</script>b<STYLE>p {}</STYLE >c", "a b c"),
        ("3 < 4 and 4 > 3, I <3 books", "3 < 4 and 4 > 3, I <3 books"),
        ("<!DOCTYPE html><a href=x>link</a>", "link"),
        ("cut <b", "cut <b"),
        ("<![x", "<![x"),
        ("a&nbsp;b&#0;", "a b\ufffd"),
    ],
)
def test_markup_is_replaced_by_its_text(markup: str, text: str) -> None:
    assert clean(strip_html(pa.array([markup, None]))).to_pylist() == [text, ""]


class Parser(HTMLParser):
    """Collects the text between inline tags: the expected result."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data


WORD = st.text(st.sampled_from("ab é<>&'\"#;"), max_size=6).map(html.escape)
TAG = st.sampled_from(
    [
        "<b>",
        "</b>",
        '<i class="x y">',
        "</i>",
        "<a href='z'>",
        "</a>",
        "<img src=p />",
        "<!DOCTYPE x>",
    ]
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(WORD, TAG)).map("".join))
def test_valid_markup_gives_the_text_of_pythons_parser(markup: str) -> None:
    parser = Parser()
    parser.feed(markup)
    parser.close()
    assert strip_html(pa.array([markup], TEXT)).to_pylist() == [parser.text]


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("<>!-/[]&;#b r\"'"), max_size=40))
def test_invalid_markup_is_accepted_and_plain_text_is_kept(markup: str) -> None:
    out = strip_html(pa.array([markup], TEXT)).to_pylist()[0]
    assert len(out) <= len(markup)
    if not set("<&") & set(markup):
        assert out == markup


def test_rows_without_values_are_empty() -> None:
    row = np.array([1, 1, 3])
    assert join(row, pa.array(["a", "b", "c"]), 5, "; ").to_pylist() == ["", "a; b", "", "c", ""]


def test_an_empty_value_vanishes_with_its_label() -> None:
    parts = parse_book("T: {title}. By {authors}! | <{series}> | fixed\n{description}")
    columns = {
        "title": ["a", "", "a", "", "a"],
        "authors": ["b", "b", "", "", "b"],
        "series": ["c", "c", "c", "", ""],
        "description": ["d", "d", "d", "", ""],
    }
    assert fill(parts, {name: arrow(values) for name, values in columns.items()}).to_pylist() == [
        "T: a. By b! | <c> | fixed\nd",
        "By b! | <c> | fixed\nd",
        "T: a. | <c> | fixed\nd",
        "fixed",
        "T: a. By b! | fixed",
    ]
