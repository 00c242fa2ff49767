"""Test the measurements of a checkout on small ones, and the seeded samples."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from reranker.config import ROOT

MODULE = '''"""Says what stands beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from book.low import f


class A:
    def method(self, a, b, c, d, *, e):
        """Tell."""
        from book.low import f

        # alone

        return f

    @staticmethod
    def still(a, b, c, d, e): ...
'''


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "experiments")
    return importlib.import_module("codebase_metrics")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Write a checkout of a package with three modules, a test and a README."""
    files = {
        "book/__init__.py": "",
        "book/high.py": MODULE,
        "book/low.py": "def f():\n    import book.middle\n",
        "book/middle.py": "from book import low\n",
        "main.py": "x = 1  # " + "x" * 100 + "\n",
        "tests/test_book.py": "y = 2\n",
        "README.md": "# Book\n\n" + "word " * 30 + "\n| " + "x" * 100 + "\n",
        "outputs/old.py": "z = 3\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_function_sizes_do_not_count_self_docstrings_and_comments(
    metrics: ModuleType, root: Path
) -> None:
    rows = dict(metrics.function_rows(metrics.Checkout(root)))
    assert rows == {
        "functions": "3",
        "lines: median, p90, maximum": "2, 7, 7",
        "code lines: median, p90, maximum": "2, 3, 3",
        "statements: median, p90, maximum": "1, 2, 2",
        "more than 3 positional parameters": "2",
        "5 or more positional parameters": "1",
    }


def test_cycles_include_imports_in_functions_but_not_for_types(
    metrics: ModuleType, root: Path
) -> None:
    rows = dict(metrics.import_rows(metrics.Checkout(root)))
    assert rows["import cycles"] == "1: book.low, book.middle"
    assert rows["imports of the package inside functions"] == "2"


def test_relative_imports_are_followed(metrics: ModuleType, root: Path) -> None:
    (root / "book/low.py").write_text("from .middle import x\nfrom . import high\n")
    rows = dict(metrics.import_rows(metrics.Checkout(root)))
    assert rows["import cycles"] == "1: book.high, book.low, book.middle"


def test_long_lines_are_counted_by_part_without_tables(metrics: ModuleType, root: Path) -> None:
    rows = dict(metrics.line_rows(metrics.Checkout(root)))
    assert [row.split(" of ")[0] for row in rows.values()] == ["1", "0", "0", "1"]


def test_words_are_counted_in_names_comments_and_docstrings(
    metrics: ModuleType, root: Path
) -> None:
    rows = dict(metrics.idiom_rows(metrics.Checkout(root)))
    found = {phrase: n for phrase, n in rows.items() if n != "0"}
    assert found == {"all": "4", "stand": "1", "tell": "1", "beside": "1", "alone": "1"}


def test_report_has_a_column_for_each_checkout(metrics: ModuleType, root: Path) -> None:
    table = metrics.report([metrics.Checkout(root), metrics.Checkout(root)])
    assert "| README words | 34 | 34 |" in table


def test_samples_depend_on_the_seed_only(metrics: ModuleType, root: Path) -> None:
    samples = importlib.import_module("draw_samples")
    found = samples.docstrings(metrics.Checkout(root))
    assert [place for place, _ in found] == ["book/high.py:1 module", "book/high.py:12 method"]
    (place, source), *_ = samples.functions(metrics.Checkout(root))
    assert place == "book/high.py:12" and source.strip().startswith("def method(self, a")
    assert samples.sample(found, 5, seed=0) == samples.sample(found, 2, seed=0)
