"""Check the jobs of a Hydra multirun before the first one starts, and log its MLflow parent run."""

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

from reranker.config import TrackingConfig, check_overrides, from_hydra, renamed
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
METRIC, SCORER = "ndcg_10", "fine_tuned"  # the comparison of the children on the test lists
MAX_CHILDREN = 10_000  # read in one query; MLflow allows 50,000


@dataclass
class _Sweep:
    client: MlflowClient
    experiment_id: str
    run_id: str
    signals: ExitStack


_open: _Sweep | None = None


class CheckedJobs(Callback):
    """Stop a multirun before its first job, and before MlflowSweep, if any job is impossible."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Compose and validate the config of every job."""
        with _exit_on_error("the sweep does not start"):
            if world_size() > 1:
                raise ConfigError(
                    "torchrun trains one run with several processes; "
                    "start a sweep with python main.py."
                )
            check_jobs(config)


def check_jobs(config: DictConfig) -> None:
    """Compose and validate every job of a multirun as Hydra will compose it.

    Raises:
        ConfigError: The first impossible job, with its overrides; or two jobs have the same
            folder for checkpoints.
    """
    loader = GlobalHydra.instance().config_loader()
    folders: dict[str, int] = {}
    for number, overrides in enumerate(_split_jobs(config)):
        try:
            check_overrides(overrides)
            job = loader.load_sweep_config(config, overrides)
            with open_dict(job):
                del job["hydra"]
            _check_own_folder(from_hydra(job).trainer.checkpoint_dir, number, folders)
        except (ConfigError, HydraException, OmegaConfBaseException, ValueError) as error:
            message = renamed.explain(error) or _one_line(error)
            raise ConfigError(f"{_job(number, overrides)}: {message}") from error


def _split_jobs(config: DictConfig) -> list[list[str]]:
    """Return the overrides of every job, of the saved sweep and of the command line."""
    loader = GlobalHydra.instance().config_loader()
    saved = [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]
    # Interpolations (${…}) are resolved for each job.
    typed: Any = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    try:
        parsed = OverridesParser.create(config_loader=loader).parse_overrides([*saved, *typed])
        # The project installs no sweeper other than BasicSweeper.
        [jobs] = BasicSweeper.split_arguments(parsed, None)
    except HydraException as error:
        raise ConfigError(_one_line(error)) from error
    return jobs


def _check_own_folder(folder: str | None, number: int, folders: dict[str, int]) -> None:
    """Refuse a checkpoint folder of an earlier job: this job cannot resume from it."""
    if folder is None:
        return
    other = folders.setdefault(os.path.abspath(folder), number)
    if other != number:
        raise ConfigError(
            f"trainer.checkpoint_dir={folder} is also the folder of job {other}, and a folder "
            "holds one training. Put the swept keys into it: "
            "'trainer.checkpoint_dir=checkpoints/${model.name}-${trainer.seed}'."
        )


def _job(number: int, overrides: list[str]) -> str:
    return f"job {number} ({redact(' '.join(overrides))})"


def _one_line(error: Exception) -> str:
    """Return the error without Hydra's search path, on one line.

    Some errors of Hydra name only the override; their cause is added.
    """
    cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else ""
    return " ".join(f"{str(error).partition('Config search path:')[0]} {cause}".split())


def failed(error: RerankerError) -> CompactHydraException:
    """Print the error of a multirun's job, and return the exception that marks the job as failed.

    Hydra runs the other jobs and then reports only the first failure, so every job prints its own
    error. Hydra prints no traceback for the returned exception.
    """
    hydra = HydraConfig.get()
    job = _job(hydra.job.num, list(hydra.overrides.task))
    print(f"{job}: {type(error).__name__}: {redact(str(error))}", file=sys.stderr, flush=True)
    return CompactHydraException(f"The sweep has ended. {job} failed; its error is above.")


class MlflowSweep(Callback):
    """Open a parent run at the start of a multirun and close it at the end.

    The runs of the jobs are its children.
    """

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Create the parent run with the overrides as params.

        The jobs read its id from the environment variable PARENT.
        """
        global _open
        with _exit_on_error("the sweep's run could not be started"):
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
        """Close the parent run. Hydra does not call this method if a job failed."""
        with _exit_on_error("the sweep's run could not be closed"):
            close_sweep("FINISHED")


@contextmanager
def _exit_on_error(what: str) -> Iterator[None]:
    """Exit with one line at any error.

    Hydra turns the exception of a callback into a warning and continues. It does not catch
    SystemExit. A sweep must not run without its parent run.
    """
    try:
        yield
    except Exception as error:
        raise SystemExit(f"{type(error).__name__}: {what}: {redact(str(error))}") from error


def close_sweep(status: str) -> None:
    """Close the run of the sweep if one is open. Call it wherever a multirun can end.

    The run is FAILED if a child failed, else KILLED if a child was killed, else `status`. A child
    that is still RUNNING has died without closing its run; it becomes KILLED. The tag `n_children`
    is the number of runs, and `best_child` is the finished run with the highest dev/ndcg_10 at its
    best step, whose weights it kept. The finished children are compared unless the sweep was
    interrupted; see `_compare`.
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
        ended = [_final_status(sweep.client, child) for child in children]
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
    """Compare two or more finished children; the earliest one is the reference.

    The comparison is printed. The run of the sweep gets `compare.html` and `comparison.parquet`.
    Its tag `comparison` lists what was compared, or the reason for no comparison;
    `comparison.<kind>` is the reason why a list kind was left out.
    """
    finished = [child for child in _oldest_first(children) if child.info.status == "FINISHED"]
    if len(finished) < 2:
        return
    from reranker.reports.comparison import page, runs, summary
    from reranker.reports.comparison.compare import compare

    try:
        loaded = [runs.load(client, run, metric=METRIC, scorer=SCORER) for run in finished]
        others = (kind for run in loaded for kind in run.per_user["kind"].unique())
        kinds = dict.fromkeys([loaded[0].headline, *others])
        made = compare(loaded, kinds, metric=METRIC, scorer=SCORER)
    except ComparisonError as error:
        client.set_tag(run_id, "comparison", f"none: {error}"[:MAX_PARAM])
        print(f"the sweep's runs are not compared: {error}", file=sys.stderr, flush=True)
        return
    summary.print_comparison(made)
    page.log(client, run_id, made)


def _oldest_first(children: list[Run]) -> list[Run]:
    return sorted(children, key=lambda child: (child.info.start_time, child.info.run_id))


def _final_status(client: MlflowClient, child: Run) -> str:
    if child.info.status in ("RUNNING", "SCHEDULED"):
        client.set_terminated(child.info.run_id, "KILLED")
        return "KILLED"
    return str(child.info.status)


def _best(client: MlflowClient, children: list[Run]) -> str | None:
    """Return the id of the finished child with the highest CRITERION, or None if none has one.

    The earliest of equal children is returned.
    """
    values: dict[str, float] = {}
    for child in _oldest_first(children):
        if child.info.status == "FINISHED" and CRITERION in child.data.metrics:
            history = client.get_metric_history(child.info.run_id, CRITERION)
            values[child.info.run_id] = max(metric.value for metric in history)
    return max(values, key=lambda run_id: values[run_id], default=None)


def _tracking(config: DictConfig) -> TrackingConfig:
    settings: Any = OmegaConf.to_container(config.tracking, resolve=True)
    return TrackingConfig(**settings)


def _params(config: DictConfig) -> dict[str, str]:
    """Return the swept and fixed values: the sweeper's params, updated by the command line."""
    params = OmegaConf.select(config, "hydra.sweeper.params") or {}
    typed = [str(override).lstrip("+~").partition("=") for override in config.hydra.overrides.task]
    values = {str(key): str(value) for key, value in params.items()}
    values |= {key: value for key, _, value in typed}
    return {key: redact(value) for key, value in values.items()}
