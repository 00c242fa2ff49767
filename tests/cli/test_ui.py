"""The interface is for this machine alone and ends with Ctrl-C."""

from __future__ import annotations

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


def test_the_interface_is_for_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(RerankerError, match="not a loopback address"):
            serve(uri, host=host)


def test_the_interface_says_why_it_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(RerankerError, match=r"mlflow\.db: no runs yet"):
        serve(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RerankerError, match=r"https://\*\*\*@host is a server already"):
        serve(f"https://me:{SECRET}@host")
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RerankerError, match=f"port {port} on 127.0.0.1 cannot be had"):
            serve(f"sqlite:///{tmp_path}/mlflow.db", port=port)


@pytest.mark.slow
def test_the_interface_answers_to_its_own_name_alone_and_ends_with_ctrl_c(
    run_cfg: Config, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    call = f"import sys; from reranker.cli.ui import serve; sys.exit(serve({run_cfg.tracking.uri!r}, port={port}))"
    server = subprocess.Popen(
        [sys.executable, "-c", call], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(f"http://127.0.0.1:{port} shows sqlite:///")
        answers = [
            status(port, f"127.0.0.1:{port}", wait_s=90),
            status(port, "books.example.org", wait_s=5),
        ]
        assert answers == [200, 403]
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
    assert server.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def status(port: int, host: str, *, wait_s: float) -> int:
    """The status of the experiments' API for a request to a host of this name, as soon as the port answers."""
    end = time.monotonic() + wait_s
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request(
                "GET", "/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host}
            )
            return connection.getresponse().status
        except (
            OSError,
            http.client.HTTPException,
        ):  # refused, or reset by a server that is still starting
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.2)
        finally:
            connection.close()
