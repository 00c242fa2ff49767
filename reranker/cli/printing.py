"""Print tables and JSON of the subcommands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence

Row = tuple[object, ...]


def print_table(title: str, columns: Sequence[str], rows: Iterable[Row]) -> None:
    """Print a table; long cells continue on the next line."""
    from rich.console import Console

    from reranker.terminal import make_table

    Console().print(make_table(columns, rows, title=title, wrap=True))


def print_json(value: object) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, ensure_ascii=False, indent=1))
