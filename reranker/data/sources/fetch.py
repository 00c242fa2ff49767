"""Provide a folder with the four raw tables of the configured data source."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data.sources import bookdb, bookdb_features, demo, goodbooks, ucsd
from reranker.data.sources.parquet_files import digest_table
from reranker.data.storage import folders
from reranker.errors import DataError

PUBLISHED = {
    "ucsd": (ucsd.VERSION, ucsd.files),
    "goodbooks": (goodbooks.VERSION, goodbooks.files),
    "bookdb_features": (bookdb_features.VERSION, bookdb_features.files),
}
# Names of the objects that are downloaded from an s3:// root.
PATTERNS = {
    "bookdb": tuple(bookdb.SCHEMA),
    "bookdb_features": tuple(bookdb_features.SCHEMA),
    "ucsd": ("goodreads_*", "*_id_map.csv*"),
    "goodbooks": tuple(f"{name}*" for name in goodbooks.FILES),
}


@dataclass(frozen=True)
class Source:
    """A folder with the four tables of `bookdb.SCHEMA`.

    Attributes:
        folder: A cache entry, or `data.root` itself.
        files: The source's own files: the published files, or the four tables.
        counts: Reason -> rows read, written and dropped by the source's `convert`; empty for the
            demo and for bookdb, which are not converted.
    """

    folder: Path
    files: list[Path]
    counts: dict[str, int]


def fetch(cfg: DataConfig, cache: Cache) -> Source:
    """Return the raw tables of the source `cfg.name`.

    They are generated (demo), used as they are (bookdb), or converted from other files (ucsd,
    goodbooks, bookdb_features). An s3:// root is first copied into the cache. Generated and
    converted tables are cached, with the world's settings or the digests of the files as the key.

    Args:
        cfg: The fields name, root, storage, world and genres are used; batch_rows affects memory
            only.
        cache: Where generated, converted and downloaded files are stored.

    Raises:
        DataError: `data.root` is not set, or its files are missing, damaged or empty.
        StorageError: An s3:// root cannot be read.

    Example:
        >>> source = fetch(DataConfig(name="demo"), Cache(Path("cache")))  # doctest: +SKIP
    """
    if cfg.name == "demo":
        return _demo(cfg, cache)
    root = folders.local_root(cfg, cache.root, PATTERNS[cfg.name])
    if root is None:
        raise DataError(f"data={cfg.name} has no folder; set data.root to the folder of its files.")
    if cfg.name == "bookdb":
        return Source(root, bookdb.files(root), {})
    return _convert(cfg, root, cache)


def _demo(cfg: DataConfig, cache: Cache) -> Source:
    key = {"version": demo.VERSION, "world": cfg.world}
    world = cache.fetch("world", key, lambda folder: demo.generate(cfg.world, folder)).path
    return Source(world, bookdb.files(world), {})


def _convert(cfg: DataConfig, root: Path, cache: Cache) -> Source:
    version, files = PUBLISHED[cfg.name]
    found = files(root)
    digests = {path.name: digest_table(path) for path in found}
    key: dict[str, object] = {"version": version, "files": digests}
    shelves = sorted({shelf for names in cfg.genres.values() for shelf in names})
    if cfg.name == "ucsd":
        key["shelves"] = shelves
    if cfg.name == "bookdb_features":
        key["genres"] = cfg.genres

    def build(folder: Path) -> dict[str, object]:
        if cfg.name == "ucsd":
            genres = frozenset(shelves)
            return dict(ucsd.convert(root, folder, batch_rows=cfg.batch_rows, shelves=genres))
        if cfg.name == "bookdb_features":
            return dict(bookdb_features.convert(root, folder, cfg.genres))
        return dict(goodbooks.convert(root, folder, batch_rows=cfg.batch_rows))

    entry = cache.fetch(cfg.name, key, build)
    return Source(entry.path, found, {reason: int(str(n)) for reason, n in entry.info.items()})
