"""Every third-party import belongs to a declared dependency, and every dependency is pinned."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from reranker.config import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
# Folders and files -> the extras that their imports may come from.
IMPORTERS = {
    "reranker": {"export"},
    "main.py": set(),
    "experiments": {"bench", "dev", "export"},
    "tests": {"bench", "dev", "export"},
}
# Modules that another distribution always installs and documents as a part of itself.
PARTS = {"botocore": "boto3", "distributed": "dask", "datasets": "sentence-transformers"}
# Compared in a benchmark that needs a separate environment.
PEERS = {"lenskit", "recbole"}
SCRIPTS = {p.stem for p in (ROOT / "experiments").rglob("*.py")} | {"sides"}  # imported as scripts
OWN = {"reranker", "main", "experiments", "tests", *SCRIPTS, *PEERS}


def canonical(name: str) -> str:
    """Return a distribution's name in the form of PEP 503."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(requirements: Iterable[str]) -> set[str]:
    return {canonical(re.split(r"[\[<>=!~ ]", line)[0]) for line in requirements}


def imports(path: Path) -> set[str]:
    """Return the top-level names of all absolute imports in a file."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


@lru_cache
def distributions() -> dict[str, list[str]]:
    return {
        module: sorted({canonical(name) for name in names})
        for module, names in packages_distributions().items()
    }


def third_party(place: str) -> dict[str, str]:
    """Return each third-party module that a folder imports, with one importing file."""
    root = ROOT / place
    files = [root] if root.suffix == ".py" else sorted(root.rglob("*.py"))
    return {
        module: file.relative_to(ROOT).as_posix()
        for file in files
        for module in imports(file)
        if module not in OWN | sys.stdlib_module_names
    }


@pytest.mark.parametrize("place", IMPORTERS)
def test_every_third_party_import_is_declared(place: str) -> None:
    lines = [*PROJECT["dependencies"], *(line for e in IMPORTERS[place] for line in EXTRAS[e])]
    allowed = declared(lines)
    missing = {
        module: file
        for module, file in third_party(place).items()
        # The module's own name is for extras that are not installed.
        if not allowed & {*distributions().get(module, []), PARTS.get(module, canonical(module))}
    }
    assert missing == {}


def test_every_dependency_is_pinned_in_the_constraints() -> None:
    text = (ROOT / "constraints.txt").read_text()
    pinned = {canonical(line.split("==")[0]) for line in text.splitlines()}
    lines = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]
    assert declared(lines) - pinned == {"reranker"}


def test_no_distribution_is_pinned_twice() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    names = [canonical(line.split("==")[0]) for line in lines]
    assert len(names) == len(set(names))
    assert lines == sorted(lines, key=str.lower)
