"""Parse the text templates of the config into parts with one field each."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass

from reranker.errors import ConfigError

BOOK_FIELDS = ("title", "authors", "series", "genres", "description")
CONTEXT_FIELDS = ("titles", "authors", "genres")
_GAP = re.compile(r"( \| |\n|(?<=\.) )")


@dataclass(frozen=True)
class Part:
    """A part of a template: `Likes: {titles}.` is a text, a field, and another text.

    A part whose field is empty is left out of the result, with its texts.

    Attributes:
        gap: The separator from the previous part: ` | `, a line break, or the space after a full
            stop.
        before: The text before the field, or the complete text of a part without a field.
        field: The name of the field, or None.
        after: The text after the field.
    """

    gap: str
    before: str
    field: str | None
    after: str


def parse_book(template: str) -> tuple[Part, ...]:
    """Return the parts of `data.book_template`.

    It must have {title} and may have the other BOOK_FIELDS. Title, authors and series come before
    the description.

    Example:
        parse_book("{title} | {authors}")

    Raises:
        ConfigError: The template cannot be parsed, or it breaks one of these rules.
    """
    key = f"data.book_template={template!r}"
    parts = _parse(key, template, BOOK_FIELDS, required="title")
    fields = [part.field for part in parts]
    late = fields[fields.index("description") :] if "description" in fields else []
    if names := [f"{{{name}}}" for name in ("title", "authors", "series") if name in late]:
        raise ConfigError(
            f"{key}: {', '.join(names)} after {{description}}; put the description last, because "
            "truncation removes the end of the text."
        )
    return parts


def parse_context(template: str) -> tuple[Part, ...]:
    """Return the parts of `data.context_template`: {titles} first, then other CONTEXT_FIELDS.

    Raises:
        ConfigError: The template cannot be parsed, or it breaks one of these rules.
    """
    key = f"data.context_template={template!r}"
    parts = _parse(key, template, CONTEXT_FIELDS, required="titles")
    first = next(part.field for part in parts if part.field)
    # The audit searches for titles after the fixed text at the start.
    if first != "titles":
        raise ConfigError(f"{key}: {{{first}}} before {{titles}}; put {{titles}} first.")
    return parts


def _parse(key: str, template: str, allowed: tuple[str, ...], *, required: str) -> tuple[Part, ...]:
    pieces = ["", *_GAP.split(template)]
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    parts = tuple(_part(key, gap, text, allowed=allowed) for gap, text in pairs)
    fields = [part.field for part in parts if part.field]
    if repeated := {name for name in fields if fields.count(name) > 1}:
        raise ConfigError(f"{key}: {{{min(repeated)}}} occurs twice; use each field once.")
    if required not in fields:
        raise ConfigError(
            f"{key}: {{{required}}} is missing; the allowed fields are {_list(allowed)}."
        )
    return parts


def _part(key: str, gap: str, text: str, *, allowed: tuple[str, ...]) -> Part:
    try:
        tokens = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(
            f"{key}: {error}; write a field as {{{allowed[0]}}} and a brace as {{{{ or }}}}."
        ) from error
    fields = [name for _, name, _, _ in tokens if name is not None]
    for _, name, spec, conversion in tokens:
        if name is not None and (name not in allowed or spec or conversion):
            suffix = (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
            raise ConfigError(
                f"{key}: unknown field {{{name}{suffix}}}; the allowed fields are {_list(allowed)}."
            )
    if len(fields) > 1:
        raise ConfigError(
            f"{key}: {_list(fields)} are in one part, which is left out if one of them is empty; "
            "separate them by ' | ', a line break, or a full stop and a space."
        )
    at = next((i for i, token in enumerate(tokens) if token[1] is not None), len(tokens) - 1)
    before = "".join(literal for literal, *_ in tokens[: at + 1])
    after = "".join(literal for literal, *_ in tokens[at + 1 :])
    return Part(gap, before, fields[0] if fields else None, after)


def _list(fields: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in fields)
