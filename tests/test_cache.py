"""The cache gives the same bytes for the same key, builds once, and holds nothing half-written."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from reranker.cache import Cache, digest
from reranker.config import SamplingConfig
from reranker.errors import DataError


def test_a_key_is_built_once_and_then_read(cache: Cache) -> None:
    built = []

    def build(folder: Path) -> dict[str, object]:
        built.append(1)
        (folder / "a.txt").write_text("seven")
        return {"rows": 7}

    first = cache.fetch("stage", {"k": 1}, build)
    second = cache.fetch("stage", {"k": 1}, build)
    assert (first.hit, second.hit, len(built)) == (False, True, 1)
    assert first.digest == second.digest
    assert second.info == {"rows": 7}
    assert cache.fetch("stage", {"k": 2}, build).path != first.path


def test_rebuild_replaces_what_is_there(cache: Cache) -> None:
    texts = iter(["old", "new"])

    def build(folder: Path) -> dict[str, object]:
        (folder / "a.txt").write_text(next(texts))
        return {}

    cache.fetch("stage", 1, build)
    entry = cache.fetch("stage", 1, build, rebuild=True)
    assert (entry.path / "a.txt").read_text() == "new"
    assert not entry.hit


def test_a_failed_build_leaves_nothing(cache: Cache) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / "half.txt").write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        cache.fetch("stage", 1, build)
    assert [p for p in cache.root.rglob("*") if p.is_file() and p.suffix != ".lock"] == []


def test_a_failed_rebuild_keeps_the_old_entry(cache: Cache) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / "a.txt").write_text("whole")
        return {}

    def fail(folder: Path) -> dict[str, object]:
        raise OSError("no space")

    path = cache.fetch("stage", 1, build).path
    with pytest.raises(OSError, match="no space"):
        cache.fetch("stage", 1, fail, rebuild=True)
    assert (path / "a.txt").read_text() == "whole"
    assert cache.fetch("stage", 1, fail).hit


def test_what_a_killed_build_left_is_swept_away(cache: Cache) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / "a.txt").write_text("x")
        return {}

    name = digest(1)[:16]
    stale = cache.root / "stage" / f".{name}.tmp-killed"
    stale.mkdir(parents=True)
    cache.fetch("stage", 1, build)
    assert not stale.exists()


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_entry_is_an_error_not_a_result(cache: Cache, damage: str) -> None:
    def build(folder: Path) -> dict[str, object]:
        (folder / "a.bin").write_bytes(b"12345678")
        return {}

    file = cache.fetch("stage", 1, build).path / "a.bin"
    if damage == "remove":
        file.unlink()
    else:
        file.write_bytes(b"1234" if damage == "truncate" else b"12345679")
    with pytest.raises(DataError, match="Remove the folder"):
        cache.fetch("stage", 1, build)


def test_two_that_ask_for_one_key_build_it_once(cache: Cache) -> None:
    built: list[int] = []

    def build(folder: Path) -> dict[str, object]:
        built.append(1)
        time.sleep(0.2)
        (folder / "a.txt").write_text("x")
        return {}

    threads = [threading.Thread(target=cache.fetch, args=("stage", 1, build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 1


def test_digest_follows_values_not_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(SamplingConfig()) != digest(SamplingConfig(neg_ratio=5))
    with pytest.raises(TypeError, match="plain values"):
        digest({"path": Path("x")})
