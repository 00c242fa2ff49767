"""The MLflow store: opened once by however many processes, with its artifacts beside the database."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from reranker.config import ROOT, TrackingConfig
from reranker.errors import ConfigError, RerankerError
from reranker.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
LOCK_TIMEOUT_S = (
    120  # a fresh database takes 1.5 s to set up, and every waiting process at most that again
)


def default_uri() -> str:
    """MLFLOW_TRACKING_URI where it is set, else the project's SQLite database, as in conf/tracking/sqlite.yaml."""
    return os.environ.get(URI_VARIABLE, f"sqlite:///{ROOT}/mlruns/mlflow.db")


def database(uri: str) -> Path | None:
    """The file of a `sqlite:///` URI; None for another kind of store.

    Raises:
        ConfigError: Not a URI (MLflow 3 keeps no runs in plain folders), or SQLite without a file.
    """
    parts = urlsplit(uri)
    if "://" not in uri:
        raise ConfigError(
            f"tracking.uri={redact(uri)!r} is not a URI; give sqlite:////ABSOLUTE/FOLDER/mlflow.db, a server's "
            f"http(s)://HOST:PORT, or a postgresql:// or mysql:// database. Its default is {URI_VARIABLE}, where set."
        )
    if parts.scheme.split("+")[0] != "sqlite":
        return None
    if parts.netloc or parts.path in ("", "/", "/:memory:"):
        raise ConfigError(
            f"tracking.uri={redact(uri)!r} names no file; give sqlite:////ABSOLUTE/FOLDER/mlflow.db."
        )
    return Path(parts.path[1:]).resolve()


@contextmanager
def init_lock(uri: str) -> Iterator[None]:
    """Inside, no other process opens the store.

    ProcessGroup that create one SQLite database at once leave it broken for good (`table ... already exists`).

    Raises:
        RerankerError: Another process has kept the lock for LOCK_TIMEOUT_S.
    """
    file = database(uri)
    folder = file.parent if file else ROOT / "mlruns"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".init.lock", timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise RerankerError(
            f"{lock.lock_file}: another process has kept this lock for {LOCK_TIMEOUT_S} s, so {redact(uri)} cannot be "
            "opened. Wait for that process or end it: its lock ends with it, and deleting the file frees nothing."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _quiet_schema() -> Iterator[None]:
    """Inside, MLflow does not say that it makes or migrates its tables; its warnings come through."""
    logger = logging.getLogger("mlflow.store.db.utils")
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def point_mlflow_at(uri: str) -> None:
    """Make a store MLflow's in this process alone.

    MLflow also exports it as MLFLOW_TRACKING_URI: from then on `default_uri`, and the config of a next run, would
    take this run's store for what the shell says.
    """
    import mlflow

    given = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    os.environ.pop(URI_VARIABLE, None)
    if given is not None:
        os.environ[URI_VARIABLE] = given


def open_existing(uri: str) -> MlflowClient:
    """A client for a store that has runs already; nothing is made.

    Raises:
        ConfigError: The URI names no store.
        RerankerError: Its SQLite file does not exist.
    """
    file = database(uri)
    if file and not file.exists():  # MLflow would make an empty one
        raise RerankerError(
            f"{file}: no runs yet. `python main.py` makes the first one; or give a tracking URI."
        )
    import mlflow

    point_mlflow_at(uri)
    with init_lock(uri):  # a first run may be setting it up right now
        return mlflow.MlflowClient()


def open_store(cfg: TrackingConfig) -> tuple[MlflowClient, str]:
    """A client and the experiment's id, both made where they are missing; to be called before any other use of MLflow.

    With a SQLite URI the artifacts of a new experiment go to `artifacts/<experiment>` beside the database; another
    store keeps them where it is set up to.

    Raises:
        ConfigError: `tracking.uri` names no store, or `tracking.experiment` is no plain name.
        RerankerError: The experiment was deleted.
    """
    file = database(cfg.uri)
    if not re.fullmatch(r"\w[\w .-]*", cfg.experiment):
        raise ConfigError(
            f"tracking.experiment={cfg.experiment!r} also names a folder: letters, digits, '_', '-', '.' and spaces, "
            "beginning with a letter or a digit."
        )
    logging.getLogger("alembic").setLevel(
        logging.WARNING
    )  # else 100 lines about the schema of a fresh database
    import mlflow

    point_mlflow_at(cfg.uri)
    with init_lock(cfg.uri), _quiet_schema():
        client = mlflow.MlflowClient()  # inside the lock, for its constructor opens the database
        client.search_experiments(max_results=1)  # creates or migrates the schema
        found = client.get_experiment_by_name(cfg.experiment)
        if found is None:
            place = (file.parent / "artifacts" / cfg.experiment).as_uri() if file else None
            return client, client.create_experiment(cfg.experiment, artifact_location=place)
    if found.lifecycle_stage != "active":
        raise RerankerError(
            f"experiment {cfg.experiment!r} is deleted in {redact(cfg.uri)}. Restore it (mlflow experiments restore "
            f"--experiment-id {found.experiment_id}) or set tracking.experiment to another name."
        )
    return client, str(found.experiment_id)
