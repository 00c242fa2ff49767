"""The folder of raw tables that a data source ends in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reranker.cache import Cache, digest_file
from reranker.config import DataConfig
from reranker.data import demo, goodbooks, ucsd
from reranker.errors import DataError

CONVERTERS = {
    "ucsd": (ucsd.VERSION, ucsd.files, ucsd.convert),
    "goodbooks": (goodbooks.VERSION, goodbooks.files, goodbooks.convert),
}


@dataclass(frozen=True)
class Source:
    """A folder with the four tables of `bookdb.SCHEMA`, and the rows in, out and dropped on the way to them.

    Attributes:
        folder: In the cache, or the data's own.
        counts: By reason, as `convert` of the source names them; empty where the tables are taken as they are.
    """

    folder: Path
    counts: dict[str, int]


def raw_folder(cfg: DataConfig, root: Path | None, cache: Cache) -> Source:
    """The raw tables of the source that `cfg` names: made (demo), taken (bookdb), or converted (ucsd, goodbooks).

    What is made or converted is kept in the cache, by the world's settings or by the published files' digests.

    Args:
        cfg: Of it count name, world and, for memory alone, batch_rows.
        root: The local folder of the source's files; None for the demo.

    Raises:
        DataError: The source has no folder, or its published files are missing, damaged or empty.
    """
    if cfg.name == "demo":
        key = {"version": demo.VERSION, "world": cfg.world}
        return Source(cache.fetch("world", key, lambda folder: demo.generate(cfg.world, folder)).path, {})
    if root is None:
        raise DataError(f"data={cfg.name} has no folder; set data.root to one with its files.")
    if cfg.name == "bookdb":
        return Source(root, {})
    version, files, convert = CONVERTERS[cfg.name]
    key = {"version": version, "files": {path.name: digest_file(path) for path in files(root)}}
    entry = cache.fetch(cfg.name, key, lambda folder: dict(convert(root, folder, batch_rows=cfg.batch_rows)))
    return Source(entry.path, {reason: int(str(n)) for reason, n in entry.info.items()})
