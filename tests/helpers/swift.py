"""A real S3 server on the loopback: OpenStack Swift with s3api, in its own virtual environment."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

REQUIREMENTS = Path(__file__).with_name("swift-requirements.txt")
KINDS = ("account", "container", "object")
ACCESS_KEY = "test:tester"
# test_s3.py checks that no output contains the secret key.
SECRET_KEY = "canary-9f3a1c77"
# Starting takes 1.2 s on an idle machine, and 20 s on a busy one that must compile bytecode first.
START_TIMEOUT_S = 60

_STORAGE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {home}
devices = {home}/devices
recon_cache_path = {home}/recon
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""
_PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {home}
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache s3api tempauth bulk slo dlo proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
allow_account_management = true
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = {secret} .admin
[filter:s3api]
use = egg:swift#s3api
location = auto
auth_pipeline_check = false
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:bulk]
use = egg:swift#bulk
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""
_SWIFT = """[swift-hash]
swift_hash_path_suffix = tests
swift_hash_path_prefix = tests
[storage-policy:0]
name = one
default = yes
"""
# One process instead of nine calls of swift-ring-builder, each of which takes 0.8 s for imports.
_RINGS = """
import sys
from swift.common.ring import RingBuilder
for argument in sys.argv[1:]:
    path, port = argument.rsplit(":", 1)
    builder = RingBuilder(4, 1, 0)
    builder.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1.0))
    builder.rebalance()
    builder.get_ring().save(path + ".ring.gz")
"""


@dataclass(frozen=True)
class Swift:
    """A running server: its port on the loopback and its S3 endpoint."""

    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def unsupported_reason(folder: Path) -> str | None:
    """Return why Swift cannot store objects in `folder`, or None if it can."""
    try:
        os.setxattr(folder, "user.swift", b"1")
    except (AttributeError, OSError) as error:
        return f"Swift needs a file system with user xattrs: {folder}: {error}"
    return None


@contextmanager
def serve(home: Path) -> Iterator[Swift]:
    """Run Swift's four processes on free ports with their data in `home`; stop them at the end."""
    programs = install() / "bin"
    with ExitStack() as stack:
        ports = free_ports(len(KINDS) + 1)
        _configure(home, programs, ports)
        for kind in (*KINDS, "proxy"):
            stack.enter_context(_run(programs, home, kind))
        _wait_until_ready(ports, home)
        yield Swift(ports[-1])


def install() -> Path:
    """Return a virtual environment with the packages of swift-requirements.txt.

    The first call on a machine creates it.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reranker-tests"
    venv = cache / "swift-2.38.3"
    cache.mkdir(parents=True, exist_ok=True)
    ready, wanted = venv / ".ready", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    with FileLock(cache / ".swift.lock"):
        if not ready.exists() or ready.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
            pip = [venv / "bin" / "python", "-m", "pip", "install", "--quiet"]
            options = ["--disable-pip-version-check", "--no-deps", "--requirement", REQUIREMENTS]
            subprocess.run([*pip, *options], check=True)
            ready.write_text(wanted)  # written last, so that it marks a complete installation
    return venv


def _configure(home: Path, programs: Path, ports: list[int]) -> None:
    for folder in ("devices/d1", "recon"):
        (home / folder).mkdir(parents=True)
    (home / "swift.conf").write_text(_SWIFT)
    values = {"home": home, "user": _user(), "secret": SECRET_KEY}
    for kind, port in zip(KINDS, ports, strict=False):
        (home / f"{kind}-server.conf").write_text(_STORAGE.format(kind=kind, port=port, **values))
    (home / "proxy-server.conf").write_text(_PROXY.format(port=ports[-1], **values))
    rings = [f"{home / kind}:{port}" for kind, port in zip(KINDS, ports, strict=False)]
    command = [programs / "python", "-c", _RINGS, *rings]
    subprocess.run(command, check=True, env=_environment())


def _environment() -> dict[str, str]:
    # Without greendns each process imports 0.4 s faster.
    return {**os.environ, "EVENTLET_NO_GREENDNS": "yes"}


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def _run(programs: Path, home: Path, kind: str) -> Iterator[None]:
    with (home / f"{kind}.log").open("wb") as log:
        command = [programs / f"swift-{kind}-server", home / f"{kind}-server.conf"]
        process = subprocess.Popen(command, stdout=log, stderr=log, env=_environment())
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _wait_until_ready(ports: list[int], home: Path) -> None:
    """Wait until the storage servers accept connections and the proxy is healthy."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            for port in ports:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
            with closing(http.client.HTTPConnection("127.0.0.1", ports[-1], timeout=5)) as proxy:
                proxy.request("GET", "/healthcheck")
                if proxy.getresponse().status == 200:
                    return
        except OSError:
            pass
        time.sleep(0.05)
    logs = "\n".join(f"{log.name}: {log.read_text()[-2000:]}" for log in sorted(home.glob("*.log")))
    raise RuntimeError(f"Swift did not answer within {START_TIMEOUT_S} s.\n{logs}")
