"""What a terminal shows: printable text and progress bars."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    pass


def visible(text: str) -> str:
    """The text without control characters: a book's text must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


Step = TypeVar("Step")


def with_progress(
    steps: Iterable[Step], label: str | None, n_steps: int | None = None
) -> Iterable[Step]:
    """The steps, with a progress bar where there is a label and a terminal.

    Args:
        n_steps: How many, where they do not say so themselves.
    """
    from rich import get_console
    from rich.progress import track

    if label is None or not get_console().is_interactive:
        return steps
    return track(steps, label, total=n_steps, console=get_console(), transient=True)
