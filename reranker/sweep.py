"""A Hydra multirun: its jobs checked before the first one starts, its MLflow parent run, and a failed job in a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException, HydraException
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from reranker.config import TrackingConfig, from_hydra
from reranker.errors import ComparisonError, ConfigError, RerankerError
from reranker.redaction import redact
from reranker.tracking.lifecycle import PARENT, interruptible
from reranker.tracking.metric_names import MAX_PARAM
from reranker.tracking.store import open_store
from reranker.trainer.distributed import world_size

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

CRITERION = "dev/ndcg_10"  # dev decides; test only confirms
METRIC, SCORER = "ndcg_10", "fine_tuned"  # by which the children are compared on the test lists
MAX_CHILDREN = 10_000  # read in one query; MLflow allows 50,000


@dataclass
class _Sweep:
    client: MlflowClient
    experiment_id: str
    run_id: str
    signals: ExitStack


_open: _Sweep | None = None


class CheckedJobs(Callback):
    """Stops a multirun before its first job, and before MlflowSweep, when any of its jobs is impossible."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose and validate the config of every job."""
        with _stopping("the sweep does not start"):
            if world_size() > 1:
                raise ConfigError(
                    "torchrun trains one run with several processes; start a sweep with python main.py."
                )
            check_jobs(config)


def check_jobs(config: DictConfig) -> None:
    """Compose and validate every job of a multirun, as Hydra will compose it.

    Raises:
        ConfigError: The first job that is impossible, with its overrides, or whose checkpoints would lie in the folder
            of an earlier job's.
    """
    loader = GlobalHydra.instance().config_loader()
    saved = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    typed: Any = OmegaConf.to_container(
        config.hydra.overrides.task, resolve=False
    )  # ${…} is each job's own
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*saved, *typed])
        [jobs] = BasicSweeper.split_arguments(
            parsed, None
        )  # the only sweeper that the project installs
    except HydraException as error:
        raise ConfigError(_one_line(error)) from error
    folders: dict[str, int] = {}
    for number, overrides in enumerate(jobs):
        try:
            job = loader.load_sweep_config(config, overrides)
            with open_dict(job):
                del job["hydra"]
            _check_own_folder(from_hydra(job).trainer.checkpoint_dir, number, folders)
        except (ConfigError, HydraException, OmegaConfBaseException, ValueError) as error:
            raise ConfigError(f"{_job(number, overrides)}: {_one_line(error)}") from error


def _check_own_folder(folder: str | None, number: int, folders: dict[str, int]) -> None:
    """Refuse a folder of checkpoints that an earlier job has, whose training this one could not go on with."""
    if (
        folder is not None
        and (other := folders.setdefault(os.path.abspath(folder), number)) != number
    ):
        raise ConfigError(
            f"trainer.checkpoint_dir={folder} is job {other}'s too, and a folder holds one training. Name what is "
            "swept in it: 'trainer.checkpoint_dir=checkpoints/${model.name}-${trainer.seed}'."
        )


def _job(number: int, overrides: list[str]) -> str:
    return f"job {number} ({redact(' '.join(overrides))})"


def _one_line(error: Exception) -> str:
    """The error and, where Hydra only says which override, its cause; without Hydra's search path."""
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(f"{str(error).partition('Config search path:')[0]} {cause}".split())


def failed(error: RerankerError) -> CompactHydraException:
    """What a job of a multirun raises to be counted as failed without a traceback; its line is on stderr already.

    Hydra goes on with the other jobs and at the end reports the first failure alone, so each says its own.
    """
    hydra = HydraConfig.get()
    job = _job(hydra.job.num, list(hydra.overrides.task))
    print(f"{job}: {type(error).__name__}: {redact(str(error))}", file=sys.stderr, flush=True)
    return CompactHydraException(f"The sweep is done, and {job} failed: see its line above.")


class MlflowSweep(Callback):
    """Opens a parent run when a multirun starts and closes it at the end; the jobs' runs are its children."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Make the parent run, with the sweep's overrides as params, and tell the jobs of it by environment."""
        global _open
        with _stopping("the sweep's run could not be started"):
            client, experiment_id = open_store(_tracking(config))
            choice = OmegaConf.select(config, "hydra.runtime.choices.experiments")
            run = client.create_run(
                experiment_id,
                run_name=f"sweep {choice}" if choice not in (None, "none") else "sweep",
            )
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
    except Exception as error:  # whatever it is: an error that Hydra swallowed would leave a sweep without its account
        raise SystemExit(f"{type(error).__name__}: {what}: {redact(str(error))}") from error


def close_sweep(status: str) -> None:
    """Close the sweep's run, when one is open; to be called wherever a multirun can end.

    The run is FAILED if a child failed, else KILLED if a child was, else `status`. Its tags `n_children` and
    `best_child` tell how many runs it has and which finished one has the highest dev/ndcg_10 (of its best step, whose
    weights it kept). A child that is still RUNNING ended without a chance to say so; it becomes KILLED. Finished
    children are compared, unless the sweep was interrupted; see `_compare`.
    """
    global _open
    if _open is None:
        return
    sweep, _open = _open, None
    os.environ.pop(PARENT, None)
    with sweep.signals:
        filters = f"tags.`mlflow.parentRunId` = '{sweep.run_id}'"
        children = sweep.client.search_runs(
            [sweep.experiment_id], filters, max_results=MAX_CHILDREN
        )
        ended = [_ended(sweep.client, child) for child in children]
        best = _best(sweep.client, children)
        sweep.client.set_tag(sweep.run_id, "n_children", len(children))
        if best is not None:
            sweep.client.set_tag(sweep.run_id, "best_child", best)
        worst = next((s for s in ("FAILED", "KILLED") if s in ended), status)
        try:
            if "KILLED" not in ended:
                _compare(sweep.client, sweep.run_id, children)
        finally:
            sweep.client.set_terminated(sweep.run_id, worst)


def _compare(client: MlflowClient, run_id: str, children: list[Run]) -> None:
    """Compare two or more finished children, the earliest being the reference: printed, and kept on the sweep's run.

    The run gets `compare.html` and `comparison.parquet`. Its tag `comparison` names what was compared or why nothing
    was, `comparison.<kind>` why a list kind was left out.
    """
    finished = [child for child in _oldest_first(children) if child.info.status == "FINISHED"]
    if len(finished) < 2:
        return
    from reranker.reports.comparison import page, runs, summary
    from reranker.reports.comparison.compare import compare

    try:
        loaded = [runs.load(client, run, metric=METRIC, scorer=SCORER) for run in finished]
        kinds = dict.fromkeys(
            [
                loaded[0].headline,
                *(kind for run in loaded for kind in run.per_user["kind"].unique()),
            ]
        )
        made = compare(loaded, kinds, metric=METRIC, scorer=SCORER)
    except ComparisonError as error:
        client.set_tag(run_id, "comparison", f"none: {error}"[:MAX_PARAM])
        print(f"the sweep's runs are not compared: {error}", file=sys.stderr, flush=True)
        return
    summary.print_comparison(made)
    page.log(client, run_id, made)


def _oldest_first(children: list[Run]) -> list[Run]:
    return sorted(children, key=lambda child: (child.info.start_time, child.info.run_id))


def _ended(client: MlflowClient, child: Run) -> str:
    if child.info.status in ("RUNNING", "SCHEDULED"):
        client.set_terminated(child.info.run_id, "KILLED")
        return "KILLED"
    return str(child.info.status)


def _best(client: MlflowClient, children: list[Run]) -> str | None:
    """The id of the finished child with the highest value; the earliest of equals; None when none has a value."""
    values: dict[str, float] = {}
    for child in _oldest_first(children):
        if child.info.status == "FINISHED" and CRITERION in child.data.metrics:
            values[child.info.run_id] = max(
                m.value for m in client.get_metric_history(child.info.run_id, CRITERION)
            )
    return max(values, key=lambda run_id: values[run_id], default=None)


def _tracking(config: DictConfig) -> TrackingConfig:
    return TrackingConfig(**OmegaConf.to_container(config.tracking, resolve=True))  # type: ignore[arg-type]  # keys are str


def _params(config: DictConfig) -> dict[str, str]:
    """What is swept and what is fixed: the sweeper's own params, and over them the command line's overrides."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    given = [str(override).lstrip("+~").partition("=") for override in config.hydra.overrides.task]
    values = {str(key): str(value) for key, value in params.items()} | {
        key: value for key, _, value in given
    }
    return {key: redact(value) for key, value in values.items()}
