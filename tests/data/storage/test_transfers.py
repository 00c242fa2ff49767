"""The transfer pool returns results in order and stops all transfers after the first failure."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reranker.data.storage.transfers import disk_errors, transfer_pool
from reranker.errors import StorageError


def test_results_keep_the_order_of_the_items() -> None:
    done = [threading.Event() for _ in range(4)]

    def work(i: int) -> int:
        if i + 1 < len(done):
            done[i + 1].wait(5)  # the last item ends first
        done[i].set()
        return i * i

    with transfer_pool("test", 0, 4) as pool:
        assert pool.run(work, range(4)) == [0, 1, 4, 9]


def test_the_first_failure_stops_running_and_waiting_items() -> None:
    running, started = threading.Event(), []

    def work(item: str) -> None:
        started.append(item)
        if item == "fails":
            running.wait(5)
            raise StorageError("the cause")
        running.set()
        while True:  # until the tick raises because another transfer failed
            pool.tick(1)

    with transfer_pool("test", 0, 2) as pool, pytest.raises(StorageError, match="the cause"):
        pool.run(work, ["fails", "runs", *["waits"] * 50])
    assert {"fails", "runs"} <= set(started)
    # A free thread may start one more item before the others are cancelled.
    assert len(started) <= 4


def test_a_disk_error_names_the_file(tmp_path: Path) -> None:
    missing = "/missing: No such file or directory"
    with pytest.raises(StorageError, match=missing), disk_errors(tmp_path):
        (tmp_path / "missing").read_bytes()
    full = f"{tmp_path}: No space left on device"
    with pytest.raises(StorageError, match=full), disk_errors(tmp_path):
        raise OSError(28, "No space left on device")
