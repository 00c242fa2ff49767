"""A sweep with an impossible job does not start, and its one line names the job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from reranker.config import ROOT
from reranker.errors import ConfigError
from reranker.tracking.sweep import CheckedJobs, check_jobs


def check(*overrides: str) -> None:
    """Check the jobs of a multirun as Hydra hands it to the callback."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        check_jobs(hydra.compose_config("config", list(overrides), run_mode=RunMode.MULTIRUN))


@pytest.mark.slow
def test_a_sweep_of_possible_jobs_passes() -> None:
    check("experiments=none,goodreads_cpu", "sampling.neg_ratio=choice(3,5)")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["sampling.neg_ratio=0,-1"], "job 0 (sampling.neg_ratio=0): sampling.neg_ratio=0 is impossible"),
        (
            ["model=tiny", "trainer.epochs=1,-1"],
            "job 1 (model=tiny trainer.epochs=-1): trainer.epochs=-1.0 is impossible; it must be above 0.",
        ),
        (
            ["data.dev_fraction=0.1,0.6", "data.test_fraction=0.5"],
            "job 1 (data.dev_fraction=0.6 data.test_fraction=0.5): data.dev_fraction=0.6 and data.test_fraction=0.5 ",
        ),
        (["experiments=none,goodreads_cp"], "job 1 (experiments=goodreads_cp): In 'config': Could not find"),
        (
            ["sampling.neg_ratio=3,many"],
            "job 1 (sampling.neg_ratio=many): Error merging override sampling.neg_ratio=many",
        ),
        (["trainer.epochs=interval(1,2)"], "does not support sweep type"),
    ],
)
def test_an_impossible_job_is_named_in_one_line(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(*overrides)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert "searchpath" not in str(error.value)


@pytest.mark.slow
def test_a_saved_sweep_is_checked_too(tmp_path: Path) -> None:
    saved = {"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {"sampling.neg_rato": "3,5"}}}}
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "grid.yaml").write_text(f"# @package _global_\n{json.dumps(saved)}\n")
    with pytest.raises(ConfigError, match=r"job 0 \(sampling\.neg_rato=3 experiments=grid\): Could not override 'samp"):
        check(f"hydra.searchpath=['file://{tmp_path}']", "experiments=grid")


def test_the_callback_ends_the_command_for_hydra_would_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(config: object) -> None:
        raise ConfigError("job 1 (a=b): no postgresql://me:canary@db/runs")

    monkeypatch.setattr("reranker.tracking.sweep.check_jobs", refuse)
    with pytest.raises(
        SystemExit, match=r"^ConfigError: the sweep does not start: job 1 \(a=b\): no postgresql://\*\*\*@"
    ):
        CheckedJobs().on_multirun_start({})


def test_torchrun_starts_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match=r"ConfigError: the sweep does not start: torchrun trains one run .* main\.py"):
        CheckedJobs().on_multirun_start({})
