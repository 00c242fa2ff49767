"""Print a summary of pairs to the terminal."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence

from rich.cells import cell_len
from rich.console import Console
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from reranker.reports.data.distributions import QUANTILES, Distribution
from reranker.reports.page import count, number, short
from reranker.reports.pairs import wording
from reranker.reports.pairs.examples import Example
from reranker.reports.pairs.summary import PairsSummary
from reranker.terminal import cut, make_table, visible

MAX_FILES = 10
MAX_EXAMPLES = 2
MAX_ID = 16  # columns of an id
MIN_TEXT = 12
MAX_CONTEXT = 300  # characters of a context
PADDING = 3  # columns between cells
STATS = ("mean", *QUANTILES)


def print_summary(summary: PairsSummary) -> None:
    """Print the tables of a summary; their width is the terminal's, 80 without a terminal."""
    console = Console(highlight=False)
    n, size = len(summary.parts), decimal(sum(part.bytes for part in summary.parts))
    print(f"{visible(summary.place)}: {count(n)} {'file' if n == 1 else 'files'}, {size}")
    if summary.ignored:
        print(f"not parquet, ignored: {visible(', '.join(path.name for path in summary.ignored))}")
    for title, columns, rows, texts in _tables(summary):
        console.print(make_table(columns, rows, title=title, wrap=True, texts=texts))
    if summary.head:
        console.print(_head(summary, console.width))
    for example in summary.examples[:MAX_EXAMPLES]:
        _print_example(console, example)
    print(f"digest: {summary.digest}")


def _head(summary: PairsSummary, width: int) -> Table:
    """Return the first pairs as a table; ids take what they need, and texts share the rest."""
    names = list(summary.head[0])
    cells = {
        name: ["" if row[name] is None else cut(row[name], MAX_ID) for row in summary.head]
        for name in names
        if name not in wording.TEXTS
    }
    taken = sum(max(map(cell_len, (name, *column))) for name, column in cells.items())
    left = width - taken - PADDING * len(names) - 1
    for name in wording.TEXTS:
        cells[name] = [cut(row[name], max(MIN_TEXT, left // 2)) for row in summary.head]
    rows = list(zip(*(cells[name] for name in names), strict=True))
    return make_table(names, rows, title="first pairs", texts=range(len(names) - 1))


def _print_example(console: Console, example: Example) -> None:
    console.print(Text(cut(f"user {example.user_id}", console.width), style="bold"))
    context = Text(visible(short(example.context, MAX_CONTEXT)))
    console.print(Padding(context, (0, 0, 0, 2)))
    for label, texts in example.texts.items():
        for text in texts:
            print(f"  {label}  {cut(text, console.width - 5)}")
    print()


def _tables(
    summary: PairsSummary,
) -> Iterable[tuple[str, Sequence[str], Iterable[Sequence[object]], Container[int]]]:
    n, files = summary.n, summary.parts
    shown = [(part.path.name, count(part.rows), count(part.bytes)) for part in files[:MAX_FILES]]
    if len(files) > MAX_FILES:
        rest = files[MAX_FILES:]
        n_rows, n_bytes = sum(part.rows for part in rest), sum(part.bytes for part in rest)
        shown.append((f"{len(rest)} more files", count(n_rows), count(n_bytes)))
    yield "files", ("file", "rows", "bytes"), shown, (0,)
    columns = [
        (name, kind, *(_known(found, name) for found in (summary.n_null, summary.n_blank)))
        for name, kind in summary.columns.items()
    ]
    yield "columns", ("column", "type", "null", "blank"), columns, (0, 1)
    sizes = [(name, n[name]) for name in ("users", "contexts", "books")]
    counted = [*wording.rows(summary), *sizes]
    yield "counts", ("", "n"), [(name, count(value)) for name, value in counted], (0,)
    labels = [
        (name, count(value), f"{share:.1%}") for name, value, share in wording.labels(summary)
    ]
    yield "labels", ("label", "pairs", "share"), labels, (0,)
    checks = [(label, count(n[name])) for name, label in wording.CHECKS.items()]
    yield "checks", ("", "n"), checks, (0,)
    for title, found in (
        ("per user", wording.per_user(summary)),
        ("lengths, over pairs", wording.lengths(summary)),
    ):
        yield title, ("", *STATS), [(name, *_stats(values)) for name, values in found], (0,)


def _known(counts: dict[str, int], name: str) -> str:
    return count(counts[name]) if name in counts else "not read"


def _stats(values: Distribution) -> list[str]:
    return [number(value, 1).removesuffix(".0") for value in values.stats().values()]
