"""Templates are read into parts of one field each, and what cannot work is refused with the key and the fields."""

from __future__ import annotations

import pytest

from reranker.config import DataConfig
from reranker.errors import ConfigError
from reranker.templates import Part, parse_book, parse_context


def test_a_part_ends_at_a_bar_a_line_break_or_after_a_full_stop() -> None:
    assert parse_context("A reader. Likes: {titles}!\nGenres: {genres} | the end") == (
        Part("", "A reader.", None, ""),
        Part(" ", "Likes: ", "titles", "!"),
        Part("\n", "Genres: ", "genres", ""),
        Part(" | ", "the end", None, ""),
    )


def test_doubled_braces_are_braces() -> None:
    assert parse_book("{{{title}}} {{}}") == (Part("", "{", "title", "} {}"),)


def test_the_defaults_are_allowed() -> None:
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
            "unknown field {author}; its fields are {title}, {authors}, {series}, {genres}, {desc",
        ),
        ("{title.x}", "unknown field {title.x}"),
        ("{title!r}", "unknown field {title!r}"),
        ("{title:>9}", "unknown field {title:>9}"),
        ("{}", "unknown field {}"),
        ("{title} | {", "a field is written {title}, a brace {{ or }}"),
        ("}{title}", "a field is written {title}"),
        ("{title} | {title}", "{title} stands twice"),
        ("{title} by {authors}", "{title}, {authors} in one part"),
        ("Book: {genres}", "no {title}, which it must have"),
        ("", "no {title}"),
        ("{description} | {title}", "{title} after {description}"),
        (
            "{title} | {description} | {series} | {authors}",
            "{authors}, {series} after {description}",
        ),
    ],
)
def test_a_book_template_that_cannot_work_names_key_and_fault(template: str, named: str) -> None:
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
            "no {titles}, which it must have; its fields are {titles}, {authors}, {genres}",
        ),
        ("Likes: {title}", "unknown field {title}"),
        ("Genres: {genres}. Likes: {titles}", "{genres} before {titles}; put {titles} first"),
        ("By {authors}. Likes: {titles}", "{authors} before {titles}; put {titles} first"),
    ],
)
def test_a_context_template_that_cannot_work_names_key_and_fault(template: str, named: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_context(template)
    assert str(error.value).startswith(f"data.context_template={template!r}: ")
    assert named in str(error.value)
