"""Reports as HTML pages that need no other file, no script and no network: one look, every text escaped."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

MAX_SHOWN = 1500  # characters of one text


def render(template: str, **values: object) -> str:
    """The page that a template of this folder gives; a value that is not marked as safe there is escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "count": count,
        "number": number,
        "signed": signed,
        "share": share,
        "short": short,
    }
    return environment.get_template(template).render(**values)


def count(value: int) -> str:
    """A whole number with separators."""
    return f"{value:,}"


def number(value: float, digits: int) -> str:
    """A number with so many decimals; a dash where there is none (NaN)."""
    return "\N{EN DASH}" if value != value else f"{value:,.{digits}f}"


def signed(value: float, digits: int) -> str:
    """A difference, with its sign."""
    return (
        number(value, digits)
        if value != value
        else f"{value:+,.{digits}f}".replace("-", "\N{MINUS SIGN}")
    )


def share(value: float) -> str:
    """Per cent; what is not 0 or all is not rounded to it."""
    if 0 < value < 0.001:
        return "<\u00a00.1\u00a0%"
    if 0.999 < value < 1:
        return ">\u00a099.9\u00a0%"
    return f"{100 * value:.1f}\u00a0%"


def short(text: str, limit: int = MAX_SHOWN) -> str:
    """The text, or its beginning where it is longer than that."""
    return text if len(text) <= limit else f"{text[:limit]} …"
