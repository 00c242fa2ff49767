"""Runs say truly how they ended, however they end, and give no secret away."""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from reranker.config import Config, TrackingConfig
from reranker.tracking import lifecycle, store
from reranker.tracking.lifecycle import start
from tests.helpers.tracked import SECRET, SECRET_URI, account, artifacts, child, found, program


def test_sigterm_interrupts_once_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with lifecycle.interruptible():
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        os.kill(os.getpid(), signal.SIGTERM)  # while the run closes: ignored
    assert signal.getsignal(signal.SIGTERM) is before


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
def test_a_run_that_does_not_end_well_says_how(
    run_cfg: Config, tmp_path: Path, error: BaseException, status: str
) -> None:
    with pytest.raises(type(error)) as raised, start(run_cfg, tmp_path) as log, log.timed("pairs"):
        raise error
    assert raised.value is error
    result = account(tmp_path)
    assert (result["status"], result["error"]) == (
        status,
        {"type": type(error).__name__, "message": str(error)},
    )
    assert "pairs" in result["seconds"]
    _, [made] = found(run_cfg)
    assert made.info.status == status
    trace = (artifacts(run_cfg, log.run_id) / "traceback.txt").read_text()
    assert Path(__file__).name in trace and type(error).__name__ in trace


@pytest.mark.slow
def test_a_store_that_fails_while_a_run_closes_does_not_hide_the_first_error(
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
    assert account(tmp_path)["status"] == "FAILED"
    assert found(run_cfg)[1][0].info.status == "FAILED"


@pytest.mark.slow
def test_a_secret_in_the_uri_stands_nowhere(
    run_cfg: Config,
    database: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(database, tmp_path / "mlruns")  # its own copy, to search it
    real = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db", experiment="secret")
    monkeypatch.setattr(lifecycle, "open_store", lambda tracking: store.open_store(real))
    run_cfg.tracking.uri = SECRET_URI
    overrides = tmp_path / "run" / ".hydra" / "overrides.yaml"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(f"- tracking.uri={SECRET_URI}\n")
    with pytest.raises(RuntimeError), start(run_cfg, tmp_path / "run") as log:
        raise RuntimeError(f"could not connect to {SECRET_URI}")
    overrides.unlink()  # Hydra's own file, which tracking does not write
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {"result.json", "config.yaml", "traceback.txt", "mlflow.db"} <= {f.name for f in files}
    assert [f for f in files if SECRET.encode() in f.read_bytes()] == []
    assert SECRET not in capsys.readouterr().out
    assert (
        account(tmp_path / "run")["error"]["message"]
        == "could not connect to postgresql://***@db.example/runs"
    )
    assert log.result["overrides"] == ["tracking.uri=postgresql://***@db.example/runs"]


@pytest.mark.slow
def test_sigterm_leaves_a_killed_run_and_its_account_long_before_the_run_would_end(
    run_cfg: Config, tmp_path: Path
) -> None:
    child = program(run_cfg, tmp_path, 7, 600)
    assert child.stdout is not None
    while "inside" not in (line := child.stdout.readline()):
        assert line, "the program ended before its run began"
    child.terminate()
    try:
        output, _ = child.communicate(timeout=120)
    finally:
        child.kill()  # one that went on; nothing to one that ended
    assert child.returncode != 0
    assert "KeyboardInterrupt: SIGTERM" in output
    assert (account(tmp_path)["status"], account(tmp_path)["metrics"]) == ("KILLED", {"value": 7})
    _, [made] = found(run_cfg)
    assert made.info.status == "KILLED"
    assert made.info.end_time is not None


@pytest.mark.slow
def test_a_run_id_left_in_the_environment_is_not_continued(
    run_cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = child(run_cfg, tmp_path, [0.1])
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    second = child(run_cfg, tmp_path, [0.2])
    assert first != second
    assert "MLFLOW_RUN_ID" not in os.environ
