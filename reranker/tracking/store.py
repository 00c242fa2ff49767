"""Open the MLflow store safely from several processes."""

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

from reranker.config import TrackingConfig, project_root
from reranker.errors import ConfigError, RerankerError
from reranker.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

URI_VARIABLE = "MLFLOW_TRACKING_URI"
LOCK_TIMEOUT_S = 120  # creating a database takes 1.5 s, and each waiting process holds it as long


def default_uri() -> str:
    """Return MLFLOW_TRACKING_URI if it is set, else the project's SQLite database.

    conf/tracking/sqlite.yaml has the same default.
    """
    return os.environ.get(URI_VARIABLE, f"sqlite:///{project_root()}/mlruns/mlflow.db")


def sqlite_file(uri: str) -> Path | None:
    """Return the file of a `sqlite:///` URI, or None for another kind of store.

    Raises:
        ConfigError: The text is not a URI (MLflow 3 stores no runs in plain folders), or a SQLite
            URI without a file.
    """
    parts = urlsplit(uri)
    if "://" not in uri:
        raise ConfigError(
            f"tracking.uri={redact(uri)!r} is not a URI; give "
            "sqlite:////ABSOLUTE/FOLDER/mlflow.db, a server's http(s)://HOST:PORT, or a "
            f"postgresql:// or mysql:// database. Its default is {URI_VARIABLE}, if that is set."
        )
    if parts.scheme.split("+")[0] != "sqlite":
        return None
    if parts.netloc or parts.path in ("", "/", "/:memory:"):
        raise ConfigError(
            f"tracking.uri={redact(uri)!r} names no file; give "
            "sqlite:////ABSOLUTE/FOLDER/mlflow.db."
        )
    return Path(parts.path[1:]).resolve()


@contextmanager
def init_lock(uri: str) -> Iterator[None]:
    """Lock the store: no other process of this package opens it within the block.

    Processes that create the same SQLite database at the same time break it permanently (`table ...
    already exists`).

    Raises:
        RerankerError: Another process has held the lock for LOCK_TIMEOUT_S.
    """
    file = sqlite_file(uri)
    folder = file.parent if file else project_root() / "mlruns"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".init.lock", timeout=LOCK_TIMEOUT_S)
    try:
        lock.acquire()
    except Timeout as error:
        raise RerankerError(
            f"{lock.lock_file}: another process has held this lock for {LOCK_TIMEOUT_S} s, so "
            f"{redact(uri)} cannot be opened. Wait for that process or end it: the lock is "
            "released when the process ends, and deleting the file does not release it."
        ) from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def without_info(logger_name: str) -> Iterator[None]:
    """Suppress a logger's messages below WARNING within the block."""
    logger = logging.getLogger(logger_name)
    before = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(before)


def point_mlflow_at(uri: str) -> None:
    """Set MLflow's tracking URI and leave the environment unchanged.

    MLflow itself also sets MLFLOW_TRACKING_URI. After that `default_uri` and the config of the next
    run would use this run's store as if the shell had set it.
    """
    import mlflow

    before = os.environ.get(URI_VARIABLE)
    mlflow.set_tracking_uri(uri)
    os.environ.pop(URI_VARIABLE, None)
    if before is not None:
        os.environ[URI_VARIABLE] = before


def open_existing(uri: str) -> MlflowClient:
    """Return a client for an existing store; nothing is created.

    Raises:
        ConfigError: The URI is not that of a store.
        RerankerError: The store's SQLite file does not exist.
    """
    file = sqlite_file(uri)
    if file and not file.exists():  # MLflow would create an empty store
        raise RerankerError(
            f"{file}: no runs yet. `python main.py` makes the first one; or give a tracking URI."
        )
    import mlflow

    point_mlflow_at(uri)
    with init_lock(uri):  # another process may be creating the store
        return mlflow.MlflowClient()


def open_store(cfg: TrackingConfig) -> tuple[MlflowClient, str]:
    """Return a client and the experiment's id; create the store and the experiment if needed.

    Call this before any other use of MLflow. With a SQLite URI the artifacts of a new experiment go
    to `artifacts/<experiment>` in the folder of the database. Another store has its own setting.

    Raises:
        ConfigError: `tracking.uri` is not that of a store, or `tracking.experiment` is not a plain
            name.
        RerankerError: The experiment was deleted.
    """
    file = sqlite_file(cfg.uri)
    if not re.fullmatch(r"\w[\w .-]*", cfg.experiment):
        raise ConfigError(
            f"tracking.experiment={cfg.experiment!r} cannot be the name of a folder. Use letters, "
            "digits, '_', '-', '.' and spaces, and begin with a letter or a digit."
        )
    # For a new database alembic would log 100 lines about the schema.
    logging.getLogger("alembic").setLevel(logging.WARNING)
    import mlflow

    point_mlflow_at(cfg.uri)
    with init_lock(cfg.uri), without_info("mlflow.store.db.utils"):
        client = mlflow.MlflowClient()  # opens the database, so it needs the lock
        client.search_experiments(max_results=1)  # creates or migrates the schema
        found = client.get_experiment_by_name(cfg.experiment)
        if found is None:
            place = (file.parent / "artifacts" / cfg.experiment).as_uri() if file else None
            return client, client.create_experiment(cfg.experiment, artifact_location=place)
    if found.lifecycle_stage != "active":
        raise RerankerError(
            f"experiment {cfg.experiment!r} is deleted in {redact(cfg.uri)}. Restore it (mlflow "
            f"experiments restore --experiment-id {found.experiment_id}) or set "
            "tracking.experiment to another name."
        )
    return client, str(found.experiment_id)
