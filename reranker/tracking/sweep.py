"""The MLflow parent run of a Hydra multirun."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from reranker.config import TrackingConfig
from reranker.tracking.keys import MAX_PARAM
from reranker.tracking.lifecycle import PARENT, interruptible
from reranker.tracking.store import open_store, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CRITERION = "dev/ndcg_10"  # dev decides; test only confirms
MAX_CHILDREN = 10_000  # read in one query; MLflow allows 50,000


@dataclass
class _Sweep:
    client: MlflowClient
    experiment_id: str
    run_id: str
    signals: ExitStack


_open: _Sweep | None = None


class MlflowSweep(Callback):
    """Opens a parent run when a multirun starts and closes it at the end; the jobs' runs are its children."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the parent run, with the sweep's overrides as params, and tell the jobs of it by environment."""
        global _open
        with _stopping("the sweep's run could not be started"):
            client, experiment_id = open_store(_tracking(config))
            choice = OmegaConf.select(config, "hydra.runtime.choices.experiments")
            run = client.create_run(experiment_id, run_name=f"sweep {choice}" if choice else "sweep")
            signals = ExitStack()
            signals.enter_context(interruptible())
            _open = _Sweep(client, experiment_id, run.info.run_id, signals)
            os.environ[PARENT] = run.info.run_id
            for key, value in _params(config).items():
                client.log_param(run.info.run_id, key, value[:MAX_PARAM])

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Close the parent run; Hydra does not call this when a job failed."""
        with _stopping("the sweep's run could not be closed"):
            close_sweep("FINISHED")


@contextmanager
def _stopping(what: str) -> Iterator[None]:
    """Hydra turns a callback's exception into a warning and goes on; SystemExit it lets through."""
    try:
        yield
    except Exception as error:
        raise SystemExit(f"{what}: {redact(str(error))}") from error


def close_sweep(status: str) -> None:
    """Close the sweep's run, when one is open; to be called wherever a multirun can end.

    The run is FAILED if a child failed, else KILLED if a child was, else `status`. Its tags `n_children` and
    `best_child` tell how many runs it has and which finished one has the highest dev/ndcg_10 (of its best step, whose
    weights it kept). A child that is still RUNNING ended without a chance to say so; it becomes KILLED.
    """
    global _open
    if _open is None:
        return
    sweep, _open = _open, None
    os.environ.pop(PARENT, None)
    with sweep.signals:
        filters = f"tags.`mlflow.parentRunId` = '{sweep.run_id}'"
        children = sweep.client.search_runs([sweep.experiment_id], filters, max_results=MAX_CHILDREN)
        ended = [_ended(sweep.client, child) for child in children]
        best = _best(sweep.client, children)
        sweep.client.set_tag(sweep.run_id, "n_children", len(children))
        if best is not None:
            sweep.client.set_tag(sweep.run_id, "best_child", best)
        worst = next((s for s in ("FAILED", "KILLED") if s in ended), status)
        sweep.client.set_terminated(sweep.run_id, worst)


def _ended(client: MlflowClient, child: Run) -> str:
    if child.info.status in ("RUNNING", "SCHEDULED"):
        client.set_terminated(child.info.run_id, "KILLED")
        return "KILLED"
    return str(child.info.status)


def _best(client: MlflowClient, children: list[Run]) -> str | None:
    """The id of the finished child with the highest value; the earliest of equals; None when none has a value."""
    values: dict[str, float] = {}
    for child in sorted(children, key=lambda c: (c.info.start_time, c.info.run_id)):
        if child.info.status == "FINISHED" and CRITERION in child.data.metrics:
            values[child.info.run_id] = max(m.value for m in client.get_metric_history(child.info.run_id, CRITERION))
    return max(values, key=lambda run_id: values[run_id], default=None)


def _tracking(config: DictConfig) -> TrackingConfig:
    return TrackingConfig(**OmegaConf.to_container(config.tracking, resolve=True))  # type: ignore[arg-type]


def _params(config: DictConfig) -> dict[str, str]:
    """What is swept and what is fixed: the sweeper's own params, and over them the command line's overrides."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    given = [str(override).lstrip("+~").partition("=") for override in config.hydra.overrides.task]
    values = {str(key): str(value) for key, value in params.items()} | {key: value for key, _, value in given}
    return {key: redact(value) for key, value in values.items()}
