"""A real S3 server on the loopback: OpenStack Swift with s3api, in a virtual environment of its own."""

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
ACCESS_KEY, SECRET_KEY = (
    "test:tester",
    "canary-9f3a1c77",
)  # the secret: found in no output, see test_s3.py
START_TIMEOUT_S = 60  # 1.2 s on an idle machine, 20 s the first time on a busy one (bytecode)

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
_RINGS = """
import sys
from swift.common.ring import RingBuilder
for argument in sys.argv[1:]:
    path, port = argument.rsplit(":", 1)
    builder = RingBuilder(4, 1, 0)
    builder.add_dev(dict(region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1.0))
    builder.rebalance()
    builder.get_ring().save(path + ".ring.gz")
"""  # one process in place of swift-ring-builder's nine, each of which imports for 0.8 s


@dataclass(frozen=True)
class Swift:
    """A running server: its port on the loopback and the S3 endpoint there."""

    port: int

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def refusal(folder: Path) -> str | None:
    """Why Swift cannot keep its objects under `folder`; None where it can."""
    try:
        os.setxattr(folder, "user.swift", b"1")
    except (AttributeError, OSError) as error:
        return f"Swift needs a file system with user xattrs: {folder}: {error}"
    return None


@contextmanager
def serve(home: Path) -> Iterator[Swift]:
    """Run Swift's four processes on free ports with their data under `home`; ends them, by their ids, at the end."""
    programs = install() / "bin"
    with ExitStack() as stack:
        ports = _free_ports(len(KINDS) + 1)
        _configure(home, programs, ports)
        for kind in (*KINDS, "proxy"):
            stack.enter_context(_running(programs, home, kind))
        _wait(ports, home)
        yield Swift(ports[-1])


def install() -> Path:
    """The virtual environment with the packages of swift-requirements.txt, made at the first call on a machine."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reranker-tests"
    venv = cache / "swift-2.38.3"
    cache.mkdir(parents=True, exist_ok=True)
    ready, wanted = venv / ".ready", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    with FileLock(cache / ".swift.lock"):
        if not ready.exists() or ready.read_text() != wanted:
            subprocess.run([sys.executable, "-m", "venv", "--clear", venv], check=True)
            pip = [
                venv / "bin" / "python",
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
            ]
            subprocess.run([*pip, "--no-deps", "--requirement", REQUIREMENTS], check=True)
            ready.write_text(wanted)  # last: a venv without it is half made
    return venv


def _configure(home: Path, programs: Path, ports: list[int]) -> None:
    for folder in ("devices/d1", "recon"):
        (home / folder).mkdir(parents=True)
    (home / "swift.conf").write_text(_SWIFT)
    facts = {"home": home, "user": _user(), "secret": SECRET_KEY}
    for kind, port in zip(KINDS, ports, strict=False):
        (home / f"{kind}-server.conf").write_text(_STORAGE.format(kind=kind, port=port, **facts))
    (home / "proxy-server.conf").write_text(_PROXY.format(port=ports[-1], **facts))
    rings = [
        programs / "python",
        "-c",
        _RINGS,
        *(f"{home / kind}:{port}" for kind, port in zip(KINDS, ports, strict=False)),
    ]
    subprocess.run(rings, check=True, env=_environment())


def _environment() -> dict[str, str]:
    return {**os.environ, "EVENTLET_NO_GREENDNS": "yes"}  # 0.4 s less import in each process


def _user() -> str:
    import pwd

    return pwd.getpwuid(os.getuid()).pw_name


@contextmanager
def _running(programs: Path, home: Path, kind: str) -> Iterator[None]:
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


def _free_ports(n: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


def _wait(ports: list[int], home: Path) -> None:
    """Return when the storage servers take connections and the proxy says that it is healthy."""
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
