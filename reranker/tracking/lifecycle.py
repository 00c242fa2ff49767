"""Start an MLflow run and close it with its status when the block ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from reranker.config import Config
from reranker.redaction import redact
from reranker.tracking.environment import git_commit, machine, overrides, versions
from reranker.tracking.metric_names import run_name
from reranker.tracking.run_log import RunLog
from reranker.tracking.store import open_store

PARENT = "RERANKER_PARENT_RUN_ID"  # a sweep sets it for its jobs


@contextmanager
def start(cfg: Config, run_dir: Path) -> Iterator[RunLog]:
    """Start an MLflow run for the duration of the block; at its end write `run_dir/result.json`.

    The status is FINISHED, KILLED after Ctrl-C or SIGTERM, or FAILED after any other exception. The
    exception is raised again and its traceback is logged as an artifact. In a sweep, which sets
    RERANKER_PARENT_RUN_ID, the run is a child of the sweep's run.

    Example:
        >>> with start(cfg, Path("outputs/run")) as log:
        ...     log.metrics({"dev/ndcg_10": 0.4})
    """
    import mlflow

    client, experiment_id = open_store(cfg.tracking)
    run_dir.mkdir(parents=True, exist_ok=True)
    environment: dict[str, Any] = {
        "overrides": overrides(run_dir),
        "versions": versions(),
        "machine": machine(),
        "git_commit": git_commit(),
    }
    os.environ.pop("MLFLOW_RUN_ID", None)  # otherwise MLflow would resume that run
    with interruptible():
        active = mlflow.start_run(
            experiment_id=experiment_id,
            run_name=run_name(cfg, environment["overrides"]),
            parent_run_id=os.environ.get(PARENT),
            tags={"run_dir": str(run_dir)},
            log_system_metrics=False,
        )
        log = RunLog(client, active.info.run_id, cfg, run_dir=run_dir, environment=environment)
        try:
            log.log_config()
            yield log
            log.close("FINISHED")
        except BaseException as error:
            killed = isinstance(error, KeyboardInterrupt)
            _close_failed(log, "KILLED" if killed else "FAILED", error)
            raise


def _close_failed(log: RunLog, status: str, error: BaseException) -> None:
    """End the run and write its result; a further failure becomes a note of the error."""
    import mlflow

    # The status comes first. If the process is stopped after it, MLflow's exit handler
    # finds no active run, which it would mark as FINISHED.
    for step in (lambda: mlflow.end_run(status), lambda: log.close(status, error)):
        try:
            step()
        except Exception as second:  # the caller raises `error`
            error.add_note(f"The run could not be closed as {status}: {redact(str(second))}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Make SIGTERM raise KeyboardInterrupt within the block, so that it closes a run like Ctrl-C.

    After the first SIGTERM further ones are ignored until the block ends, because closing takes
    some time. Python handles signals in the main thread only: in other threads nothing changes.
    """

    def interrupt(signum: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt("SIGTERM")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
