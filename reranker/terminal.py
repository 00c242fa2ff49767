"""Printable text, tables and progress bars for the terminal."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

Step = TypeVar("Step")


def visible(text: str) -> str:
    """Return the text with control characters replaced, so that data cannot control the terminal.

    Example:
        >>> visible("Dune\\x1b[2J")
        'Dune [2J'
    """
    return "".join(c if c.isprintable() else " " for c in text)


def cut(value: object, width: int) -> str:
    """Return the printable text of a value, cut to a number of terminal columns.

    Example:
        >>> cut("The Hobbit", 6)
        'The H…'
    """
    from rich.text import Text

    text = Text(visible(str(value)))
    text.truncate(width, overflow="ellipsis")
    return text.plain


def make_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    title: str | None = None,
    bold: Container[int] = (),
    wrap: bool = False,
    texts: Container[int] = (0,),
) -> Table:
    """Return a table whose text columns are left-aligned and whose other columns right-aligned.

    Args:
        columns: The header.
        rows: A cell per column; control characters and rich markup have no effect.
        title: Printed above the table.
        bold: Numbers of the rows to print in bold, from 0.
        wrap: Whether cells may continue on a second line; otherwise they are cut.
        texts: Numbers of the text columns, from 0.
    """
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    def cell(value: object) -> Text:
        return Text(visible(str(value)))

    table = Table(title=cell(title) if title else None, title_justify="left", box=SIMPLE_HEAD)
    for i, name in enumerate(columns):
        table.add_column(
            cell(name),
            justify="left" if i in texts else "right",
            no_wrap=not wrap,
            overflow="fold" if wrap else "ellipsis",
        )
    for i, row in enumerate(rows):
        table.add_row(*map(cell, row), style="bold" if i in bold else "")
    return table


def with_progress(
    steps: Iterable[Step], label: str | None, n_steps: int | None = None
) -> Iterable[Step]:
    """Return the steps, with a progress bar if there is a label and the output is a terminal.

    Args:
        steps: What to iterate over.
        label: Text of the progress bar; None shows no bar.
        n_steps: Number of steps, if `steps` has no length.
    """
    from rich import get_console
    from rich.progress import track

    if label is None or not get_console().is_interactive:
        return steps
    return track(steps, label, total=n_steps, console=get_console(), transient=True)
