"""`reranker run` and main.py: what reaches Hydra, and shell completion."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from reranker.cli import main as cli
from reranker.cli import run
from reranker.config import ROOT


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["model=tiny"],
        ["-m", "trainer.seed=0,1"],
        ["--help"],
        ["--cfg", "job", "--resolve"],
        ["~data.genres.war", "+experiment=distil", "'a b=c'"],
    ],
)
def test_all_arguments_after_run_reach_hydra(
    args: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(run, "main", found.append)
    assert cli.main(["run", *args]) == 0
    assert found == [args]


def hydra(*args: str, **env: str) -> str:
    """Return what main.py prints, without the variables of this shell."""
    command = [sys.executable, str(ROOT / "main.py"), *args]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.slow
def test_help_lists_the_presets_and_nothing_else() -> None:
    groups = {
        line.partition(":")[0] for line in hydra("--help").split("== Config ==")[0].split("\n")
    }
    assert {"model", "data/genres", "experiments"} <= groups
    assert not groups & {"tests", "docs", "reranker", "outputs"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("model=mini", {"model=minilm", "model=minilm_wheel"}),
        ("model=tiny trainer.lo", {"trainer.loss=", "trainer.log_steps="}),
        ("experiments=n", {"experiments=negatives", "experiments=none"}),
    ],
)
def test_the_shell_completes_presets_and_keys(typed: str, offered: set[str]) -> None:
    printed = hydra("-sc", "query=bash", COMP_LINE=f"python main.py {typed}")
    assert set(printed.split()) == offered


@pytest.mark.slow
def test_bash_completes_a_word_of_the_command_line(tmp_path: Path) -> None:
    """The script that Hydra installs completes `python` only for files that name @hydra.main."""
    (tmp_path / "python").symlink_to(sys.executable)
    script = f"""
    cd {ROOT}; PATH={tmp_path}:$PATH
    eval "$(python main.py -sc install=bash)"
    COMP_LINE='python main.py model=ti'; COMP_POINT=${{#COMP_LINE}}; COMP_CWORD=2
    hydra_bash_completion; echo "${{COMPREPLY[@]}}"
    """
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        ["bash", "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "model=tiny", done.stderr


@pytest.mark.slow
def test_a_primary_config_of_the_user_extends_the_own_one(tmp_path: Path) -> None:
    text = "defaults: [config, override model: tiny, override experiments: distil, _self_]\n"
    (tmp_path / "mine.yaml").write_text(f"{text}sampling: {{neg_ratio: 7}}\n")
    for option in ("--config-dir", "--config-path"):
        given = [option, str(tmp_path), "--config-name", "mine"]
        printed = hydra(*given, "--cfg", "job", "trainer.teacher=x")
        assert "neg_ratio: 7" in printed and "layers: 3" in printed
