"""Render and write reports as self-contained HTML pages: no script, no network, escaped text."""

from __future__ import annotations

import os
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

MAX_SHOWN = 1500  # characters of one text


def render(template: str, **values: object) -> str:
    """Return the page made from a template of this folder; values not marked safe are escaped."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined
    )
    environment.filters |= {
        "count": count,
        "number": number,
        "signed": signed,
        "percent": percent,
        "short": short,
    }
    return environment.get_template(template).render(**values)


def write_page(path: Path, html: str) -> None:
    """Write the page atomically.

    Raises:
        OSError: The path cannot be written to; no temporary file is left.
    """
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temp.write_text(html, encoding="utf-8")
        os.replace(temp, path)
    except OSError:
        temp.unlink(missing_ok=True)
        raise


def count(value: int) -> str:
    """Return an integer with thousands separators."""
    return f"{value:,}"


def number(value: float, digits: int) -> str:
    """Return a number with `digits` decimals; a dash for NaN."""
    return "\N{EN DASH}" if value != value else f"{value:,.{digits}f}"


def signed(value: float, digits: int) -> str:
    """Return a difference with its sign; a dash for NaN."""
    if value != value:
        return number(value, digits)
    return f"{value:+,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(value: float) -> str:
    """Return a fraction as a percentage; only exact 0 and 1 are shown as 0 % and 100 %."""
    if 0 < value < 0.001:
        return "<\u00a00.1\u00a0%"
    if 0.999 < value < 1:
        return ">\u00a099.9\u00a0%"
    return f"{100 * value:.1f}\u00a0%"


def short(text: str, limit: int = MAX_SHOWN) -> str:
    """Return the text, cut after `limit` characters."""
    return text if len(text) <= limit else f"{text[:limit]} …"
