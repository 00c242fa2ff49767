"""The structure of the code: import directions, no cycles, folder sizes, and no data in git."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from reranker.config import ROOT

PACKAGE = ROOT / "reranker"
_BASE = {"errors", "redaction", "terminal", "templates", "cache"}
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "redaction": set(),
    "terminal": {"errors"},
    "templates": {"errors"},
    "cache": {"errors"},
    "config": _BASE,
    "data": {*_BASE, "config"},
    "model": {*_BASE, "config"},
    "sampling": {*_BASE, "config", "data"},
    "eval": {*_BASE, "config", "data", "model"},
    "trainer": {*_BASE, "config", "data", "model", "eval"},
    "tracking": {*_BASE, "config", "data", "sampling", "model", "eval", "trainer"},
    "serving": {*_BASE, "config", "data", "sampling", "model", "eval", "trainer", "tracking"},
}
BELOW["reports"] = {*BELOW["serving"], "serving"}
BELOW["sweep"] = BELOW["pipeline"] = {*BELOW["reports"], "reports"}
BELOW["api"] = {*BELOW["pipeline"], "pipeline"}
BELOW["cli"] = {*BELOW["pipeline"], "pipeline", "sweep"}
HOMES = {
    "hydra": {"config", "sweep", "cli/run"},
    "omegaconf": {"config", "sweep", "cli/run"},
    "dask": {"data", "sampling"},
    "torch": {"model", "trainer"},
    "transformers": {"model", "trainer"},
    "sentence_transformers": {"model", "trainer"},
    "openvino": {"model"},
    "nncf": {"model"},
    "mlflow": {"tracking", "serving", "reports/comparison", "sweep"},
    "matplotlib": {"reports"},
    "boto3": {"data/storage/s3"},
    "botocore": {"data/storage/s3"},
}
# Models registered by version 0.1 import `Reranker` from here.
OLD_IMPORT_PATHS = {PACKAGE / "tracking/serving.py"}
# The file that MLflow stores with a model imports the public name, which is stable.
PUBLIC_NAMES = {PACKAGE / "serving/mlflow_model.py": {"Reranker"}}
SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "main.py"]


def imported(path: Path) -> set[str]:
    """Every absolute module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def package_of(path: Path) -> str:
    """The first folder below `reranker/`, or the module's own name."""
    return path.stem if path.parent in (PACKAGE, ROOT) else path.relative_to(PACKAGE).parts[0]


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    package = package_of(path)
    if package not in BELOW or path in OLD_IMPORT_PATHS:
        assert package in {"main", "__init__"} or path in OLD_IMPORT_PATHS
        return
    used = {m.split(".")[1] for m in imported(path) if m.startswith("reranker.")} - {package}
    used -= PUBLIC_NAMES.get(path, set())
    assert used <= BELOW[package], f"{path} imports {used - BELOW[package]}, which is above it"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_are_imported_by_their_packages_only(path: Path) -> None:
    places = {package_of(path)}
    if PACKAGE in path.parents:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        places |= {"/".join(parts[:n]) for n in range(1, len(parts) + 1)}
    used = {m.split(".")[0] for m in imported(path)}
    for library, homes in HOMES.items():
        assert library not in used or places & homes, f"{path} imports {library}; only {homes} may"


def test_no_module_imports_itself_through_others() -> None:
    """Imports inside functions count, so that none of them hides a cycle."""
    modules = {module_name(path): path for path in SOURCES if path not in OLD_IMPORT_PATHS}
    edges = {
        name: {m for m in imported(path) if m in modules and m != name and m not in name}
        for name, path in modules.items()
    }
    order = graphlib.TopologicalSorter(edges)
    order.prepare()  # raises CycleError and names the modules


def test_no_folder_has_more_than_16_files() -> None:
    folders = [PACKAGE, ROOT / "tests", ROOT / "conf", ROOT / "experiments", ROOT / "docs"]
    sizes = Counter(
        path.parent
        for folder in folders
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    assert {str(folder): n for folder, n in sizes.items() if n > 16} == {}


def git(*args: str) -> list[str]:
    """Git's answer, where the project is a checkout of its own; elsewhere the test is skipped."""
    try:
        top, listed = (
            subprocess.run(
                ["git", "-C", str(ROOT), *a], capture_output=True, text=True, check=False
            )
            for a in (("rev-parse", "--show-toplevel"), args)
        )
    except FileNotFoundError:
        pytest.skip("git is not installed, so nobody can say which files are the project's")
    if top.returncode or Path(top.stdout.removesuffix("\n")).resolve() != ROOT:
        pytest.skip(
            f"{ROOT} is not a git checkout, so nobody can say which files are the project's"
        )
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split("\0")[:-1]


def tracked() -> list[str]:
    return git("ls-files", "-z", "--cached")


def test_nothing_tracked_is_data_or_weights() -> None:
    banned = (".parquet", ".safetensors", ".bin", ".pt", ".csv", ".gz", ".db", ".npy")
    assert [f for f in tracked() if f.endswith(banned)] == []


def wording(*phrases: str) -> re.Pattern[str]:
    """Return a pattern of phrases: in names too, and across lines of a comment or string."""
    words = ("""[\\s_#"']+""".join(phrase.split()) for phrase in phrases)
    return re.compile(rf"(?<![a-z])(?:{'|'.join(words)})(?![a-z])", re.IGNORECASE)


# Phrases that the project's plain English avoids, and a way to say it.
BANNED = {
    wording("told apart"): "there is no significant difference",
    wording("be had"): "is available",
    wording("lessons?"): "training pairs, teacher scores",
    wording("whole or absent"): "atomic",
    wording("beside"): "next to, in addition to",
    wording("gone on"): "resumed, continued",
    wording("as ever"): "as usual",
    wording("tells"): "logs, shows, reports",
    wording("stands for"): "represents, is the value of",
    wording("doors?"): "checks, connection",
    # "A process of its own", but not "a part of its own context".
    re.compile(
        r"\bof[\s_#]+(?:its|their)[\s_#]+own(?=[^\w\s]|_|\s+(?:and|at|for|in|on|that|with)\b)"
    ): "a separate X",
    # "For" as a conjunction.
    re.compile(r", for\s+(?:#\s+)?(?:it|they|there|he|she|we|none|nobody|nothing)\b"): "because",
    # A comment, docstring or sentence that begins with "Of"; `Of {series}` is a template.
    re.compile(
        r'(?:^\s*[-*>#]*\s*|"""|[.!?:]\s+)Of\s+(?!\{)', re.MULTILINE
    ): "start with the subject",
}
# Files that list the phrases, and the words from which demo books are made.
EXEMPT = {
    "tests/test_design.py",
    "experiments/codebase_metrics.py",
    "tests/test_codebase_metrics.py",
    "reranker/data/sources/demo/words.py",
}
# File -> texts that keep a phrase: data, cache keys, purposes of draws, messages of libraries.
ALLOWED: dict[str, set[str]] = {}


def test_wording_is_plain() -> None:
    folders = [PACKAGE, *(ROOT / name for name in ("conf", "docs", "experiments", "tests"))]
    paths = [path for folder in folders for path in folder.rglob("*")]
    found = []
    for path in [*paths, *ROOT.glob("*.py"), *ROOT.glob("*.md")]:
        name = path.relative_to(ROOT).as_posix()
        if path.suffix not in {".py", ".md", ".html", ".yaml"} or name in EXEMPT:
            continue
        text = path.read_text(encoding="utf-8")
        for allowed in ALLOWED.get(name, ()):
            text = text.replace(allowed, "")
        for pattern, instead in BANNED.items():
            for match in pattern.finditer(text):
                line = text.count("\n", 0, match.end()) + 1
                phrase = " ".join(match.group().split())
                found.append(f"{name}:{line}: {phrase!r}; say {instead!r}")
    assert not found, "\n" + "\n".join(sorted(found))
