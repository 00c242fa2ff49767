"""A Dask cluster that loses a worker builds the same pairs as threads; errors are explained."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from reranker.cache import Cache
from reranker.config import ROOT, DataConfig, EngineConfig, SamplingConfig, WorldConfig
from reranker.data import load
from reranker.errors import DataError, EngineError
from reranker.sampling import build_pairs, engine
from tests.sampling.test_pairs import hashes

# distributed 2026.8 on Python 3.11 leaves sockets of a closed client to the garbage collector.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::ResourceWarning")]

START_S = 60


@dataclass
class Cluster:
    """A `dask scheduler` and two `dask worker` processes on this machine."""

    address: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)


def start_dask(*args: str) -> subprocess.Popen[bytes]:
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dask", *args]
    return subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    local = ["--host", "127.0.0.1"]
    scheduler = start_dask("scheduler", *local, "--port", str(port), "--no-dashboard")
    made = Cluster(address)
    try:
        made.workers = [
            start_dask(
                *("worker", address, *local, "--no-nanny", "--nthreads", "1", "--no-dashboard"),
                *("--local-directory", str(tmp_path / f"worker-{i}")),
            )
            for i in range(2)
        ]
        wait_until(lambda: n_workers(address) == 2)
        yield made
    finally:
        for process in (*made.workers, scheduler):
            process.kill()
            process.wait()


def n_workers(address: str) -> int:
    from distributed import Client

    try:
        with Client(address, timeout=5, set_as_default=False) as client:
            return len(client.scheduler_info()["workers"])
    except OSError:
        return 0


def wait_until(ready: object) -> None:
    assert callable(ready)
    deadline = time.monotonic() + START_S
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def kill_when_parts_appear(
    worker: subprocess.Popen[bytes], folder: Path, n: int
) -> threading.Thread:
    """Send SIGKILL to a worker when n part files have been written below the folder."""

    def watch() -> None:
        wait_until(lambda: len(list(folder.rglob("part-*.parquet"))) >= n)
        worker.send_signal(signal.SIGKILL)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_cluster_that_loses_a_worker_writes_the_same_bytes_as_one_thread(
    cluster: Cluster, tmp_path: Path
) -> None:
    cfg = DataConfig(name="demo", world=WorldConfig(n_books=300, n_users=1500, mean_ratings=15))
    corpus = load(cfg, Cache(tmp_path / "tables"))
    sampling, one_thread = SamplingConfig(part_pairs=100), EngineConfig("synchronous", 1)
    expected = build_pairs(corpus, sampling, one_thread, Cache(tmp_path / "expected"))
    n_parts = len(list(expected.parts.glob("part-*.parquet")))
    assert n_parts > 100

    killer = kill_when_parts_appear(cluster.workers[0], tmp_path / "cluster", n=n_parts // 4)
    config = EngineConfig("cluster", n_partitions=n_parts, address=cluster.address)
    pairs = build_pairs(corpus, sampling, config, Cache(tmp_path / "cluster"))
    killer.join()
    assert cluster.workers[0].wait() == -signal.SIGKILL
    assert hashes(pairs) == hashes(expected)
    assert [p.name for p in pairs.parts.iterdir() if p.name.startswith(".")] == []


def raise_data_error(part: int) -> None:
    raise DataError(f"part {part} cannot be drawn")


def test_an_error_in_a_part_is_raised_unchanged_by_the_cluster(cluster: Cluster) -> None:
    with pytest.raises(DataError, match="part 7 cannot be drawn"):
        engine.run(raise_data_error, [7], EngineConfig("cluster", address=cluster.address))


def test_an_unreachable_scheduler_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CONNECT_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    with pytest.raises(
        EngineError, match=f"engine.address={address}: no Dask scheduler answers at this address"
    ):
        engine.run(str, [1], EngineConfig("cluster", address=address))
