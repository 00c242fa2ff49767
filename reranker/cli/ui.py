"""MLflow's web interface on this machine, as a child process in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import os
import signal
import socket
import subprocess
import sys
from types import FrameType
from typing import Any

from rich.console import Console

from reranker.errors import RerankerError
from reranker.redaction import redact
from reranker.tracking import store
from reranker.tracking.store import database, init_lock


def add_parser(commands: Any, store: argparse.ArgumentParser) -> None:
    """Add the subcommand `ui`."""
    ui = commands.add_parser("ui", parents=[store], help="serve the MLflow UI")
    ui.add_argument("--port", type=int, default=5000)
    ui.add_argument("--host", default="127.0.0.1")


def run(args: argparse.Namespace) -> int:
    """Serve the UI of the store that was named, or of the default one."""
    return serve(args.tracking_uri or store.default_uri(), host=args.host, port=args.port)


def serve(uri: str, *, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve the runs of a store until Ctrl-C or SIGTERM; the server's exit code comes back.

    Raises:
        RerankerError: The host is not this machine's loopback, the port is taken, the store is a server already, or
            its SQLite file does not exist.
    """
    _check(uri, host, port)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        host,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # By environment, for a command line is open to every user of the machine and the URI may hold a password.
    env = os.environ | quiet | {"MLFLOW_BACKEND_STORE_URI": uri}
    shown = f"[{host}]" if ":" in host else host
    Console().print(
        f"http://{shown}:{port} shows {redact(uri)} (Ctrl-C stops it)", markup=False, soft_wrap=True
    )
    return _foreground(command, env)


def _check(uri: str, host: str, port: int) -> None:
    if not _is_loopback(host):
        raise RerankerError(
            f"host={host!r} is not a loopback address, and the interface asks nobody for a password. Use 127.0.0.1, "
            "and an SSH tunnel from elsewhere."
        )
    if uri.startswith(("http://", "https://")):
        raise RerankerError(f"{redact(uri)} is a server already; open it in a browser.")
    file = database(uri)
    if file and not file.exists():
        raise RerankerError(
            f"{file}: no runs yet. `python main.py` makes the first one; or set tracking.uri."
        )
    with init_lock(uri):  # a first run may be setting up the database right now
        pass
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RerankerError(
                f"port {port} on {host} cannot be had ({error}); choose another one."
            ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name: it may come to mean another address
        return False


def _foreground(command: list[str], env: dict[str, str]) -> int:
    """Run a command in its own process group, hand our signals on to the group, and leave nothing of it behind."""
    received: list[int] = []
    children: list[subprocess.Popen[bytes]] = []

    def forward(signum: int, frame: FrameType | None) -> None:
        received.append(signum)
        for child in children:
            _signal_group(child.pid, signum)

    previous = {s: signal.signal(s, forward) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        child = subprocess.Popen(command, env=env, start_new_session=True)
        children.append(child)
        for signum in received:  # one that came before the child was known
            _signal_group(child.pid, signum)
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for child in children:
            _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # all of it has ended already
        os.killpg(group, signum)
