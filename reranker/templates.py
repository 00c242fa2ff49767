"""Text templates of the config: parts with one field each, of which the empty ones vanish. Checked before any work."""

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
    """A stretch of a template: `Likes: {titles}.` has a text before its field, the field, and a text after.

    Attributes:
        gap: What separates it from the part before: ` | `, a line break, or the space after a full stop.
        field: None where the part is fixed text, which `before` then holds.
    """

    gap: str
    before: str
    field: str | None
    after: str


def parse_book(template: str) -> tuple[Part, ...]:
    """The parts of `data.book_template`: {title} and others of BOOK_FIELDS, the names before the description.

    Raises:
        ConfigError: It cannot be read, or breaks one of these rules.
    """
    key = f"data.book_template={template!r}"
    parts = _parse(key, template, BOOK_FIELDS, required="title")
    fields = [part.field for part in parts]
    late = fields[fields.index("description") :] if "description" in fields else []
    if names := [f"{{{name}}}" for name in ("title", "authors", "series") if name in late]:
        raise ConfigError(
            f"{key}: {', '.join(names)} after {{description}}; put the description behind, for truncation takes what "
            "is last."
        )
    return parts


def parse_context(template: str) -> tuple[Part, ...]:
    """The parts of `data.context_template`: fields of CONTEXT_FIELDS, {titles} first.

    Raises:
        ConfigError: It cannot be read, or breaks one of these rules.
    """
    key = f"data.context_template={template!r}"
    parts = _parse(key, template, CONTEXT_FIELDS, required="titles")
    first = next(part.field for part in parts if part.field)
    if first != "titles":  # the audit finds them behind the fixed start
        raise ConfigError(f"{key}: {{{first}}} before {{titles}}; put {{titles}} first.")
    return parts


def _parse(key: str, template: str, allowed: tuple[str, ...], *, required: str) -> tuple[Part, ...]:
    pieces = ["", *_GAP.split(template)]
    parts = tuple(
        _part(key, *pair, allowed) for pair in zip(pieces[::2], pieces[1::2], strict=True)
    )
    fields = [part.field for part in parts if part.field]
    if repeated := {name for name in fields if fields.count(name) > 1}:
        raise ConfigError(f"{key}: {{{min(repeated)}}} stands twice; give each field once.")
    if required not in fields:
        raise ConfigError(
            f"{key}: no {{{required}}}, which it must have; its fields are {_list(allowed)}."
        )
    return parts


def _part(key: str, gap: str, text: str, allowed: tuple[str, ...]) -> Part:
    try:
        tokens = list(string.Formatter().parse(text))
    except ValueError as error:
        raise ConfigError(
            f"{key}: {error}; a field is written {{{allowed[0]}}}, a brace {{{{ or }}}}."
        ) from error
    fields = [name for _, name, _, _ in tokens if name is not None]
    for _, name, spec, conversion in tokens:
        if name is not None and (name not in allowed or spec or conversion):
            given = (
                f"{{{name}{f'!{conversion}' if conversion else ''}{f':{spec}' if spec else ''}}}"
            )
            raise ConfigError(f"{key}: unknown field {given}; its fields are {_list(allowed)}.")
    if len(fields) > 1:
        raise ConfigError(
            f"{key}: {_list(fields)} in one part, so that one would vanish with the other; separate them by ' | ', "
            "a line break, or a full stop and a space."
        )
    at = next((i for i, token in enumerate(tokens) if token[1] is not None), len(tokens) - 1)
    before, after = (
        "".join(literal for literal, *_ in side) for side in (tokens[: at + 1], tokens[at + 1 :])
    )
    return Part(gap, before, fields[0] if fields else None, after)


def _list(fields: tuple[str, ...] | list[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in fields)
