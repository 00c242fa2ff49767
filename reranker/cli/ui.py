"""`reranker ui`: serve the MLflow UI on this machine."""

from __future__ import annotations

import argparse
import contextlib
import errno
import ipaddress
import os
import signal
import socket
import subprocess
import sys
from types import FrameType
from typing import Any

from rich.console import Console

from reranker.cli import options
from reranker.errors import RerankerError
from reranker.redaction import redact
from reranker.tracking import store


def add_parser(commands: Any) -> None:
    """Add the subcommand `ui`."""
    parser = commands.add_parser(
        "ui",
        parents=[options.tracking_uri()],
        help="serve the MLflow UI",
        description="Serve the MLflow UI of a store on this machine until Ctrl-C.",
    )
    parser.add_argument(
        "--port",
        type=options.integer(1, 65535),
        default=5000,
        metavar="PORT",
        help="port of the server (default: %(default)s)",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="loopback address (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve the UI and return the server's exit code; the caller prints a RerankerError."""
    return serve(args.tracking_uri or store.default_uri(), host=args.host, port=args.port)


def serve(uri: str, *, host: str = "127.0.0.1", port: int = 5000) -> int:
    """Serve the runs of a store until Ctrl-C or SIGTERM; return the server's exit code.

    Raises:
        RerankerError: The host is not a loopback address, the port is in use, the store is itself a
            server, or its SQLite file does not exist.
    """
    _check(uri, host, port)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
    command += ["--host", host, "--port", str(port)]
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    # Every user of the machine can read a command line, and the URI may contain a password.
    env = os.environ | quiet | {"MLFLOW_BACKEND_STORE_URI": uri}
    shown = f"[{host}]" if ":" in host else host
    Console().print(
        f"http://{shown}:{port} shows {redact(uri)} (Ctrl-C stops it)", markup=False, soft_wrap=True
    )
    return _foreground(command, env)


def _check(uri: str, host: str, port: int) -> None:
    if not _is_loopback(host):
        raise RerankerError(
            f"host={host!r} is not a loopback address, and the MLflow UI has no password. Use "
            "127.0.0.1, and an SSH tunnel to open it on another machine."
        )
    if uri.startswith(("http://", "https://")):
        raise RerankerError(f"{redact(uri)} is already a server; open it in a browser.")
    file = store.sqlite_file(uri)
    if file and not file.exists():
        raise RerankerError(
            f"{file}: no runs yet. `python main.py` makes the first one; or give a store with "
            "--tracking-uri."
        )
    with store.init_lock(uri):  # another process may be creating the database
        pass
    _check_port(host, port)


def _check_port(host: str, port: int) -> None:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            in_use = error.errno == errno.EADDRINUSE
            problem = "is in use" if in_use else f"cannot be opened ({error.strerror})"
            raise RerankerError(
                f"port {port} on {host} {problem}; choose another one with --port."
            ) from error


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a host name, which may resolve to any address
        return False


def _foreground(command: list[str], env: dict[str, str]) -> int:
    """Run a command in its own process group, forward signals to it and kill it at the end."""
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
        for signum in received:  # signals that arrived before the child was known
            _signal_group(child.pid, signum)
        return child.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        for child in children:
            _signal_group(child.pid, signal.SIGKILL)


def _signal_group(group: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # the group has already ended
        os.killpg(group, signum)
