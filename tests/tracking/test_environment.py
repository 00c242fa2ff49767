"""What a run says of versions, machine and commit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from reranker.tracking import environment


def test_facts_name_versions_machine_and_commit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert environment.versions()["numpy"] == np.__version__
    assert environment.versions()["python"] == sys.version.split()[0]
    assert environment.machine()["n_cores"] == os.cpu_count()
    monkeypatch.setenv(
        "GIT_CONFIG_GLOBAL", os.devnull
    )  # a developer's commit.gpgsign would ask for a key
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    assert environment.git_commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert environment.git_commit() is None  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run(
        [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
    ).stdout.strip()
    assert environment.git_commit() == head
    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(
        environment, "ROOT", tmp_path / "inside"
    )  # somebody else's checkout around the project
    assert environment.git_commit() is None
