"""A wheel has the configuration files, and works in an empty folder, without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from reranker.config import ROOT

pytestmark = pytest.mark.slow
PARTS = ("reranker", "conf", "experiments", "setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel from a copy, because setuptools writes into the folder of the sources."""
    copy, built = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("built")
    for part in PARTS:
        path = ROOT / part
        copied = shutil.copytree if path.is_dir() else shutil.copy
        copied(path, copy / part)
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", str(copy), *options, "-w", str(built)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    [found] = built.glob("reranker-*.whl")
    return found


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the wheel, as an installation does."""
    folder = tmp_path_factory.mktemp("site-packages")
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(folder)
    return folder


def python(site: Path, folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder, with the package of the wheel in place of the checkout's."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, *args],
        cwd=folder,
        env=env | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_wheel_has_every_file_that_the_package_reads(site: Path) -> None:
    expected = {
        *((ROOT / "reranker").rglob("*.py")),
        *((ROOT / "reranker").rglob("*.html")),
    }
    package = site / "reranker"
    names = {path.relative_to(ROOT / "reranker") for path in expected}
    configs = [*(ROOT / "conf").rglob("*.yaml"), *(ROOT / "experiments").glob("*.yaml")]
    names |= {path.relative_to(ROOT) for path in configs}
    found = {p.relative_to(package) for p in package.rglob("*") if p.is_file()}
    assert found == names
    assert [path.name for path in site.iterdir() if path.suffix != ".dist-info"] == ["reranker"]


def test_an_installed_package_composes_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    program = "from reranker import compose; c = compose(['experiment=distil', 'model=tiny', "
    program += (
        "'trainer.teacher=x']); print(c.model.layers, c.cache_dir, c.tracking.uri, sep='\\n')"
    )
    done = python(site, tmp_path, "-c", program)
    assert done.stdout.splitlines() == [
        "3",
        f"{tmp_path}/outputs/cache",
        f"sqlite:///{tmp_path}/mlruns/mlflow.db",
    ], done.stderr
    assert list(tmp_path.iterdir()) == []


def test_an_installed_command_finds_the_presets_of_its_folder(site: Path, tmp_path: Path) -> None:
    for name, text in {
        "conf/model/small.yaml": "name: small\nsource: random\nmax_length: 32\n",
        "experiments/mine.yaml": "# @package _global_\nsampling: {neg_ratio: 7}\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    own = ["model=small", "+experiment=mine"]
    done = python(site, tmp_path, "-m", "reranker.cli.main", "run", "--cfg=job", *own)
    assert "max_length: 32" in done.stdout and "neg_ratio: 7" in done.stdout, done.stderr
    wrong = python(site, tmp_path, "-m", "reranker.cli.main", "run", "modle=tiny")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr.startswith("ConfigError: 'modle=tiny': unknown option 'modle'. Did you")
    assert "Traceback" not in wrong.stderr
