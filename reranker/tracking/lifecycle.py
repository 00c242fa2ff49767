"""A run from its start to its end, however it ends."""

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

PARENT = "RERANKER_PARENT_RUN_ID"  # set by a sweep for its jobs


@contextmanager
def start(cfg: Config, run_dir: Path) -> Iterator[RunLog]:
    """A run in MLflow for as long as the block lasts, and `run_dir/result.json` at its end, however it ends.

    The status is FINISHED; KILLED after Ctrl-C or SIGTERM; FAILED after any other exception, which is raised again
    with its traceback kept as an artifact. Under a sweep (RERANKER_PARENT_RUN_ID) the run is a child of the sweep's.
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
    os.environ.pop("MLFLOW_RUN_ID", None)  # else MLflow would go on with somebody else's run
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
            _close_failed(
                log, "KILLED" if isinstance(error, KeyboardInterrupt) else "FAILED", error
            )
            raise


def _close_failed(log: RunLog, status: str, error: BaseException) -> None:
    """End the run, then write what is known of it; a further failure becomes a note of the error that is raised."""
    import mlflow

    # The status first: whatever stops us after this, MLflow's exit handler finds no run that it would call FINISHED.
    for step in (lambda: mlflow.end_run(status), lambda: log.close(status, error)):
        try:
            step()
        except Exception as second:  # `error` is the one to raise
            error.add_note(f"The run could not be closed as {status}: {redact(str(second))}")


@contextmanager
def interruptible() -> Iterator[None]:
    """Inside, SIGTERM raises KeyboardInterrupt, so that it closes a run as Ctrl-C does.

    After the first SIGTERM further ones are ignored until the block ends: closing takes a moment. Outside the main
    thread, where Python takes no signals, nothing changes.
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
