"""Content-addressed folders: the same key gives the same bytes, built once, whole or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from reranker.errors import DataError

MANIFEST = "manifest.json"
PATIENCE_S = 10.0  # another process builds what we ask for, which may take an hour: waited for, but not without a word
# Of every parquet file here: the texts of goodbooks-10k take 440 kB so, 649 kB with snappy, the default.
COMPRESSION: Literal["zstd"] = "zstd"


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """SHA-256 of a value's canonical JSON (dataclasses as dicts, keys sorted), as 64 hex digits."""
    text = json.dumps(value, sort_keys=True, default=_plain, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"a cache key holds plain values, got {type(value).__name__}")


@dataclass(frozen=True)
class Entry:
    """A folder of the cache: its path, the digest of its contents, and whether it was there already."""

    path: Path
    digest: str
    hit: bool
    info: dict[str, object]  # what the builder returned


class Cache:
    """Folders under `root/<stage>/<key>`, each with a manifest (file sizes and SHA-256) that is written last."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def fetch(
        self,
        stage: str,
        key: object,
        build: Callable[[Path], dict[str, object]],
        *,
        rebuild: bool = False,
    ) -> Entry:
        """The folder for `key`, built by `build(folder)` when it is not there.

        Two processes that ask for one key build it once: the second waits, and says so on stderr after a while. A
        build that fails or is killed leaves what was there before: nothing, or the old entry. An entry whose files do
        not match its manifest is an error, not a silent rebuild.

        Args:
            stage: The room that owns the entry; a folder name.
            key: All that decides the content, as plain values or dataclasses.
            build: Writes files into an empty folder and returns plain facts to keep in the manifest.
            rebuild: Build again, and replace what is there where that is damaged or another; equal content stays, so
                that whoever reads it reads on.

        Raises:
            DataError: A cached file is missing or has other bytes than its manifest says, or there is no manifest.
        """
        name = digest(key)[:16]
        path = self.root / stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            _mend(path)
            hit = path.exists() and not rebuild
            if not hit:
                _build(path, key, build)
            return _read(path, hit)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """The lock of one entry, for as long as the block lasts."""
    lock = FileLock(path.parent / f".{path.name}.lock")
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        print(
            f"waiting for {path}, which another run builds now (it holds {lock.lock_file})",
            file=sys.stderr,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _mend(path: Path) -> None:
    """What a killed build or rebuild left beside `path` goes, and a whole entry that it had moved aside comes back."""
    for aside in path.parent.glob(f".{path.name}.old-*"):
        if path.exists():
            os.replace(aside, _beside(path, "tmp"))  # no longer named as whole before its files go
        else:
            os.replace(aside, path)
    for stale in path.parent.glob(f".{path.name}.tmp-*"):
        shutil.rmtree(
            stale, ignore_errors=True
        )  # what cannot go now is tried again with the next look


def _beside(path: Path, state: str) -> Path:
    return path.parent / f".{path.name}.{state}-{uuid.uuid4().hex}"


def _build(path: Path, key: object, build: Callable[[Path], dict[str, object]]) -> None:
    temp = _beside(path, "tmp")
    temp.mkdir()
    try:
        info = build(temp)
        files = {
            f.relative_to(temp).as_posix(): {"bytes": f.stat().st_size, "sha256": digest_file(f)}
            for f in sorted(temp.rglob("*"))
            if f.is_file()
        }
        manifest = {"key": key, "files": files, "info": info, "digest": digest(files)}
        text = json.dumps(manifest, indent=1, default=_plain)
        (temp / MANIFEST).write_text(text)
        if not _holds(path, json.loads(text)):
            if path.exists():
                os.replace(path, _beside(path, "old"))
            os.replace(temp, path)
    finally:
        _mend(path)


def _holds(path: Path, manifest: dict[str, Any]) -> bool:
    """Whether a whole entry at `path` is what the manifest of a new one says."""
    try:
        old = _read(path, hit=True) if path.exists() else None
    except DataError:
        return False
    return old is not None and (old.digest, old.info) == (manifest["digest"], manifest["info"])


def _read(path: Path, hit: bool) -> Entry:
    remedy = f"Remove the folder {path} and run again."
    manifest = _manifest(path / MANIFEST, remedy)
    for name, facts in (
        manifest["files"].items() if hit else ()
    ):  # what was built now was hashed now
        file = path / name
        if (
            not file.exists()
            or file.stat().st_size != facts["bytes"]
            or digest_file(file) != facts["sha256"]
        ):
            raise DataError(f"{file}: not the bytes that {MANIFEST} names. {remedy}")
    return Entry(path, manifest["digest"], hit, manifest["info"])


def _manifest(file: Path, remedy: str) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: expected the manifest of a cached folder, found none ({error}). {remedy}"
        ) from error
    if not isinstance(manifest, dict) or not {"files", "digest", "info"} <= manifest.keys():
        raise DataError(f"{file}: expected files, digest and info of a cached folder. {remedy}")
    return manifest
