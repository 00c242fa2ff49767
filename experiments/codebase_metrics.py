"""Measure the structure and the wording of a checkout, or of two checkouts side by side.

    python experiments/codebase_metrics.py                       this checkout
    python experiments/codebase_metrics.py ROOT --against ROOT2  two checkouts, a column for each

The result is a page of Markdown tables. The script needs only the standard library, and it reads
the files as text, so a checkout does not have to be installed.

Definitions:
    package     the Python files of the package, and those in the root folder (`main.py`)
    function    every `def`, methods and nested functions included
    lines       of a function, from `def` to the end of its body; code lines are those with code,
                without the docstring; statements do not depend on the formatting
    positional  parameters that can be passed by position, without `self` and `cls`
    import      also an import inside a function; imports under `TYPE_CHECKING` do not count
    prose       lines of Markdown files outside tables and code blocks, and without a link
    word        a word of a name that the code defines, or of a comment, docstring or string
"""

from __future__ import annotations

import argparse
import ast
import io
import math
import re
import subprocess
import tokenize
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

MAX_FILES, MAX_LINE = 16, 100
N_FOLDERS = 5  # largest folders in the table
CODE = {".py", ".yaml", ".yml", ".toml", ".html", ".css", ".js", ".sh", ".cfg", ".ini"}
SKIPPED = {"__pycache__", "build", "dist", "mlruns", "node_modules", "outputs", "venv"}
TESTS = {"test", "tests"}
NOT_PACKAGES = TESTS | {"docs", "examples", "experiments", "scripts"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DOCUMENTED = (ast.Module, ast.ClassDef, *FUNCTIONS)
IDIOM = {
    "stand": r"stands?|stood|standing",
    "tell": r"tells?|told|telling",
    "ask": r"asks?|asked|asking",
    "beside": r"beside",
    "lesson": r"lessons?",
    "mend": r"mend(?:s|ed|ing)?",
    "be had": r"be had",
    "told apart": r"told apart",
    "whole or absent": r"whole or absent",
    "of its own": r"of (?:its|their) own",
    "door": r"doors?",
    "account": r"accounts?",
    "taught": r"taught",
    "house": r"houses?",
    "home": r"homes?",
    "room": r"rooms?",
    "goes by": r"go(?:es)? by",
    "comes to": r"comes? to",
    "gone on": r"gone on",
    "as ever": r"as ever",
    "alone": r"alone",
    "whole": r"whole",
}

Row = tuple[str, str]
Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Checkout:
    """The files of a checkout: those that git would track, or all of them outside a repository."""

    root: Path

    @cached_property
    def files(self) -> list[Path]:
        """The paths of all files, relative to the root."""
        listed = _git_files(self.root)
        found = _walked_files(self.root) if listed is None else listed
        return sorted(path for path in found if (self.root / path).is_file())

    @cached_property
    def package(self) -> str:
        """The folder of the package: the one with most Python files."""
        tops = {p.parts[0] for p in self.files if p.name == "__init__.py" and len(p.parts) == 2}
        if not (names := tops - NOT_PACKAGES):
            raise SystemExit(f"{self.root} has no folder with an __init__.py outside tests.")
        sizes = Counter(p.parts[0] for p in self.files if p.suffix == ".py")
        return max(sorted(names), key=lambda name: sizes[name])

    def text(self, path: Path) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def area(self, path: Path) -> str:
        """Return "package", "tests" or "other"."""
        if path.parts[0] in TESTS:
            return "tests"
        is_package = path.parts[0] == self.package or (len(path.parts) == 1)
        return "package" if is_package and path.suffix == ".py" else "other"

    @cached_property
    def trees(self) -> dict[Path, ast.Module]:
        """Path -> syntax tree of every file of the package."""
        paths = [p for p in self.files if p.suffix == ".py" and self.area(p) == "package"]
        return {path: ast.parse(self.text(path)) for path in paths}

    @cached_property
    def functions(self) -> list[tuple[Path, Function, bool]]:
        """Path, node and "is it a method" of every function of the package."""
        return [(path, *found) for path, tree in self.trees.items() for found in _functions(tree)]


def _git_files(root: Path) -> list[Path] | None:
    """Return the files that git tracks or would add, None where the root is not a checkout."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others"]
    if not (root / ".git").exists():
        return None
    try:
        run = subprocess.run([*command, "--exclude-standard"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return None if run.returncode else [Path(name) for name in run.stdout.split("\0")[:-1]]


def _walked_files(root: Path) -> list[Path]:
    paths = (path.relative_to(root) for path in root.rglob("*"))
    return [p for p in paths if not any(s.startswith(".") or s in SKIPPED for s in p.parts)]


def _functions(node: ast.AST, is_method: bool = False) -> Iterator[tuple[Function, bool]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield child, is_method
        yield from _functions(child, is_method=isinstance(child, ast.ClassDef))


def folder_rows(checkout: Checkout) -> list[Row]:
    """Return the number of crowded folders, and the largest ones."""
    sizes = Counter(path.parent for path in checkout.files)
    crowded = sum(n > MAX_FILES for n in sizes.values())
    largest = sizes.most_common(N_FOLDERS)
    named = (f"{'.' if str(f) == '.' else f} ({n})" for f, n in largest)
    return [
        ("files", str(len(checkout.files))),
        ("folders", str(len(sizes))),
        (f"folders with more than {MAX_FILES} files", str(crowded)),
        (f"the {N_FOLDERS} largest folders (files)", ", ".join(named)),
    ]


def function_rows(checkout: Checkout) -> list[Row]:
    """Return the sizes of the package's functions and their numbers of positional parameters."""
    if not checkout.functions:
        return [("functions", "0")]
    positional = [n_positional(f, m) for _, f, m in checkout.functions]
    code = {path: _code_lines(checkout.text(path), tree) for path, tree in checkout.trees.items()}
    sizes = {
        "lines": [len(_span(f)) for _, f, _ in checkout.functions],
        "code lines": [len(code[path] & _span(f)) for path, f, _ in checkout.functions],
        "statements": [n_statements(f) for _, f, _ in checkout.functions],
    }
    return [
        ("functions", str(len(checkout.functions))),
        *((f"{name}: median, p90, maximum", _spread(values)) for name, values in sizes.items()),
        ("more than 3 positional parameters", str(sum(n > 3 for n in positional))),
        ("5 or more positional parameters", str(sum(n >= 5 for n in positional))),
    ]


def _spread(values: list[int]) -> str:
    ordered = sorted(values)
    return f"{_quantile(ordered, 0.5)}, {_quantile(ordered, 0.9)}, {ordered[-1]}"


def _quantile(ordered: list[int], q: float) -> int:
    """Return the smallest value that a share q of the values does not exceed."""
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def _span(node: Function | ast.stmt) -> set[int]:
    """Return the numbers of the lines from the first to the last of a node."""
    return set(range(node.lineno, (node.end_lineno or node.lineno) + 1))


def _code_lines(text: str, tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that hold code: no docstring, comment or blank line."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT and token.string.strip():
            found |= set(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node) is not None:
            found -= _span(node.body[0])
    return found


def n_statements(function: Function) -> int:
    """Return the number of statements in the body, nested ones included, without the docstring."""
    has_docstring = ast.get_docstring(function) is not None
    return sum(isinstance(node, ast.stmt) for node in ast.walk(function)) - 1 - has_docstring


def n_positional(function: Function, is_method: bool) -> int:
    """Return the number of parameters that can be passed by position, without self and cls."""
    decorators = {d.id for d in function.decorator_list if isinstance(d, ast.Name)}
    n = len(function.args.posonlyargs) + len(function.args.args)
    return max(0, n - (is_method and "staticmethod" not in decorators))


def line_rows(checkout: Checkout) -> list[Row]:
    """Return the number of lines over the limit in each part of the checkout."""
    counts: Counter[str] = Counter()
    totals: Counter[str] = Counter()
    for path in checkout.files:
        if path.suffix in CODE:
            area, lines = checkout.area(path), checkout.text(path).splitlines()
        elif path.suffix == ".md":
            area, lines = "prose", list(_prose(checkout.text(path)))
        else:
            continue
        totals[area] += len(lines)
        counts[area] += sum(len(line) > MAX_LINE for line in lines)
    areas = ("package", "tests", "other", "prose")
    return [
        (f"{area}: lines over {MAX_LINE}", f"{counts[area]} of {totals[area]}") for area in areas
    ]


def _prose(text: str) -> Iterator[str]:
    is_code = False
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            is_code = not is_code
            continue
        exempt = is_code or line.lstrip().startswith("|") or line.startswith("    ")
        if not (exempt or "](" in line or "://" in line):
            yield line


def import_rows(checkout: Checkout) -> list[Row]:
    """Return the import cycles of the package and its imports of itself inside functions."""
    modules = {_module_name(path): path for path in checkout.trees}
    edges = {
        name: {m for node in _imports(checkout.trees[path]) for m in _targets(node, path, modules)}
        for name, path in modules.items()
    }
    cycles = [sorted(group) for group in _components(edges) if len(group) > 1]
    inner = sum(
        any(name.split(".")[0] == checkout.package for name in _names(node, path))
        for path, function, _ in checkout.functions
        for node in _own_imports(function)
    )
    named = "; ".join(", ".join(cycle) for cycle in sorted(cycles))
    return [
        ("modules", str(len(modules))),
        ("import cycles", f"{len(cycles)}" + (f": {named}" if named else "")),
        ("imports of the package inside functions", str(inner)),
    ]


def _module_name(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imports(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield every import statement below a node, except those under TYPE_CHECKING."""
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for statement in node.orelse:
            yield from _imports(statement)
        return
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        yield node
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def _own_imports(function: Function) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of a function that are not in a function inside it."""
    nested = {id(i) for f, _ in _functions(function) for i in _imports(f)}
    return (node for node in _imports(function) if id(node) not in nested)


def _names(node: ast.Import | ast.ImportFrom, path: Path) -> list[str]:
    """Return the absolute names that an import statement may import: modules and attributes."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    base = list(path.parent.parts[: len(path.parent.parts) + 1 - node.level]) if node.level else []
    source = ".".join([*base, *([node.module] if node.module else [])])
    return [f"{source}.{alias.name}" for alias in node.names]


def _targets(
    node: ast.Import | ast.ImportFrom, path: Path, modules: Mapping[str, Path]
) -> Iterator[str]:
    """Yield the modules of the checkout that an import statement names."""
    for name in _names(node, path):
        while name and name not in modules:
            name = name.rpartition(".")[0]
        if name and name != _module_name(path):
            yield name


def _components(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the strongly connected components of a graph: each with what it reaches and back."""
    reached = {name: _reachable(name, edges) for name in edges}
    groups = (frozenset({n, *(m for m in reached[n] if n in reached[m])}) for n in edges)
    return [set(group) for group in dict.fromkeys(groups)]


def _reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    seen: set[str] = set()
    todo = [start]
    while todo:
        for name in edges[todo.pop()] - seen:
            seen.add(name)
            todo.append(name)
    return seen


def readme_rows(checkout: Checkout) -> list[Row]:
    """Return the size of the README."""
    texts = [checkout.text(p) for p in checkout.files if str(p).lower() == "readme.md"]
    text = texts[0] if texts else ""
    return [
        ("README lines", str(len(text.splitlines()))),
        ("README words", str(len(text.split()))),
    ]


def idiom_rows(checkout: Checkout) -> list[Row]:
    """Return how often the package uses each phrase of IDIOM; correct uses are counted too."""
    counts: Counter[str] = Counter()
    for path, tree in checkout.trees.items():
        for text in [*_defined_names(tree), *_comments(checkout.text(path)), *_strings(tree)]:
            for phrase, pattern in IDIOM.items():
                counts[phrase] += len(re.findall(rf"\b(?:{pattern})\b", text, re.IGNORECASE))
    rows = [(phrase, str(counts[phrase])) for phrase in IDIOM]
    return [("all", str(counts.total())), *rows]


def _defined_names(tree: ast.Module) -> Iterator[str]:
    """Yield the words of every name that is defined: functions, classes, parameters, variables."""
    for node in ast.walk(tree):
        if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
            name = node.name
        elif isinstance(node, ast.arg):
            name = node.arg
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            name = node.id if isinstance(node, ast.Name) else node.attr
        else:
            continue
        yield re.sub(r"_+|(?<=[a-z])(?=[A-Z])", " ", name)


def _comments(text: str) -> Iterator[str]:
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.string


def _strings(tree: ast.Module) -> Iterator[str]:
    """Yield every string of the code, docstrings and the parts of f-strings included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield " ".join(node.value.split())


SECTIONS = {
    "Folders": folder_rows,
    "Functions of the package": function_rows,
    "Lines": line_rows,
    "Imports of the package": import_rows,
    "README": readme_rows,
    "Words of the package": idiom_rows,
}


def report(checkouts: list[Checkout]) -> str:
    """Return a table in Markdown for every section, with a column for each checkout."""
    names = [str(checkout.root) for checkout in checkouts]
    lines = []
    for title, measure in SECTIONS.items():
        lines += [f"\n## {title}\n", f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
        columns = [dict(measure(checkout)) for checkout in checkouts]
        for row in dict.fromkeys(row for column in columns for row in column):
            lines.append(f"| {row} | {' | '.join(c.get(row, '') for c in columns)} |")
    return "\n".join(lines).lstrip()


def main() -> None:
    """Print the report of one or two checkouts."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("root", nargs="?", type=Path, default=here, help="a checkout (this one)")
    parser.add_argument("--against", type=Path, help="a second checkout, shown in the next column")
    args = parser.parse_args()
    print(report([Checkout(root) for root in (args.root, args.against) if root]))


if __name__ == "__main__":
    main()
