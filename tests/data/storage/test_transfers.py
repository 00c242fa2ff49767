"""Threads that move bytes: results in order, and one failure ends them all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from reranker.data.storage.transfers import on_disk, transfers
from reranker.errors import StorageError


def test_results_keep_the_order_of_the_items() -> None:
    done = [threading.Event() for _ in range(4)]

    def work(i: int) -> int:
        if i + 1 < len(done):
            done[i + 1].wait(5)  # the last one ends first
        done[i].set()
        return i * i

    with transfers("test", 0, 4) as threads:
        assert threads.run(work, range(4)) == [0, 1, 4, 9]


def test_the_first_failure_ends_what_runs_and_what_waits() -> None:
    running, started = threading.Event(), []

    def work(item: str) -> None:
        started.append(item)
        if item == "fails":
            running.wait(5)
            raise StorageError("the cause")
        running.set()
        while True:  # until the tick says that another transfer failed
            threads.tick(1)

    with transfers("test", 0, 2) as threads, pytest.raises(StorageError, match="the cause"):
        threads.run(work, ["fails", "runs", *["waits"] * 50])
    assert {"fails", "runs"} <= set(started)
    assert (
        len(started) <= 4
    )  # a thread that is set free may take one more before the others are cancelled


def test_a_failure_of_the_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"/missing: No such file or directory"),
        on_disk(tmp_path),
    ):
        (tmp_path / "missing").read_bytes()
    with (
        pytest.raises(StorageError, match=f"{tmp_path}: No space left on device"),
        on_disk(tmp_path),
    ):
        raise OSError(28, "No space left on device")
