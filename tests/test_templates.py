"""Templates are parsed into parts with one field each; errors name the key and the fields."""

from __future__ import annotations

import pytest

from reranker.config import DataConfig
from reranker.errors import ConfigError
from reranker.templates import Part, parse_book, parse_context


def test_parts_end_at_a_bar_a_line_break_or_a_full_stop() -> None:
    assert parse_context("A reader. Likes: {titles}!\nGenres: {genres} | the end") == (
        Part("", "A reader.", None, ""),
        Part(" ", "Likes: ", "titles", "!"),
        Part("\n", "Genres: ", "genres", ""),
        Part(" | ", "the end", None, ""),
    )


def test_doubled_braces_are_braces() -> None:
    assert parse_book("{{{title}}} {{}}") == (Part("", "{", "title", "} {}"),)


def test_the_default_templates_are_valid() -> None:
    assert [part.field for part in parse_book(DataConfig.book_template)] == [
        "title",
        "authors",
        "series",
        "genres",
        "description",
    ]
    assert [part.field for part in parse_context(DataConfig.context_template)] == [
        "titles",
        "genres",
    ]


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (
            "{title} | {author}",
            "unknown field {author}; the allowed fields are {title}, {authors}, {series}, {genres",
        ),
        ("{title.x}", "unknown field {title.x}"),
        ("{title!r}", "unknown field {title!r}"),
        ("{title:>9}", "unknown field {title:>9}"),
        ("{}", "unknown field {}"),
        ("{title} | {", "write a field as {title} and a brace as {{ or }}"),
        ("}{title}", "write a field as {title}"),
        ("{title} | {title}", "{title} occurs twice"),
        ("{title} by {authors}", "{title}, {authors} are in one part"),
        ("Book: {genres}", "{title} is missing"),
        ("", "{title} is missing"),
        ("{description} | {title}", "{title} after {description}"),
        (
            "{title} | {description} | {series} | {authors}",
            "{authors}, {series} after {description}",
        ),
    ],
)
def test_an_invalid_book_template_is_refused(template: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_book(template)
    assert str(error.value).startswith(f"data.book_template={template!r}: ")
    assert named in str(error.value)


def test_genres_may_follow_the_description() -> None:
    assert [p.field for p in parse_book("{title} | {description} | {genres}")] == [
        "title",
        "description",
        "genres",
    ]


@pytest.mark.parametrize(
    ("template", "named"),
    [
        (
            "Genres: {genres}",
            "{titles} is missing; the allowed fields are {titles}, {authors}, {genres}",
        ),
        ("Likes: {title}", "unknown field {title}"),
        ("Genres: {genres}. Likes: {titles}", "{genres} before {titles}; put {titles} first"),
        ("By {authors}. Likes: {titles}", "{authors} before {titles}; put {titles} first"),
    ],
)
def test_an_invalid_context_template_is_refused(template: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_context(template)
    assert str(error.value).startswith(f"data.context_template={template!r}: ")
    assert named in str(error.value)
