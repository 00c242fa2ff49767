"""Content-addressed folders: the same key gives the same bytes, built once, whole or absent."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock

from reranker.errors import DataError

MANIFEST = "manifest.json"
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
        self, stage: str, key: object, build: Callable[[Path], dict[str, object]], *, rebuild: bool = False
    ) -> Entry:
        """The folder for `key`, built by `build(folder)` when it is not there.

        Two processes that ask for one key build it once: the second waits. A build that fails leaves nothing. An
        entry whose files do not match its manifest is an error, not a silent rebuild.

        Args:
            stage: The room that owns the entry; a folder name.
            key: All that decides the content, as plain values or dataclasses.
            build: Writes files into an empty folder and returns plain facts to keep in the manifest.
            rebuild: Build again and replace what is there.

        Raises:
            DataError: A cached file is missing or has other bytes than its manifest says.
        """
        name = digest(key)[:16]
        path = self.root / stage / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.parent / f".{name}.lock"):
            hit = path.exists() and not rebuild
            if not hit:
                self._build(path, key, build)
            return _read(path, hit)

    def _build(self, path: Path, key: object, build: Callable[[Path], dict[str, object]]) -> None:
        for stale in path.parent.glob(f".{path.name}.tmp-*"):  # left by a killed build; the lock is ours
            shutil.rmtree(stale)
        temp = path.parent / f".{path.name}.tmp-{uuid.uuid4().hex}"
        temp.mkdir()
        try:
            info = build(temp)
            files = {
                f.relative_to(temp).as_posix(): {"bytes": f.stat().st_size, "sha256": digest_file(f)}
                for f in sorted(temp.rglob("*"))
                if f.is_file()
            }
            manifest = {"key": key, "files": files, "info": info, "digest": digest(files)}
            (temp / MANIFEST).write_text(json.dumps(manifest, indent=1, default=_plain))
            if path.exists():
                shutil.rmtree(path)
            os.replace(temp, path)
        finally:
            shutil.rmtree(temp, ignore_errors=True)


def _read(path: Path, hit: bool) -> Entry:
    manifest = json.loads((path / MANIFEST).read_text())
    for name, facts in manifest["files"].items():
        file = path / name
        if not file.exists() or file.stat().st_size != facts["bytes"] or digest_file(file) != facts["sha256"]:
            raise DataError(f"{file}: not the bytes that {MANIFEST} names. Remove the folder {path} and run again.")
    return Entry(path, manifest["digest"], hit, manifest["info"])
