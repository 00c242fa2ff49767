"""Download objects into a folder: resumable, verified by hash, and atomic for each file."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from reranker.cache import digest, digest_file
from reranker.config import StorageConfig
from reranker.data.storage import s3
from reranker.data.storage.s3 import RemoteObject
from reranker.data.storage.transfers import TransferPool, disk_errors, transfer_pool
from reranker.errors import StorageError

# Subfolder of a pulled folder that holds the lock, partial downloads, and one JSON file for each
# object without a SHA-256 with the digest of the bytes that were fetched.
STAGING = ".pull"
# Pauses between attempts are random, up to a limit that doubles from the first value to the second.
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 8.0


@dataclass(frozen=True)
class Pulled:
    """The result of a pull.

    Attributes:
        folder: Where the files are.
        moved: Names of the files that were downloaded.
        kept: Names of the files that already had the same bytes.
        checked: Name -> how the bytes were verified: "sha256" (by the object's metadata), "md5"
            (by its ETag), or "size" (the store has no hash; later pulls keep the file as long as
            the object's ETag stays the same).
        n_bytes: Total size of the files in `moved`.
    """

    folder: Path
    moved: tuple[str, ...]
    kept: tuple[str, ...]
    checked: dict[str, str]
    n_bytes: int


def pull(
    root: str, folder: Path, cfg: StorageConfig, *, names: Collection[str] | None = None
) -> Pulled:
    """Download the objects below `root` into a folder.

    Files that already have the object's bytes are not downloaded again. A partial download is
    resumed. A file gets its name only after its bytes were verified: by the SHA-256 in the
    object's metadata, which `push` writes, else by the MD5 if the ETag is one, else by size. Only
    one pull at a time runs in a folder; a second one waits.

    Args:
        root: `s3://BUCKET/PREFIX`.
        folder: Created if it does not exist.
        cfg: How to reach the store.
        names: Names of the objects to download, as in `list_objects`; None means all.

    Raises:
        StorageError: The store refuses the request; an object is missing, has a name that would
            leave the folder, or fails verification `cfg.max_attempts` times; or the folder cannot
            be written.

    Example:
        >>> pulled = pull("s3://books/raw", Path("data"), StorageConfig())  # doctest: +SKIP
    """
    with s3.Root(root, cfg) as remote:
        paths = {name: _local_path(folder, name) for name in _select(remote, names)}
        objects = fetch_metadata(remote, list(paths))
        with disk_errors(folder):
            (folder / STAGING).mkdir(parents=True, exist_ok=True)
            with FileLock(folder / STAGING / "lock"):
                checks = {o.name: _check_existing(o, folder, paths[o.name]) for o in objects}
                kept = {name: check for name, check in checks.items() if check}
                wanted = [o for o in objects if o.name not in kept]
                n_bytes = sum(o.size for o in wanted)
                with transfer_pool("pull", n_bytes, cfg.n_transfers) as pool:
                    fetched = pool.run(
                        lambda o: _fetch(remote, o, folder, path=paths[o.name], pool=pool), wanted
                    )
    moved = {o.name: check for o, check in zip(wanted, fetched, strict=True)}
    return Pulled(folder, tuple(moved), tuple(kept), {**kept, **moved}, n_bytes)


def fetch_metadata(remote: s3.Root, names: Sequence[str]) -> list[RemoteObject]:
    """Return the objects with these names and their SHA-256, by concurrent HEAD requests."""
    with transfer_pool("look", 0, remote.cfg.n_transfers) as pool:
        return pool.run(remote.head, names)


def _select(remote: s3.Root, names: Collection[str] | None) -> list[str]:
    existing = [o.name for o in remote.entries()]
    missing = sorted(set(names or ()) - set(existing))
    if missing or not existing:
        lacks = f"no object {', '.join(map(repr, missing))}" if missing else "no objects"
        found = ", ".join(map(repr, existing[:10])) or "nothing"
        more = " …" if len(existing) > 10 else ""
        raise StorageError(f"{remote.url}: {lacks}; found {found}{more}.")
    return existing if names is None else sorted(set(names))


def _local_path(folder: Path, name: str) -> Path:
    """Return the path of an object's file. The name comes from the store and is not trusted."""
    parts = name.split("/")
    ok = all(p not in ("", ".", "..") for p in parts) and parts[0] != STAGING
    if not ok or not name.isprintable() or "\\" in name:
        raise StorageError(
            f"{name!r} is not a name that may be written below {folder}. Names must not be "
            "absolute, have an empty part, '.', '..', a backslash or a control character, or start "
            f"with {STAGING}/. Rename the object, or pull the others by name."
        )
    path = folder.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise StorageError(
            f"{path} leaves {folder} through a link. Remove the link, or pull into another folder."
        )
    return path


def _check_existing(wanted: RemoteObject, folder: Path, path: Path) -> str | None:
    """Return how an existing file was verified, or None if it must be downloaded."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return None
    note = folder / STAGING / f"{_staging_name(wanted)}.json"
    if wanted.sha256 is None and note.exists():
        known = json.loads(note.read_text())
        return known["checked"] if known["sha256"] == digest_file(path) else None
    check = _verify(wanted, path)
    return None if check == "size" else check


def _verify(wanted: RemoteObject, path: Path) -> str | None:
    """Return how a file's bytes match the object's, or None if they do not."""
    if path.stat().st_size != wanted.size:
        return None
    if wanted.sha256 is not None:
        return "sha256" if digest_file(path) == wanted.sha256 else None
    if wanted.md5 is None:
        return "size"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return "md5" if found.hexdigest() == wanted.md5 else None


def _staging_name(wanted: RemoteObject) -> str:
    """Return a name for this version of an object.

    It contains the ETag, so a partial download of an older version is never resumed.
    """
    return f"{digest(wanted.name)[:16]}-{digest(wanted.etag)[:16]}"


def _fetch(
    remote: s3.Root, wanted: RemoteObject, folder: Path, *, path: Path, pool: TransferPool
) -> str:
    """Download one object to `path` and return how its bytes were verified."""
    part = folder / STAGING / f"{_staging_name(wanted)}.part"
    for old in part.parent.glob(f"{digest(wanted.name)[:16]}-*"):
        # Without a SHA-256 a corrupt partial download would not be detected, so it is not resumed.
        if old != part or wanted.sha256 is None:
            old.unlink()
    pool.tick(part.stat().st_size if part.exists() else 0)
    check = _download(remote, wanted, part, pool=pool)
    if wanted.sha256 is None:
        note = part.with_suffix(".json.new")
        note.write_text(json.dumps({"sha256": digest_file(part), "checked": check}))
        os.replace(note, part.with_suffix(".json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, path)
    return check


def _download(remote: s3.Root, wanted: RemoteObject, part: Path, *, pool: TransferPool) -> str:
    """Write the object's bytes to `part`, with retries; return how they were verified."""
    for attempt in range(1, remote.cfg.max_attempts + 1):
        try:
            return _download_once(remote, wanted, part, pool=pool)
        except s3.DownloadInterrupted as error:
            reason = error
            if attempt < remote.cfg.max_attempts:
                time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)))
    raise StorageError(
        f"{remote.url}{wanted.name}: {reason}, at the last of {remote.cfg.max_attempts} attempts. "
        "Try again; if the error persists, push the file again."
    ) from reason


def _download_once(remote: s3.Root, wanted: RemoteObject, part: Path, *, pool: TransferPool) -> str:
    with part.open("ab") as file:
        try:
            if file.tell() < wanted.size:
                remote.read(wanted, file, pool.tick)
        except s3.DownloadInterrupted as error:
            raise s3.DownloadInterrupted(
                f"the download stopped at byte {file.tell()} of {wanted.size} ({error})"
            ) from error
        finally:
            file.flush()
            os.fsync(file.fileno())
    if check := _verify(wanted, part):
        return check
    size = part.stat().st_size
    if size < wanted.size:
        raise s3.DownloadInterrupted(f"the download stopped at byte {size} of {wanted.size}")
    part.unlink()
    pool.tick(-size)
    expected = "SHA-256" if wanted.sha256 else "MD5 or size"
    raise s3.DownloadInterrupted(f"the bytes received do not have the object's {expected}")
