"""The store is opened by however many processes at once, says what it is, and gives no secret away."""

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
from tests.helpers.tracked import SECRET, SECRET_URI, account, config, found, program


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
def test_redaction_takes_userinfo_and_passwords_and_nothing_else(text: str, safe: str) -> None:
    assert redact(text) == safe


def test_the_database_of_a_uri_is_its_file() -> None:
    assert store.database("sqlite:////a b/ü/mlflow.db") == Path("/a b/ü/mlflow.db")
    assert store.database("sqlite:///mlflow.db") == Path.cwd() / "mlflow.db"
    assert store.database("http://127.0.0.1:5000") is None
    assert store.database("postgresql+psycopg2://host/runs") is None


@pytest.mark.parametrize(
    "uri", ["mlruns", "/abs/mlruns", "sqlite://", "sqlite:///:memory:", "sqlite://host/a.db"]
)
def test_a_uri_that_keeps_nothing_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri=.*sqlite:////ABSOLUTE/FOLDER/mlflow\.db"):
        store.database(uri)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\x00b", "/abs", "%2e%2e"])
def test_an_experiment_name_that_leads_out_of_its_folder_is_refused(
    tmp_path: Path, name: str
) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.experiment="):
        store.open_store(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment=name))
    assert list(tmp_path.iterdir()) == []


def test_the_environments_store_goes_before_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.default_uri() == f"sqlite:///{ROOT}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store.default_uri() == "http://127.0.0.1:5000"


def test_a_store_that_another_process_keeps_locked_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.05)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    words = rf"{tmp_path}/\.init\.lock: another process has kept this lock for 0\.05 s.*Wait for that process or end it"
    with store.init_lock(uri), pytest.raises(RerankerError, match=words), store.init_lock(uri):
        pass
    with store.init_lock(uri):  # free again
        pass


def test_while_a_store_is_opened_news_of_its_tables_is_silent_and_a_warning_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = logging.getLogger("mlflow.store.db.utils")
    caplog.set_level(logging.INFO)
    logger.addHandler(caplog.handler)  # MLflow, once imported, passes nothing on to the root
    try:
        with store._quiet_schema():
            logger.info("Updating database tables")
            logger.warning("a slow migration")
        logger.info("afterwards")
    finally:
        logger.removeHandler(caplog.handler)
    assert list(dict.fromkeys(caplog.messages)) == ["a slow migration", "afterwards"]


@pytest.mark.slow
def test_the_commands_name_the_runs_store_and_opening_it_leaves_the_environment_as_it_was(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{database}.another")  # MLflow exports a URI when it changes
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    cfg = config(f"sqlite:///{database}")
    store.open_store(cfg.tracking)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    made = Registered(1, "models:/book-reranker/1", "m-1", True, "first")
    assert [
        f" --tracking-uri 'sqlite:///{database}'" in line for line in next_commands(made, cfg)
    ] == [True, True]
    monkeypatch.setenv(
        "MLFLOW_TRACKING_URI", cfg.tracking.uri
    )  # now the shell says so, to the commands as well
    store.open_store(cfg.tracking)
    assert os.environ["MLFLOW_TRACKING_URI"] == cfg.tracking.uri
    assert not any("--tracking-uri" in line for line in next_commands(made, cfg))


@pytest.mark.slow
def test_an_experiment_that_was_deleted_is_named_with_the_way_back(run_cfg: Config) -> None:
    client, experiment_id = store.open_store(run_cfg.tracking)
    client.delete_experiment(experiment_id)
    with pytest.raises(RerankerError, match=f"is deleted in .* --experiment-id {experiment_id}"):
        store.open_store(run_cfg.tracking)


@pytest.mark.slow
def test_four_processes_open_a_fresh_store_at_once_and_each_logs_a_run(tmp_path: Path) -> None:
    cfg = config(f"sqlite:///{tmp_path}/mlruns/mlflow.db", "cold start")
    children = [program(cfg, tmp_path / str(i), i, 0) for i in range(4)]
    outputs = [child.communicate(timeout=180)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4, outputs
    assert "INFO" not in "".join(outputs)  # MLflow's word that it makes its tables
    _, runs = found(cfg)
    assert sorted(r.data.metrics["value"] for r in runs) == [0, 1, 2, 3]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert {account(tmp_path / str(i))["run_id"] for i in range(4)} == {r.info.run_id for r in runs}
