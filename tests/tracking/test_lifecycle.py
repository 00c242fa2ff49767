"""A run is closed with its true status, and no secret is logged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from reranker.config import Config, TrackingConfig
from reranker.tracking import lifecycle, store
from reranker.tracking.lifecycle import start
from tests.helpers.tracked import (
    SECRET,
    SECRET_URI,
    artifacts,
    find_runs,
    log_run,
    read_result,
    start_program,
)

SIGTERM_TWICE = """
import os, signal, time
from reranker.tracking import lifecycle

before = signal.getsignal(signal.SIGTERM)
with lifecycle.interruptible():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
    except KeyboardInterrupt as error:
        print("interrupted:", error)
    os.kill(os.getpid(), signal.SIGTERM)
    print("ignored")
print("restored:", signal.getsignal(signal.SIGTERM) is before)
"""


def test_sigterm_interrupts_once_and_the_old_handler_is_restored() -> None:
    """Run a separate process, because a test worker may run tests outside its main thread."""
    command = [sys.executable, "-c", SIGTERM_TWICE]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines() == ["interrupted: SIGTERM", "ignored", "restored: True"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("no pairs"), "FAILED"),
        (SystemExit(0), "FAILED"),
        (KeyboardInterrupt(), "KILLED"),
    ],
    ids=["exception", "exit", "interrupt"],
)
def test_a_failed_or_killed_run_logs_its_status_and_its_traceback(
    run_cfg: Config, tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as raised, start(run_cfg, tmp_path) as log, log.timed("pairs"):
        raise error
    assert raised.value is error
    result = read_result(tmp_path)
    assert result["status"] == status
    assert result["error"] == {"type": type(error).__name__, "message": str(error)}
    assert "pairs" in result["seconds"]
    _, [run] = find_runs(run_cfg)
    assert run.info.status == status
    trace = (artifacts(run_cfg, log.run_id) / "traceback.txt").read_text()
    assert Path(__file__).name in trace and type(error).__name__ in trace


@pytest.mark.slow
def test_an_error_while_closing_a_run_does_not_hide_the_first_error(
    run_cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(f"no space at {SECRET_URI}")

    with pytest.raises(ValueError, match="first") as raised, start(run_cfg, tmp_path) as log:
        monkeypatch.setattr(log.client, "log_text", refuse)
        raise ValueError("first")
    assert raised.value.__notes__ == [
        "The run could not be closed as FAILED: no space at postgresql://***@db.example/runs"
    ]
    assert read_result(tmp_path)["status"] == "FAILED"
    assert find_runs(run_cfg)[1][0].info.status == "FAILED"


@pytest.mark.slow
def test_a_secret_in_the_uri_is_in_no_file_and_not_printed(
    run_cfg: Config,
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(database, tmp_path / "mlruns")  # a copy, so that the test can search it
    real = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db", experiment="secret")
    monkeypatch.setattr(lifecycle, "open_store", lambda tracking: store.open_store(real))
    run_cfg.tracking.uri = SECRET_URI
    overrides = tmp_path / "run" / ".hydra" / "overrides.yaml"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(f"- tracking.uri={SECRET_URI}\n")
    with pytest.raises(RuntimeError), start(run_cfg, tmp_path / "run") as log:
        raise RuntimeError(f"could not connect to {SECRET_URI}")
    overrides.unlink()  # Hydra writes this file, not the tracking
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {"result.json", "config.yaml", "traceback.txt", "mlflow.db"} <= {f.name for f in files}
    assert [f for f in files if SECRET.encode() in f.read_bytes()] == []
    assert SECRET not in capsys.readouterr().out
    message = read_result(tmp_path / "run")["error"]["message"]
    assert message == "could not connect to postgresql://***@db.example/runs"
    assert log.result["overrides"] == ["tracking.uri=postgresql://***@db.example/runs"]


@pytest.mark.slow
def test_sigterm_closes_a_run_as_killed_with_its_result(run_cfg: Config, tmp_path: Path) -> None:
    child = start_program(run_cfg, tmp_path, 7, 600)
    assert child.stdout is not None
    while "inside" not in (line := child.stdout.readline()):
        assert line, "the program ended before its run began"
    child.terminate()
    try:
        output, _ = child.communicate(timeout=120)
    finally:
        child.kill()  # no effect if it has ended
    assert child.returncode != 0
    assert "KeyboardInterrupt: SIGTERM" in output
    result = read_result(tmp_path)
    assert (result["status"], result["metrics"]) == ("KILLED", {"value": 7})
    _, [run] = find_runs(run_cfg)
    assert run.info.status == "KILLED"
    assert run.info.end_time is not None


@pytest.mark.slow
def test_a_run_id_in_the_environment_is_not_resumed(
    run_cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = log_run(run_cfg, tmp_path, [0.1])
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    second = log_run(run_cfg, tmp_path, [0.2])
    assert first != second
    assert "MLFLOW_RUN_ID" not in os.environ
