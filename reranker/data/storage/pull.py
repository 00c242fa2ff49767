"""Objects into a folder: resumed where they broke off, proven, whole or absent."""

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
from reranker.data.storage.transfers import Transfers, on_disk, transfers
from reranker.errors import StorageError

STAGING = ".pull"  # below a pulled folder: the lock, half downloads, and what is known of objects without a SHA-256
FIRST_PAUSE_S, LONGEST_PAUSE_S = (
    0.25,
    8.0,
)  # between attempts: a random share of a pause that doubles


@dataclass(frozen=True)
class Pulled:
    """What a pull did.

    Attributes:
        folder: Where the files are.
        moved: Names of the files that were fetched.
        kept: Names of the files that were there already with the same bytes.
        checked: Name -> how its bytes were proven: "sha256" (the object's own metadata), "md5" (its ETag), or "size"
            (the store knows no more; a later pull keeps the file while the object's ETag stays).
        n_bytes: Of the files in `moved`.
    """

    folder: Path
    moved: tuple[str, ...]
    kept: tuple[str, ...]
    checked: dict[str, str]
    n_bytes: int


def pull(
    root: str, folder: Path, cfg: StorageConfig, names: Collection[str] | None = None
) -> Pulled:
    """Fetch the objects below `root` into a folder, each whole or not at all.

    A file that is there with the object's bytes is not fetched again, and a half download goes on where it broke off.
    Bytes are proven before a file takes its name: by the SHA-256 of the object's metadata, as `push` writes it, else
    by its MD5 where the ETag is one, else by size alone. One pull at a time works in a folder; a second one waits.

    Args:
        names: The objects to fetch, as `list_objects` names them; None takes all.

    Raises:
        StorageError: The store refuses; an object is missing, has a name that would leave the folder, or came wrong
            `cfg.max_attempts` times; or the folder cannot be written.
    """
    with s3.Root(root, cfg) as remote:
        paths = {name: _inside(folder, name) for name in _choose(remote, names)}
        objects = heads(remote, list(paths))
        with on_disk(folder):
            (folder / STAGING).mkdir(parents=True, exist_ok=True)
            with FileLock(folder / STAGING / "lock"):
                held = {o.name: how for o in objects if (how := _held(o, folder, paths[o.name]))}
                wanted = [o for o in objects if o.name not in held]
                n_bytes = sum(o.size for o in wanted)
                with transfers("pull", n_bytes, cfg.n_transfers) as threads:
                    proofs = threads.run(
                        lambda o: _fetch(remote, o, folder, paths[o.name], threads), wanted
                    )
    moved = {o.name: how for o, how in zip(wanted, proofs, strict=True)}
    return Pulled(folder, tuple(moved), tuple(held), {**held, **moved}, n_bytes)


def heads(remote: s3.Root, names: Sequence[str]) -> list[RemoteObject]:
    """The objects of these names with the SHA-256 of their metadata, several asked for at once."""
    with transfers("look", 0, remote.cfg.n_transfers) as threads:
        return threads.run(remote.head, names)


def _choose(remote: s3.Root, names: Collection[str] | None) -> list[str]:
    there = [o.name for o in remote.entries()]
    missing = sorted(set(names or ()) - set(there))
    if missing or not there:
        lacks = f"no object {', '.join(map(repr, missing))}" if missing else "no objects"
        found = ", ".join(map(repr, there[:10])) or "nothing"
        raise StorageError(
            f"{remote.url}: {lacks}; found {found}{' …' if len(there) > 10 else ''}."
        )
    return there if names is None else sorted(set(names))


def _inside(folder: Path, name: str) -> Path:
    """The path of an object's file; the name comes from the store and is not to be trusted."""
    parts = name.split("/")
    ok = all(p not in ("", ".", "..") for p in parts) and parts[0] != STAGING
    if not ok or not name.isprintable() or "\\" in name:
        raise StorageError(
            f"{name!r} is not a name that may be written below {folder}: no absolute path, no empty part, '.', '..', "
            f"backslash or control character, and nothing below {STAGING}. Rename the object, or pull others by name."
        )
    path = folder.joinpath(*parts)
    if not path.parent.resolve().is_relative_to(folder.resolve()):
        raise StorageError(
            f"{path} leaves {folder} through a link. Remove the link, or pull into another folder."
        )
    return path


def _held(wanted: RemoteObject, folder: Path, path: Path) -> str | None:
    """How a file that is there is known to have the object's bytes; None where it is to be fetched."""
    if not path.is_file() or path.stat().st_size != wanted.size:
        return None
    note = folder / STAGING / f"{_mark(wanted)}.json"
    if wanted.sha256 is None and note.exists():
        known = json.loads(note.read_text())
        return known["checked"] if known["sha256"] == digest_file(path) else None
    how = _proof(wanted, path)
    return None if how == "size" else how


def _proof(wanted: RemoteObject, path: Path) -> str | None:
    """How a file's bytes are proven to be the object's; None where they are not."""
    if path.stat().st_size != wanted.size:
        return None
    if wanted.sha256 is not None:
        return "sha256" if digest_file(path) == wanted.sha256 else None
    if wanted.md5 is None:
        return "size"
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    return "md5" if found.hexdigest() == wanted.md5 else None


def _mark(wanted: RemoteObject) -> str:
    """One name for an object and its present bytes, so that a half download of older bytes is never continued."""
    return f"{digest(wanted.name)[:16]}-{digest(wanted.etag)[:16]}"


def _fetch(
    remote: s3.Root, wanted: RemoteObject, folder: Path, path: Path, threads: Transfers
) -> str:
    part = folder / STAGING / f"{_mark(wanted)}.part"
    for old in part.parent.glob(f"{digest(wanted.name)[:16]}-*"):
        if (
            old != part or wanted.sha256 is None
        ):  # without a SHA-256 nothing would tell that a half file is wrong
            old.unlink()
    threads.tick(part.stat().st_size if part.exists() else 0)
    how = _download(remote, wanted, part, threads)
    if wanted.sha256 is None:
        note = part.with_suffix(".json.new")
        note.write_text(json.dumps({"sha256": digest_file(part), "checked": how}))
        os.replace(note, part.with_suffix(".json"))
    path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(part, path)
    return how


def _download(remote: s3.Root, wanted: RemoteObject, part: Path, threads: Transfers) -> str:
    """Bring the object's bytes into `part`, and say how they were proven."""
    for attempt in range(1, remote.cfg.max_attempts + 1):
        try:
            return _attempt(remote, wanted, part, threads)
        except s3.BrokenOff as error:
            broken = error
            if attempt < remote.cfg.max_attempts:
                time.sleep(random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt)))
    raise StorageError(
        f"{remote.url}{wanted.name}: {broken}, at the last of {remote.cfg.max_attempts} attempts. Try again; if it "
        "stays, push the file anew."
    ) from broken


def _attempt(remote: s3.Root, wanted: RemoteObject, part: Path, threads: Transfers) -> str:
    with part.open("ab") as file:
        try:
            if file.tell() < wanted.size:
                remote.read(wanted, file, threads.tick)
        except s3.BrokenOff as error:
            raise s3.BrokenOff(
                f"the download broke off at byte {file.tell()} of {wanted.size} ({error})"
            ) from error
        finally:
            file.flush()
            os.fsync(file.fileno())
    if how := _proof(wanted, part):
        return how
    size = part.stat().st_size
    if size < wanted.size:
        raise s3.BrokenOff(f"the download broke off at byte {size} of {wanted.size}")
    part.unlink()
    threads.tick(-size)
    raise s3.BrokenOff(
        f"the bytes that came do not have the object's {'SHA-256' if wanted.sha256 else 'MD5 or size'}"
    )
