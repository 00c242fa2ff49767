"""List, push and pull folders of an object store, and the local copy of a data source's root."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path

from reranker.cache import MANIFEST, digest, digest_file
from reranker.config import DataConfig, StorageConfig, check_storage
from reranker.data.storage import s3
from reranker.data.storage.pull import STAGING, Pulled, fetch_metadata, pull
from reranker.data.storage.s3 import RemoteObject
from reranker.data.storage.transfers import TransferPool, disk_errors, transfer_pool
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
    """The result of a push.

    Attributes:
        url: The root, `s3://BUCKET/PREFIX/`.
        moved: Names of the files that were uploaded.
        kept: Names of the files that the store already had with the same bytes.
        n_bytes: Total size of the files in `moved`.
    """

    url: str
    moved: tuple[str, ...]
    kept: tuple[str, ...]
    n_bytes: int


def is_remote(root: str) -> bool:
    """Return whether a root is `s3://…` and not a local folder."""
    return root.startswith("s3://")


def list_objects(root: str, cfg: StorageConfig) -> list[RemoteObject]:
    """Return the objects below an `s3://` root or the files below a local folder, sorted by name.

    Local files have no hashes.

    Raises:
        StorageError: The store cannot be reached or refuses the request, or the folder does not
            exist.
    """
    if is_remote(root):
        with s3.Root(root, cfg) as remote:
            return fetch_metadata(remote, [o.name for o in remote.entries()])
    check_storage(root, cfg)
    stats = {name: path.stat() for name, path in _local_files(Path(root)).items()}
    return [
        RemoteObject(name, s.st_size, datetime.fromtimestamp(s.st_mtime, UTC))
        for name, s in stats.items()
    ]


def push(source: Path | Sequence[Path], root: str, cfg: StorageConfig) -> Pushed:
    """Upload a folder, a file or several files to `root`, each with its SHA-256 as metadata.

    Files that the store has with the same SHA-256 are not uploaded again. Manifests are uploaded
    last: if one exists in the store, the files that it lists exist there too.

    Args:
        source: A folder, whose files keep their relative paths as names; or files, which are named
            by their last part.
        root: `s3://BUCKET/PREFIX`.
        cfg: How to reach the store.

    Raises:
        StorageError: The store refuses the request, there is nothing to upload, two files have the
            same name, or a file changed during the upload.
    """
    files = _files_to_push(source)
    sizes = {name: path.stat().st_size for name, path in files.items()}
    manifests = [name for name in files if name.rsplit("/", 1)[-1] == MANIFEST]
    with s3.Root(root, cfg) as remote:
        names = [o.name for o in remote.entries() if o.name in files]
        existing = {o.name: o for o in fetch_metadata(remote, names)}
        with transfer_pool("push", sum(sizes.values()), cfg.n_transfers) as pool:
            n_threads = max(1, pool.n_threads // len(files))

            def send(name: str) -> bool:
                path, known = files[name], existing.get(name)
                return _push_file(remote, path, name, known=known, pool=pool, n_threads=n_threads)

            moved: set[str] = set()
            for batch in ([name for name in files if name not in manifests], manifests):
                results = pool.run(send, batch)
                moved |= {name for name, sent in zip(batch, results, strict=True) if sent}
    kept = tuple(name for name in files if name not in moved)
    n_bytes = sum(sizes[name] for name in moved)
    return Pushed(remote.url, tuple(name for name in files if name in moved), kept, n_bytes)


def local_root(cfg: DataConfig, cache_root: Path, patterns: Iterable[str] = ("*",)) -> Path | None:
    """Return the local folder of `cfg.root`, or None if there is no root.

    A local root is returned as it is. An `s3://` root is pulled into
    `<cache_root>/remote/<digest of endpoint and root>`. Later calls download what changed in the
    store and remove what was deleted there. Credentials are not part of the digest.

    Args:
        cfg: The data source.
        cache_root: Folder of the cache.
        patterns: Names of the source's files, with `*` as a wildcard. Only objects directly below
            the root that match a pattern are downloaded.

    Raises:
        ConfigError: The root is neither a folder nor `s3://BUCKET/PREFIX`.
        StorageError: As `pull`, or no object matches.
    """
    if cfg.root is None or not is_remote(cfg.root):
        check_storage(cfg.root, cfg.storage)
        return None if cfg.root is None else Path(cfg.root)
    chosen = tuple(patterns)

    def matches(name: str) -> bool:
        return "/" not in name and any(fnmatchcase(name, pattern) for pattern in chosen)

    with s3.Root(cfg.root, cfg.storage) as remote:
        names = [o.name for o in remote.entries() if matches(o.name)]
    if not names:
        raise StorageError(f"{remote.url}: no object matches {', '.join(chosen)}; check data.root.")
    key = digest({"endpoint": cfg.storage.endpoint_url, "root": remote.url})
    folder = cache_root / "remote" / key[:16]
    pull(cfg.root, folder, cfg.storage, names=names)
    for path in folder.iterdir():
        if path.is_file() and matches(path.name) and path.name not in names:
            path.unlink(missing_ok=True)
    return folder


def _push_file(
    remote: s3.Root,
    path: Path,
    name: str,
    *,
    known: RemoteObject | None,
    pool: TransferPool,
    n_threads: int,
) -> bool:
    """Upload one file unless the store has the same bytes; return whether it was uploaded."""
    with disk_errors(path):
        before = path.stat()
        sha256 = digest_file(path)
        if known is not None and (known.sha256, known.size) == (sha256, before.st_size):
            pool.tick(before.st_size)
            return False
        remote.write(path, name, sha256, n_threads=n_threads, tick=pool.tick)
        after = path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise StorageError(
            f"{path} changed while it was pushed, so {remote.url}{name} is not valid. Push again."
        )
    return True


def _files_to_push(source: Path | Sequence[Path]) -> dict[str, Path]:
    """Return the files to upload as a dict of name -> path."""
    if isinstance(source, Path) and not source.is_file():
        files = _local_files(source)
    else:
        paths = [source] if isinstance(source, Path) else list(source)
        files = {path.name: path for path in paths}
        if len(files) < len(paths):
            raise StorageError(
                f"{len(paths)} files have {len(files)} names; rename files with the same name, or "
                "push their folder."
            )
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise StorageError(f"{', '.join(missing)}: no such file.")
    if not files:
        raise StorageError(f"{source}: no files to push.")
    return files


def _local_files(folder: Path) -> dict[str, Path]:
    """Return name -> path of every file below a folder, sorted, without the staging folder."""
    if not folder.is_dir():
        raise StorageError(f"{folder}: no such folder.")
    found = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
    return {name: path for name, path in found.items() if not name.startswith(f"{STAGING}/")}
