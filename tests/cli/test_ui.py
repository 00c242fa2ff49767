"""The UI serves this machine only and ends with Ctrl-C."""

from __future__ import annotations

import errno
import http.client
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from reranker.cli.ui import serve
from reranker.config import ROOT, Config
from reranker.errors import RerankerError
from tests.helpers.tracked import SECRET


def test_only_loopback_addresses_are_served(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(RerankerError, match="not a loopback address"):
            serve(uri, host=host)


def test_an_error_says_why_the_ui_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(RerankerError, match=r"mlflow\.db: no runs yet"):
        serve(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RerankerError, match=r"https://\*\*\*@host is already a server"):
        serve(f"https://me:{SECRET}@host")
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        message = f"port {port} on 127.0.0.1 is in use; choose another one with --port"
        with pytest.raises(RerankerError, match=message):
            serve(f"sqlite:///{tmp_path}/mlflow.db", port=port)


def test_a_port_that_cannot_be_opened_is_an_error_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    (tmp_path / "mlflow.db").touch()
    monkeypatch.setattr(socket.socket, "bind", refuse)
    with pytest.raises(RerankerError, match=r"port 80 .* cannot be opened \(Permission denied\)"):
        serve(f"sqlite:///{tmp_path}/mlflow.db", port=80)


@pytest.mark.slow
def test_requests_with_another_host_name_are_rejected_and_ctrl_c_ends_the_server(
    run_cfg: Config, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = "import sys; from reranker.cli.ui import serve; sys.exit(serve({!r}, port={}))"
    command = [sys.executable, "-c", code.format(run_cfg.tracking.uri, port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(f"http://127.0.0.1:{port} shows sqlite:///")
        assert status(port, f"127.0.0.1:{port}", wait_s=90) == 200
        assert status(port, "books.example.org", wait_s=5) == 403
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
    assert server.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def status(port: int, host: str, *, wait_s: float) -> int:
    """Return the HTTP status of a request with this Host header, once the server has started."""
    end = time.monotonic() + wait_s
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            path = "/api/2.0/mlflow/experiments/search?max_results=1"
            connection.request("GET", path, headers={"Host": host})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):  # the server has not started yet
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.2)
        finally:
            connection.close()
