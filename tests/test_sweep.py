"""A sweep checks its jobs before it starts, and its MLflow run records its children."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf

from reranker import sweep
from reranker.config import ROOT, Config
from reranker.errors import ConfigError
from reranker.sweep import CheckedJobs, check_jobs
from reranker.tracking import store
from reranker.tracking.lifecycle import PARENT
from tests.helpers.tracked import SECRET_URI, find_runs, log_run

if TYPE_CHECKING:
    from mlflow.entities import Run


def check(*overrides: str) -> None:
    """Check the jobs of a multirun with the config that Hydra passes to the callback."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        hydra = GlobalHydra.instance().hydra
        assert hydra is not None
        check_jobs(hydra.compose_config("config", list(overrides), run_mode=RunMode.MULTIRUN))


@pytest.mark.slow
def test_a_valid_sweep_passes() -> None:
    check("experiments=none,goodreads_cpu", "sampling.neg_ratio=choice(3,5)")


@pytest.mark.slow
def test_jobs_with_separate_checkpoint_folders_pass() -> None:
    check(
        "trainer.checkpoint_dir=checkpoints/${model.name}-${trainer.seed}",
        "model=tiny,minilm",
        "trainer.seed=0,1",
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (
            ["trainer.checkpoint_dir=kept", "trainer.seed=0,1"],
            "job 1 (trainer.checkpoint_dir=kept trainer.seed=1): trainer.checkpoint_dir=kept is "
            "also the folder of job 0",
        ),
        (
            ["sampling.neg_ratio=0,-1"],
            "job 0 (sampling.neg_ratio=0): sampling.neg_ratio=0 is impossible",
        ),
        (
            ["model=tiny", "trainer.epochs=1,-1"],
            "job 1 (model=tiny trainer.epochs=-1): trainer.epochs=-1.0 is impossible; it must be",
        ),
        (
            ["data.dev_fraction=0.1,0.6", "data.test_fraction=0.5"],
            "job 1 (data.dev_fraction=0.6 data.test_fraction=0.5): data.dev_fraction=0.6 and "
            "data.test_fraction=0.5 leave no train users",
        ),
        (
            ["experiments=none,goodreads_cp"],
            "job 1 (experiments=goodreads_cp): In 'config': Could not find",
        ),
        (
            ["sampling.neg_ratio=3,many"],
            "job 1 (sampling.neg_ratio=many): Error merging override sampling.neg_ratio=many",
        ),
        (["trainer.epochs=interval(1,2)"], "does not support sweep type"),
        (
            ["eval.kinds=[uniform],[bookdb]"],
            "job 0 (eval.kinds=[uniform]): eval.kinds was renamed to eval.list_kinds.",
        ),
        (
            ["eval=default,seed_protocol"],
            "job 1 (eval=seed_protocol): eval=seed_protocol was renamed to eval=bookdb_protocol.",
        ),
        (
            ["sampling.context=holdout,split"],
            "job 1 (sampling.context=split): sampling.context: 'split' was renamed to 'holdout'.",
        ),
    ],
)
def test_an_invalid_job_is_refused_in_one_line(overrides: list[str], named: str) -> None:
    with pytest.raises(ConfigError) as error:
        check(*overrides)
    assert named in str(error.value)
    assert "\n" not in str(error.value)
    assert "searchpath" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("sampling.neg_rato", r"job 0 \(sampling\.neg_rato=3 .*Did you mean sampling\.neg_ratio\?"),
        ("eval.kinds", r"job 0 \(eval\.kinds=3 .*\): eval\.kinds was renamed to eval\.list_kinds"),
    ],
)
def test_a_saved_sweep_is_checked_too(tmp_path: Path, key: str, message: str) -> None:
    saved = {"hydra": {"mode": "MULTIRUN", "sweeper": {"params": {key: "3,5"}}}}
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "grid.yaml").write_text(
        f"# @package _global_\n{json.dumps(saved)}\n"
    )
    with pytest.raises(ConfigError, match=message):
        check(f"hydra.searchpath=['file://{tmp_path}']", "experiments=grid")


def test_the_callback_exits_because_hydra_would_continue(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(config: object) -> None:
        raise ConfigError("job 1 (a=b): no postgresql://me:canary@db/runs")

    monkeypatch.setattr("reranker.sweep.check_jobs", refuse)
    with pytest.raises(
        SystemExit,
        match=r"^ConfigError: the sweep does not start: job 1 \(a=b\): no postgresql://\*\*\*@",
    ):
        CheckedJobs().on_multirun_start({})


@pytest.fixture
def multirun(run_cfg: Config) -> Iterator[Any]:
    """Yield the callback's config for `-m sampling.neg_ratio=3,5 trainer.seed=1`.

    The saved sweep has two models.
    """
    hydra = {
        "overrides": {
            "task": ["sampling.neg_ratio=3,5", "+trainer.seed=1", f"tracking.uri={SECRET_URI}"]
        },
        "sweeper": {"params": {"model": "minilm,bge", "sampling.neg_ratio": "1,2"}},
        "runtime": {"choices": {"experiments": "grid"}},
    }
    yield OmegaConf.create({"tracking": OmegaConf.structured(run_cfg.tracking), "hydra": hydra})
    sweep.close_sweep("KILLED")  # a failed test may have left a sweep open


def parent(cfg: Config, children: list[str]) -> Run:
    [made] = [r for r in find_runs(cfg)[1] if r.info.run_id not in children]
    return made


@pytest.mark.slow
def test_a_sweep_records_its_params_and_children_and_the_best_child(
    run_cfg: Config, multirun: Any, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    callback = sweep.MlflowSweep()
    callback.on_multirun_start(multirun)
    children = [
        log_run(run_cfg, tmp_path, values) for values in ([0.2, 0.6, 0.1], [0.5, 0.5, 0.5], [])
    ]
    callback.on_multirun_end(multirun)
    sweep.close_sweep("FAILED")  # main closes it again; nothing happens
    made = parent(run_cfg, children)
    assert (made.info.status, made.info.run_name) == ("FINISHED", "sweep grid")
    assert made.data.params == {
        "model": "minilm,bge",
        "sampling.neg_ratio": "3,5",
        "trainer.seed": "1",
        "tracking.uri": "postgresql://***@db.example/runs",
    }
    assert (made.data.tags["n_children"], made.data.tags["best_child"]) == ("3", children[0])
    tags = [
        r.data.tags.get("mlflow.parentRunId")
        for r in find_runs(run_cfg)[1]
        if r.info.run_id in children
    ]
    assert tags == [made.info.run_id] * 3
    assert PARENT not in os.environ
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("errors", "closed_as", "status"),
    [
        ([None, ValueError("no pairs"), KeyboardInterrupt()], "FINISHED", "FAILED"),
        ([None, KeyboardInterrupt()], "FAILED", "KILLED"),
        ([None], "FAILED", "FAILED"),
    ],
    ids=["a child failed", "a child was killed", "the sweep itself failed"],
)
def test_a_sweep_has_the_worst_status_of_its_children(
    run_cfg: Config,
    multirun: Any,
    tmp_path: Path,
    errors: list[BaseException | None],
    closed_as: str,
    status: str,
) -> None:
    sweep.MlflowSweep().on_multirun_start(multirun)
    children = [log_run(run_cfg, tmp_path, [0.1 * i], error) for i, error in enumerate(errors, 1)]
    sweep.close_sweep(closed_as)
    made = parent(run_cfg, children)
    assert made.info.status == status
    assert made.data.tags["best_child"] == children[0]  # the others have not finished


@pytest.mark.slow
def test_a_child_that_is_still_running_is_killed_when_the_sweep_closes(
    run_cfg: Config, multirun: Any
) -> None:
    sweep.MlflowSweep().on_multirun_start(multirun)
    client, experiment_id = store.open_store(run_cfg.tracking)
    dead = client.create_run(
        experiment_id, tags={"mlflow.parentRunId": os.environ[PARENT]}
    ).info.run_id
    sweep.close_sweep("FINISHED")
    assert client.get_run(dead).info.status == "KILLED"
    assert parent(run_cfg, [dead]).info.status == "KILLED"
    assert "best_child" not in parent(run_cfg, [dead]).data.tags


@pytest.mark.slow
def test_a_sweep_without_a_store_stops_before_its_jobs(multirun: Any) -> None:
    multirun.tracking.uri = "mlruns"
    with pytest.raises(
        SystemExit, match=r"the sweep's run could not be started: tracking\.uri='mlruns'"
    ):
        sweep.MlflowSweep().on_multirun_start(multirun)
    assert PARENT not in os.environ


def test_torchrun_cannot_start_a_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(
        SystemExit,
        match=r"ConfigError: the sweep does not start: torchrun trains one run .* main\.py",
    ):
        CheckedJobs().on_multirun_start({})
