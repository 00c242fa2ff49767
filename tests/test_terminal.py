"""Text and tables for the terminal do not interpret the data."""

from __future__ import annotations

import io

from rich.console import Console

from reranker.terminal import make_table, visible, with_progress


def printed(*args: object, width: int = 40, **options: object) -> list[str]:
    """The lines of a table without trailing spaces and empty lines."""
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(make_table(*args, **options))
    lines = console.file.getvalue().splitlines()
    return [line.rstrip() for line in lines if line.strip()]


def test_control_characters_are_replaced() -> None:
    assert visible("a\x1b[31mb\nc\u202ed é") == "a [31mb c d é"


def test_a_table_aligns_numbers_and_shows_markup_and_control_characters_as_text() -> None:
    rows = [("[bold]x", "0.5 [0.4, 0.6]"), ("y\x1b", 12)]
    title, header, _, *body = printed(("scorer", "NDCG@10"), rows, title="[red]all")
    assert title == "[red]all"
    assert header.split() == ["scorer", "NDCG@10"]
    assert [" ".join(line.split()) for line in body] == ["[bold]x 0.5 [0.4, 0.6]", "y 12"]
    assert len(body[0]) == len(body[1])


def test_long_cells_are_cut_or_continue_on_the_next_line() -> None:
    rows = [("x" * 30, 1)]
    cut = printed(("a", "b"), rows, width=20)
    assert len(cut) == 3 and "…" in cut[-1]
    folded = printed(("a", "b"), rows, width=20, wrap=True)
    assert "".join(folded[2:]).count("x") == 30


def test_progress_without_a_terminal_or_label_returns_the_steps() -> None:
    steps = [1, 2]
    assert with_progress(steps, "label") is steps
    assert with_progress(steps, None) is steps
