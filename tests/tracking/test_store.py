"""Several processes can open the store at once, and no message contains a secret."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from reranker.config import ROOT, Config, TrackingConfig
from reranker.errors import ConfigError, RerankerError
from reranker.redaction import redact
from reranker.reports.run.summary import next_commands
from reranker.serving.registry import Registered
from reranker.tracking import store
from tests.helpers.tracked import (
    SECRET,
    SECRET_URI,
    config,
    find_runs,
    read_result,
    start_program,
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        (SECRET_URI, "postgresql://***@db.example/runs"),
        (
            f"cannot reach 'https://token:{SECRET}@host:5000/x' now",
            "cannot reach 'https://***@host:5000/x' now",
        ),
        (
            f"https://host/runs?user=me&password={SECRET}&a=1",
            "https://host/runs?user=me&password=***&a=1",
        ),
        (f"postgresql://me:p@{SECRET}@db.example/runs", "postgresql://***@db.example/runs"),
        (
            f"postgresql://db/runs?sslmode=on&sslpassword={SECRET}",
            "postgresql://db/runs?sslmode=on&sslpassword=***",
        ),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("num_memory_tokens=5, mail me@example.org", "num_memory_tokens=5, mail me@example.org"),
    ],
)
def test_only_user_names_and_passwords_are_redacted(text: str, safe: str) -> None:
    assert redact(text) == safe


def test_only_a_sqlite_uri_has_a_file() -> None:
    assert store.sqlite_file("sqlite:////a b/ü/mlflow.db") == Path("/a b/ü/mlflow.db")
    assert store.sqlite_file("sqlite:///mlflow.db") == Path.cwd() / "mlflow.db"
    assert store.sqlite_file("http://127.0.0.1:5000") is None
    assert store.sqlite_file("postgresql+psycopg2://host/runs") is None


@pytest.mark.parametrize(
    "uri", ["mlruns", "/abs/mlruns", "sqlite://", "sqlite:///:memory:", "sqlite://host/a.db"]
)
def test_a_uri_without_a_persistent_store_is_an_error(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri=.*sqlite:////ABSOLUTE/FOLDER/mlflow\.db"):
        store.sqlite_file(uri)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\x00b", "/abs", "%2e%2e"])
def test_an_experiment_name_that_is_not_a_plain_folder_name_is_an_error(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.experiment="):
        store.open_store(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment=name))
    assert list(tmp_path.iterdir()) == []


def test_the_store_of_the_environment_has_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.default_uri() == f"sqlite:///{ROOT}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store.default_uri() == "http://127.0.0.1:5000"


def test_a_store_that_another_process_locks_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.05)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    message = rf"{tmp_path}/\.init\.lock: another process has held this lock for 0\.05 s.*Wait for"
    with store.init_lock(uri), pytest.raises(RerankerError, match=message), store.init_lock(uri):
        pass
    with store.init_lock(uri):  # it is released now
        pass


def test_without_info_suppresses_messages_below_warning_within_the_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("mlflow.store.db.utils")
    caplog.set_level(logging.INFO)
    logger.addHandler(caplog.handler)  # MLflow's loggers do not propagate to the root logger
    try:
        with store.without_info("mlflow.store.db.utils"):
            logger.info("Updating database tables")
            logger.warning("a slow migration")
        logger.info("afterwards")
    finally:
        logger.removeHandler(caplog.handler)
    assert list(dict.fromkeys(caplog.messages)) == ["a slow migration", "afterwards"]


@pytest.mark.slow
def test_the_commands_name_the_runs_store_and_opening_it_does_not_change_the_environment(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{database}.another")  # MLflow exports a URI when it changes
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    cfg = config(f"sqlite:///{database}")
    store.open_store(cfg.tracking)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    registered = Registered(1, "models:/book-reranker/1", "m-1", True, "first")
    option = f" --tracking-uri 'sqlite:///{database}'"
    assert [option in line for line in next_commands(registered, cfg)] == [True, True]
    # If the shell sets the URI, the commands need no option.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", cfg.tracking.uri)
    store.open_store(cfg.tracking)
    assert os.environ["MLFLOW_TRACKING_URI"] == cfg.tracking.uri
    assert not any("--tracking-uri" in line for line in next_commands(registered, cfg))


@pytest.mark.slow
def test_a_deleted_experiment_is_an_error_that_says_how_to_restore_it(run_cfg: Config) -> None:
    client, experiment_id = store.open_store(run_cfg.tracking)
    client.delete_experiment(experiment_id)
    with pytest.raises(RerankerError, match=f"is deleted in .* --experiment-id {experiment_id}"):
        store.open_store(run_cfg.tracking)


@pytest.mark.slow
def test_four_processes_create_a_store_at_once_and_each_logs_a_run(tmp_path: Path) -> None:
    cfg = config(f"sqlite:///{tmp_path}/mlruns/mlflow.db", "cold start")
    children = [start_program(cfg, tmp_path / str(i), i, 0) for i in range(4)]
    outputs = [child.communicate(timeout=180)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4, outputs
    assert "INFO" not in "".join(outputs)  # MLflow does not report the creation of its tables
    _, runs = find_runs(cfg)
    assert sorted(r.data.metrics["value"] for r in runs) == [0, 1, 2, 3]
    assert {r.info.status for r in runs} == {"FINISHED"}
    logged = {read_result(tmp_path / str(i))["run_id"] for i in range(4)}
    assert logged == {r.info.run_id for r in runs}
