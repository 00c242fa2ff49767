"""The folder of raw tables that a data source ends in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reranker.cache import Cache, digest_file
from reranker.config import DataConfig
from reranker.data.sources import bookdb, demo, goodbooks, ucsd
from reranker.data.storage import folders
from reranker.errors import DataError

PUBLISHED = {
    "ucsd": (ucsd.VERSION, ucsd.files),
    "goodbooks": (goodbooks.VERSION, goodbooks.files),
}


PATTERNS = {  # what is fetched of an s3:// root; others are left where they are
    "bookdb": tuple(bookdb.SCHEMA),
    "ucsd": ("goodreads_*", "*_id_map.csv*"),
    "goodbooks": tuple(f"{name}*" for name in goodbooks.FILES),
}


@dataclass(frozen=True)
class Source:
    """A folder with the four tables of `bookdb.SCHEMA`, and the rows in, out and dropped on the way to them.

    Attributes:
        folder: In the cache, or the data's own.
        files: As they came: published files, or the four tables.
        counts: By reason, as `convert` of the source names them; empty where the tables are taken as they are.
    """

    folder: Path
    files: list[Path]
    counts: dict[str, int]


def fetch(cfg: DataConfig, cache: Cache) -> Source:
    """The raw tables of the source that `cfg` names: made (demo), taken (bookdb), or converted (ucsd, goodbooks).

    An s3:// root is copied into the cache first. What is made or converted is kept there too, by the world's settings
    or by the published files' digests.

    Args:
        cfg: Of it count name, root, storage, world and, for memory alone, batch_rows.

    Raises:
        DataError: The source has no folder, or its files are missing, damaged or empty.
        StorageError: An s3:// root cannot be read.
    """
    if cfg.name == "demo":
        key = {"version": demo.VERSION, "world": cfg.world}
        world = cache.fetch("world", key, lambda folder: demo.generate(cfg.world, folder)).path
        return Source(world, bookdb.files(world), {})
    root = folders.local_root(cfg, cache.root, PATTERNS[cfg.name])
    if root is None:
        raise DataError(f"data={cfg.name} has no folder; set data.root to one with its files.")
    if cfg.name == "bookdb":
        return Source(root, bookdb.files(root), {})
    version, files = PUBLISHED[cfg.name]
    found = files(root)
    shelves = sorted({shelf for names in cfg.genres.values() for shelf in names})
    key = {"version": version, "files": {path.name: digest_file(path) for path in found}}

    def build(folder: Path) -> dict[str, object]:
        if cfg.name == "ucsd":
            return dict(
                ucsd.convert(root, folder, batch_rows=cfg.batch_rows, shelves=frozenset(shelves))
            )
        return dict(goodbooks.convert(root, folder, batch_rows=cfg.batch_rows))

    entry = cache.fetch(cfg.name, key | ({"shelves": shelves} if cfg.name == "ucsd" else {}), build)
    return Source(entry.path, found, {reason: int(str(n)) for reason, n in entry.info.items()})
