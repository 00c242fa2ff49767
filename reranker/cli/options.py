"""Command-line options and value types that several subcommands share."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from reranker.config import VARIANTS

FORMATS = ("table", "json")


def tracking_uri() -> argparse.ArgumentParser:
    """Return a parent parser with `--tracking-uri`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--tracking-uri",
        metavar="URI",
        help="MLflow store (default: $MLFLOW_TRACKING_URI, else the project's own store)",
    )
    return parent


def output_format() -> argparse.ArgumentParser:
    """Return a parent parser with `--format`."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--format", choices=FORMATS, default=FORMATS[0], help="output format (default: %(default)s)"
    )
    return parent


def add_variant(parser: argparse.ArgumentParser, help: str, *, required: bool) -> None:
    """Add `--variant` to a parser."""
    parser.add_argument("--variant", choices=VARIANTS, required=required, help=help)


def number_list(kind: type) -> Callable[[str], list[Any]]:
    """Return an argparse type for numbers of a kind, separated by commas."""
    words = {int: "integers", float: "numbers"}[kind]

    def parse(text: str) -> list[Any]:
        try:
            return [kind(part) for part in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(
                f"expected {words} separated by commas, got {text!r}"
            ) from error

    return parse


def integer(low: int, high: int | None = None) -> Callable[[str], int]:
    """Return an argparse type for an integer of at least `low` and at most `high`."""
    expected = f"from {low} to {high}" if high is not None else f"of at least {low}"

    def parse(text: str) -> int:
        value = int(text) if text.isdecimal() else low - 1
        if value < low or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"expected an integer {expected}, got {text!r}")
        return value

    return parse
