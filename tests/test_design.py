"""The house stands as README draws it: imports go one way, libraries have homes, and the map equals the tree."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from reranker.config import ROOT

PACKAGE = ROOT / "reranker"
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "templates": {"errors"},
    "config": {"errors", "templates"},
    "cache": {"errors"},
    "data": {"errors", "templates", "config", "cache"},
    "sampling": {"errors", "config", "cache", "data"},
    "model": {"errors", "config", "cache"},
    "eval": {"errors", "config", "cache", "data", "model"},
    "trainer": {"errors", "config", "cache", "model", "eval"},
    "tracking": {"errors", "config", "cache", "data", "sampling", "model", "eval", "trainer"},
}
HOMES = {
    "hydra": {"config", "tracking/sweep", "main"},
    "omegaconf": {"config", "tracking/sweep", "main"},
    "dask": {"data", "sampling"},
    "torch": {"model", "trainer"},
    "transformers": {"model", "trainer"},
    "sentence_transformers": {"model", "trainer"},
    "openvino": {"model"},
    "nncf": {"model"},
    "mlflow": {"tracking"},
    "matplotlib": {"tracking"},
    "boto3": {"data/s3"},
    "botocore": {"data/s3"},
}
SOURCES = [*sorted(PACKAGE.rglob("*.py")), ROOT / "main.py"]


def imports(path: Path) -> set[str]:
    """Every absolute module that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def room(path: Path) -> str:
    return path.stem if path.parent in (PACKAGE, ROOT) else path.relative_to(PACKAGE).parts[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards(path: Path) -> None:
    if room(path) not in BELOW:  # cli, main, the package's own front: they see all
        return
    own = {m.split(".")[1] for m in imports(path) if m.startswith("reranker.")} - {room(path)}
    assert own & {"cli"} == set()
    assert own <= BELOW[room(path)], f"{path} reaches up to {own - BELOW[room(path)]}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_libraries_stay_in_their_homes(path: Path) -> None:
    names = {room(path)}
    if PACKAGE in path.parents:
        names.add(path.relative_to(PACKAGE).with_suffix("").as_posix())
    used = {m.split(".")[0] for m in imports(path)}
    for library, homes in HOMES.items():
        assert library not in used or names & homes, f"{path} imports {library}, whose home is {homes}"


def git(*args: str) -> list[str]:
    """Git's answer, where the project is a checkout of its own; elsewhere the test is skipped."""
    try:
        top, listed = (
            subprocess.run(["git", "-C", str(ROOT), *a], capture_output=True, text=True, check=False)
            for a in (("rev-parse", "--show-toplevel"), args)
        )
    except FileNotFoundError:
        pytest.skip("git is not installed, so nobody can say which files are the project's")
    if top.returncode or Path(top.stdout.removesuffix("\n")).resolve() != ROOT:
        pytest.skip(f"{ROOT} is not a git checkout, so nobody can say which files are the project's")
    assert listed.returncode == 0, listed.stderr
    return listed.stdout.split("\0")[:-1]


def tracked() -> list[str]:
    return git("ls-files", "-z", "--cached")


def new_code() -> list[str]:
    """Modules and configs that nobody has added yet; other files that lie about are not the project's."""
    others = git("ls-files", "-z", "--others", "--exclude-standard", "reranker", "tests", "conf", "experiments")
    return [f for f in others if f.endswith((".py", ".yaml"))]


def test_the_readmes_map_equals_the_tree() -> None:
    block = re.search(r"## The map\n.*?```\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block
    drawn: set[str] = set()
    stack: list[str] = []
    for line in block.group(1).splitlines():
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip())) // 2
        stack = [*stack[:depth], name]
        if not name.endswith("/"):
            drawn.add("".join(stack))
    code = {f for f in tracked() + new_code() if f.endswith((".py", ".yaml")) and (ROOT / f).exists()}
    assert {f for f in drawn if f.endswith((".py", ".yaml"))} == code
    assert all((ROOT / f).exists() for f in drawn)


def test_nothing_tracked_is_data_or_weights() -> None:
    banned = (".parquet", ".safetensors", ".bin", ".pt", ".csv", ".gz", ".db", ".npy")
    assert [f for f in tracked() if f.endswith(banned)] == []
