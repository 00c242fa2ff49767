"""Versions, machine and commit that a run logs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reranker.tracking import environment


def test_versions_and_number_of_cores() -> None:
    assert environment.versions()["numpy"] == np.__version__
    assert environment.versions()["python"] == sys.version.split()[0]
    assert environment.machine()["n_cores"] == os.cpu_count()


def test_the_commit_is_that_of_the_projects_own_checkout(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # The user's commit.gpgsign would need a key.
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.git_commit() is None  # not a checkout
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert environment.git_commit() is None  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    shown = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    assert environment.git_commit() == shown.stdout.strip()
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.setattr(environment, "ROOT", inside)
    assert environment.git_commit() is None  # the checkout is that of another project
