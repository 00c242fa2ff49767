"""The cache builds each key once, and failures never leave incomplete entries."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from reranker import cache as cache_module
from reranker.cache import MANIFEST, Cache, digest
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


def test_rebuild_replaces_the_entry(cache: Cache) -> None:
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


class Killed(BaseException):
    """A process that is killed: no handler catches it, and every later step fails."""


@contextmanager
def failing(n: int, error: type[BaseException], *, permanent: bool) -> Iterator[list[str]]:
    """Make the n-th call that renames or removes fail, and all later ones if `permanent`.

    A removal fails after it has removed one file. The calls are listed.
    """
    calls: list[str] = []
    replace, rmtree = os.replace, shutil.rmtree

    def fails(name: str) -> bool:
        calls.append(name)
        return len(calls) == n or (permanent and len(calls) > n)

    def failing_replace(*args: Any) -> None:
        if fails("replace"):
            raise error("replace")
        replace(*args)

    def failing_rmtree(path: Path, ignore_errors: bool = False) -> None:
        if not fails("rmtree"):
            return rmtree(path)
        if not permanent or len(calls) == n:
            next(f for f in sorted(path.rglob("*")) if f.is_file()).unlink()
        if not (ignore_errors and issubclass(error, Exception)):
            raise error("rmtree")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", failing_replace)
        patch.setattr(shutil, "rmtree", failing_rmtree)
        yield calls


def writes(text: str) -> Callable[[Path], dict[str, object]]:
    """Return a builder of two files with the same text, so that a mix of builds is visible."""

    def build(folder: Path) -> dict[str, object]:
        (folder / "a.txt").write_text(text)
        (folder / "b.txt").write_text(text)
        return {"text": text}

    return build


def never(folder: Path) -> dict[str, object]:
    raise AssertionError("built although the entry exists")


@pytest.mark.parametrize(
    ("error", "permanent"), [(OSError, False), (OSError, True), (Killed, True)]
)
def test_a_rebuild_that_fails_at_any_step_leaves_the_old_or_the_new_entry(
    cache: Cache, error: type[BaseException], permanent: bool
) -> None:
    seen = set()
    for n in range(1, 50):
        cache.fetch("stage", n, writes("old"))
        with failing(n, error, permanent=permanent) as calls, suppress(error):
            cache.fetch("stage", n, writes("new"), rebuild=True)
        entry = cache.fetch("stage", n, never)
        texts = {(entry.path / name).read_text() for name in ("a.txt", "b.txt")}
        texts.add(str(entry.info["text"]))
        assert texts in ({"old"}, {"new"})
        seen |= texts
        assert [p.name for p in entry.path.parent.glob(".*") if p.suffix != ".lock"] == []
        if len(calls) < n:
            break
    assert seen == {"old", "new"}
    assert 4 <= n < 49  # the rebuild renames twice; the old entry is renamed and removed


@pytest.mark.parametrize("error", [OSError, Killed])
def test_a_first_build_that_fails_at_any_step_leaves_no_entry_or_a_complete_one(
    cache: Cache, error: type[BaseException]
) -> None:
    for n in (1, 2):
        with failing(n, error, permanent=True) as calls, suppress(error):
            cache.fetch("stage", n, writes("first"))
        entry = cache.fetch("stage", n, writes("second"))
        texts = {(entry.path / name).read_text() for name in ("a.txt", "b.txt")}
        assert texts == {entry.info["text"]}
        assert [p.name for p in entry.path.parent.glob(".*") if p.suffix != ".lock"] == []
        assert entry.hit == (len(calls) < n)


def test_a_rebuild_with_equal_content_keeps_the_files(cache: Cache) -> None:
    path = cache.fetch("stage", 1, writes("same")).path
    before = (path / "a.txt").stat().st_ino
    entry = cache.fetch("stage", 1, writes("same"), rebuild=True)
    assert ((path / "a.txt").stat().st_ino, entry.hit) == (before, False)
    assert [p.name for p in path.parent.glob(".*") if p.suffix != ".lock"] == []


def test_a_rebuild_replaces_a_damaged_entry(cache: Cache) -> None:
    path = cache.fetch("stage", 1, writes("same")).path
    (path / "b.txt").write_text("else")
    cache.fetch("stage", 1, writes("same"), rebuild=True)
    assert (path / "b.txt").read_text() == "same"
    (path / MANIFEST).unlink()
    cache.fetch("stage", 1, writes("same"), rebuild=True)
    assert cache.fetch("stage", 1, never).hit


def test_temporary_folders_of_interrupted_builds_are_removed(cache: Cache) -> None:
    path = cache.fetch("stage", 1, writes("x")).path
    for state in ("tmp", "old"):
        (path.parent / f".{path.name}.{state}-killed").mkdir()
    assert cache.fetch("stage", 1, never).hit
    assert [p.name for p in path.parent.glob(".*") if p.suffix != ".lock"] == []


@pytest.mark.parametrize("text", [None, "", "{", "[]", "{}"])
def test_an_invalid_manifest_is_an_error_with_a_remedy(cache: Cache, text: str | None) -> None:
    path = cache.fetch("stage", 1, writes("x")).path
    (path / MANIFEST).unlink() if text is None else (path / MANIFEST).write_text(text)
    message = rf"{MANIFEST}: expected .* Remove the folder {path} and run again"
    with pytest.raises(DataError, match=message):
        cache.fetch("stage", 1, never)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_a_damaged_entry_is_an_error(cache: Cache, damage: str) -> None:
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


def test_concurrent_calls_build_a_key_once(cache: Cache) -> None:
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


def test_a_long_wait_for_another_process_prints_one_line(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cache_module, "PATIENCE_S", 0.05)
    started, end = threading.Event(), threading.Event()

    def slow(folder: Path) -> dict[str, object]:
        started.set()
        end.wait(10)
        return writes("slow")(folder)

    first = threading.Thread(target=cache.fetch, args=("stage", 1, slow))
    first.start()
    started.wait(10)
    threading.Timer(0.4, end.set).start()
    entry = cache.fetch("stage", 1, never)
    first.join()
    assert entry.hit
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"waiting for {entry.path}, which another run is building")
    cache.fetch("stage", 1, never)
    assert capsys.readouterr().err == ""


def test_digest_depends_on_values_but_not_on_their_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(SamplingConfig()) != digest(SamplingConfig(neg_ratio=5))
    with pytest.raises(TypeError, match="plain values"):
        digest({"path": Path("x")})
