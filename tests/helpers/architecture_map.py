"""Write the package map of docs/architecture.md from the first sentences of module docstrings.

python -m tests.helpers.architecture_map --write
"""

from __future__ import annotations

import argparse
import ast
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/architecture.md"
START = "<!-- map: start -->"
END = "<!-- map: end -->"


def render() -> str:
    """Return the map as Markdown: a heading for each package and a line for each module."""
    blocks = ["\n".join([_entry(ROOT / "main.py"), *_modules(ROOT / "reranker")])]
    blocks += [_package(path) for path in _packages(ROOT / "reranker")]
    return "\n\n".join(blocks)


def replace(text: str) -> str:
    """Return the page's text with the map of the current code between its two markers."""
    before, rest = text.split(START)
    after = rest.split(END)[1]
    return f"{before}{START}\n\n{render()}\n\n{END}{after}"


def _packages(folder: Path) -> Iterator[Path]:
    """Yield the packages below a folder, each before the packages inside it."""
    for path in sorted(folder.iterdir()):
        if (path / "__init__.py").exists():
            yield path
            yield from _packages(path)


def _package(path: Path) -> str:
    parts = [f"### `{path.relative_to(ROOT)}/`", _wrapped(_sentence(path / "__init__.py"))]
    return "\n\n".join(part for part in [*parts, "\n".join(_modules(path))] if part)


def _modules(folder: Path) -> list[str]:
    return [_entry(path) for path in sorted(folder.glob("*.py")) if path.name != "__init__.py"]


def _entry(path: Path) -> str:
    return _wrapped(f"- `{path.relative_to(ROOT)}`: {_sentence(path)}".removesuffix(": "))


def _wrapped(text: str) -> str:
    return textwrap.fill(
        text, 98, subsequent_indent="  " * text.startswith("- "), break_on_hyphens=False
    )


def _sentence(path: Path) -> str:
    """Return the first paragraph of a module's docstring on one line, or nothing."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def main() -> None:
    """Print the map, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write it into {PAGE.name}")
    if parser.parse_args().write:
        PAGE.write_text(replace(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    else:
        print(render())


if __name__ == "__main__":
    main()
