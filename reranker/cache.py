"""Cache folders by the hash of their key; each is built once and appears atomically."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from reranker.errors import DataError

MANIFEST = "manifest.json"
LEFT_OUT_AT_DEFAULT = "left out at its default"  # metadata of a dataclass field
# A build may take an hour. A process that waits longer than this for another one prints a line.
PATIENCE_S = 10.0
# For all parquet files: the texts of goodbooks-10k take 440 kB; with snappy, the default, 649 kB.
COMPRESSION: Literal["zstd"] = "zstd"


def digest_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON as 64 hex digits.

    Dataclasses are written as dicts, and keys are sorted. A field with the metadata
    `LEFT_OUT_AT_DEFAULT` is written only if its value is not its default: a key that was added to
    the configuration does not change the digests of earlier configurations.
    """
    text = json.dumps(value, sort_keys=True, default=_plain, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            f.name: own
            for f in dataclasses.fields(value)
            if _is_written(f, own := getattr(value, f.name))
        }
    raise TypeError(f"a cache key may contain plain values only, got {type(value).__name__}")


def _is_written(field: dataclasses.Field[Any], value: object) -> bool:
    return not field.metadata.get(LEFT_OUT_AT_DEFAULT) or value != field.default


@dataclass(frozen=True)
class Entry:
    """A folder of the cache.

    Attributes:
        digest: SHA-256 of its files' names, sizes and contents.
        hit: True if it existed before `Cache.fetch` was called.
        info: The return value of the function that built it.
    """

    path: Path
    digest: str
    hit: bool
    info: dict[str, object]


class Cache:
    """Folders `root/<stage>/<hash of the key>`.

    Each has a manifest with the sizes and SHA-256 of its files. The manifest is written last.

    Example:
        entry = Cache("outputs/cache").fetch("tables", cfg, build)
        frame = pd.read_parquet(entry.path / "books.parquet")
    """

    def __init__(self, root: str | Path, required: Mapping[str, str] | None = None) -> None:
        """Open a cache; the folder is created by the first build.

        Args:
            required: Stages whose entries must exist already -> what to do where one does not.
        """
        self.root, self.required = Path(root), required or {}

    def fetch(
        self,
        stage: str,
        key: object,
        build: Callable[[Path], dict[str, object]],
        *,
        rebuild: bool = False,
    ) -> Entry:
        """Return the folder for `key`; `build(folder)` makes it if it does not exist.

        If two processes need the same key, one builds it and the other waits, and prints a line on
        stderr after PATIENCE_S. A build that fails or is killed leaves the former state: no entry,
        or the old one. An entry whose files do not match its manifest is an error; it is never
        rebuilt without notice.

        Args:
            stage: The name of the folder for all entries of this kind.
            key: Everything that determines the content, as plain values or dataclasses.
            build: Writes files into an empty folder and returns plain values for the manifest.
            rebuild: Build again. The new entry replaces a damaged or different one. An equal entry
                stays, so that processes which read it are not disturbed.

        Raises:
            DataError: A cached file is missing or differs from the manifest, the manifest is
                missing, or the entry does not exist and is one of `required`.
        """
        name = digest(key)[:16]
        path = self.root / stage / name
        if stage in self.required and not path.exists():
            raise DataError(f"{path}: not in the cache. {self.required[stage]}")
        path.parent.mkdir(parents=True, exist_ok=True)
        with _lock(path):
            _clean_up(path)
            hit = path.exists() and not rebuild
            if not hit:
                _build(path, key, build)
            return _read(path, hit)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold the file lock of one entry."""
    lock = FileLock(path.parent / f".{path.name}.lock")
    try:
        lock.acquire(timeout=PATIENCE_S)
    except Timeout:
        print(
            f"waiting for {path}, which another run is building (it holds {lock.lock_file})",
            file=sys.stderr,
        )
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _clean_up(path: Path) -> None:
    """Remove temporary folders of interrupted builds; restore an entry that was being replaced."""
    for old in path.parent.glob(f".{path.name}.old-*"):
        if path.exists():
            # Renamed first: a removal that is interrupted must not leave half an old entry.
            os.replace(old, _sibling(path, "tmp"))
        else:
            os.replace(old, path)
    for stale in path.parent.glob(f".{path.name}.tmp-*"):
        # A folder that cannot be removed now is removed by a later call.
        shutil.rmtree(stale, ignore_errors=True)


def _sibling(path: Path, state: str) -> Path:
    """Return a new hidden path in the same folder; `state` is tmp or old."""
    return path.parent / f".{path.name}.{state}-{uuid.uuid4().hex}"


def _build(path: Path, key: object, build: Callable[[Path], dict[str, object]]) -> None:
    temp = _sibling(path, "tmp")
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
        if not _is_equal(path, json.loads(text)):
            if path.exists():
                os.replace(path, _sibling(path, "old"))
            os.replace(temp, path)
    finally:
        _clean_up(path)


def _is_equal(path: Path, manifest: dict[str, Any]) -> bool:
    """Return whether an undamaged entry at `path` has the content of this manifest."""
    try:
        old = _read(path, hit=True) if path.exists() else None
    except DataError:
        return False
    return old is not None and (old.digest, old.info) == (manifest["digest"], manifest["info"])


def _read(path: Path, hit: bool) -> Entry:
    remedy = f"Remove the folder {path} and run again."
    manifest = _read_manifest(path / MANIFEST, remedy)
    # The files of a new entry were hashed when the manifest was written.
    for name, expected in manifest["files"].items() if hit else ():
        if not _matches(path / name, expected):
            raise DataError(f"{path / name}: the file differs from {MANIFEST}. {remedy}")
    return Entry(path, manifest["digest"], hit, manifest["info"])


def _matches(file: Path, expected: dict[str, Any]) -> bool:
    if not file.exists() or file.stat().st_size != expected["bytes"]:
        return False
    return digest_file(file) == expected["sha256"]


def _read_manifest(file: Path, remedy: str) -> dict[str, Any]:
    try:
        manifest = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file}: expected the manifest of a cached folder, found none ({error}). {remedy}"
        ) from error
    if not isinstance(manifest, dict) or not {"files", "digest", "info"} <= manifest.keys():
        raise DataError(f"{file}: expected files, digest and info of a cached folder. {remedy}")
    return manifest
