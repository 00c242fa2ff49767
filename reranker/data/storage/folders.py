"""Folders to and from object storage: what is there, push, pull, and the local copy that a run reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from reranker.cache import MANIFEST, digest, digest_file
from reranker.config import DataConfig, StorageConfig, check_storage
from reranker.data.storage import s3
from reranker.data.storage.pull import STAGING, Pulled, heads, pull
from reranker.data.storage.s3 import RemoteObject
from reranker.data.storage.transfers import Transfers, on_disk, transfers
from reranker.errors import StorageError

__all__ = [
    "Pulled",
    "Pushed",
    "RemoteObject",
    "is_remote",
    "list_objects",
    "local_root",
    "pull",
    "push",
]


@dataclass(frozen=True)
class Pushed:
    """What a push did: names of the files sent (`n_bytes` in all) and of those that were there already."""

    url: str
    moved: tuple[str, ...]
    kept: tuple[str, ...]
    n_bytes: int


def is_remote(root: str) -> bool:
    """Whether a root is `s3://…` rather than a local folder."""
    return root.startswith("s3://")


def list_objects(root: str, cfg: StorageConfig) -> list[RemoteObject]:
    """The objects below an `s3://` root, or the files below a local folder (without hashes), ascending by name.

    Raises:
        StorageError: The store cannot be reached or refuses, or there is no such folder.
    """
    if is_remote(root):
        with s3.Root(root, cfg) as remote:
            return heads(remote, [o.name for o in remote.entries()])
    check_storage(root, cfg)
    stats = {name: path.stat() for name, path in _local_files(Path(root)).items()}
    return [
        RemoteObject(name, s.st_size, datetime.fromtimestamp(s.st_mtime, UTC))
        for name, s in stats.items()
    ]


def push(source: Path | Sequence[Path], root: str, cfg: StorageConfig) -> Pushed:
    """Send a folder (names below it), a file, or several files to `root`, each with its SHA-256 as metadata.

    What is there with the same SHA-256 is not sent again. A manifest goes last: where it is, all that it names is.

    Raises:
        StorageError: The store refuses, there is nothing to send, two files have one name, or a file changed
            meanwhile.
    """
    files = _named(source)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    last = [name for name in files if name.rsplit("/", 1)[-1] == MANIFEST]
    with s3.Root(root, cfg) as remote:
        there = {
            o.name: o for o in heads(remote, [o.name for o in remote.entries() if o.name in files])
        }
        with transfers("push", sum(sizes.values()), cfg.n_transfers) as threads:
            moved: set[str] = set()
            for batch in ([name for name in files if name not in last], last):
                sent = threads.run(
                    lambda name: _send(remote, files, name, there.get(name), threads), batch
                )
                moved |= {name for name, went in zip(batch, sent, strict=True) if went}
    kept = tuple(name for name in files if name not in moved)
    return Pushed(
        remote.url, tuple(n for n in files if n in moved), kept, sum(sizes[name] for name in moved)
    )


def local_root(cfg: DataConfig, cache_root: Path, patterns: Iterable[str] = ("*",)) -> Path | None:
    """The local folder of `cfg.root`: itself, or the pulled copy of an `s3://` root; None where there is no root.

    The copy is `<cache_root>/remote/<digest of endpoint and root>`. It follows the store: what changed there is
    fetched again, what is gone there is removed. Credentials have no part in its name.

    Args:
        patterns: Names of the source's files, `*` allowed, directly below the root; others are left where they are.

    Raises:
        ConfigError: Neither a folder nor `s3://BUCKET/PREFIX`.
        StorageError: As `pull`, and where no object matches.
    """
    if cfg.root is None or not is_remote(cfg.root):
        check_storage(cfg.root, cfg.storage)
        return None if cfg.root is None else Path(cfg.root)
    chosen = tuple(patterns)

    def belongs(name: str) -> bool:
        return "/" not in name and any(fnmatchcase(name, pattern) for pattern in chosen)

    with s3.Root(cfg.root, cfg.storage) as remote:
        names = [o.name for o in remote.entries() if belongs(o.name)]
    if not names:
        raise StorageError(f"{remote.url}: no object matches {', '.join(chosen)}; check data.root.")
    folder = (
        cache_root
        / "remote"
        / digest({"endpoint": cfg.storage.endpoint_url, "root": remote.url})[:16]
    )
    pull(cfg.root, folder, cfg.storage, names)
    for path in folder.iterdir():
        if path.is_file() and belongs(path.name) and path.name not in names:
            path.unlink(missing_ok=True)
    return folder


def _send(
    remote: s3.Root,
    files: dict[str, Path],
    name: str,
    there: RemoteObject | None,
    threads: Transfers,
) -> bool:
    """Send one file unless the store has it; whether it was sent."""
    path = files[name]
    share = max(1, threads.n_threads // len(files))  # of the transfers, for the parts of one file
    with on_disk(path):
        before = path.stat()
        sha256 = digest_file(path)
        if there is not None and (there.sha256, there.size) == (sha256, before.st_size):
            threads.tick(before.st_size)
            return False
        remote.write(path, name, sha256, n_threads=share, tick=threads.tick)
        after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StorageError(
            f"{path} changed while it was pushed; {remote.url}{name} is not to be used. Push again."
        )
    return True


def _named(source: Path | Sequence[Path]) -> dict[str, Path]:
    if isinstance(source, Path) and not source.is_file():
        named = _local_files(source)
    else:
        paths = [source] if isinstance(source, Path) else list(source)
        named = {path.name: path for path in paths}
        if len(named) < len(paths):
            raise StorageError(
                f"{len(paths)} files have {len(named)} names; give each its own, or push a folder."
            )
        if lost := [str(path) for path in paths if not path.is_file()]:
            raise StorageError(f"{', '.join(lost)}: no such file.")
    if not named:
        raise StorageError(f"{source}: no files to push.")
    return named


def _local_files(folder: Path) -> dict[str, Path]:
    """Name -> path of every file below a folder, ascending, but for what a pull keeps for itself."""
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder.")
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path for name, path in found.items() if not name.startswith(f"{STAGING}/")}
