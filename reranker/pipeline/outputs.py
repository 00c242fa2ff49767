"""Copy what a run makes to `output_dir`, under plain names."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from reranker.cache import COMPRESSION
from reranker.config import Config
from reranker.data.storage import folders
from reranker.redaction import redact

if TYPE_CHECKING:
    from reranker.pipeline.inputs import Inputs
    from reranker.sampling import GivenPairs, Pairs
    from reranker.tracking import RunLog

TABLES = ("reduce_books_df.parquet", "sampled_users_book.parquet")  # in the tables' cache folder
TEXTS = "book_texts_reduced.parquet"
PARTS = "training_pairs.parquet"


class Outputs:
    """Copies files and folders to `output_dir`; does nothing if it is null.

    Each copy appears at once under its name and replaces an earlier one. Files are copied, not
    linked: a program that changes a file in `output_dir` must not change the cache.

    Example:
        >>> Outputs(cfg).add("model", bundle / "weights")
    """

    def __init__(self, cfg: Config) -> None:
        self.cfg, self.names = cfg, list[str]()

    def add(self, name: str, source: Path) -> None:
        """Copy a file or folder.

        Raises:
            StorageError: The object store refuses the copy.
        """
        root = self.cfg.output_dir
        if root is None:
            return
        if folders.is_remote(root):
            _push(source, name, root, self.cfg)
        else:
            _copy(source, Path(root) / name)
        self.names.append(name)

    def add_inputs(self, found: Inputs) -> None:
        """Copy the tables and pairs of the stages that ran."""
        if self.cfg.output_dir is None:
            return
        stages = set(self.cfg.stages)
        if "tables" in stages and found.corpus is not None and self.cfg.data.name != "pairs":
            for name in TABLES:
                self.add(name, found.corpus.path / name)
            self._add_texts(found.corpus.tables.books)
        if found.pairs is not None and stages & {"pairs", "refine"}:
            self._add_pairs(found.pairs)

    def _add_texts(self, books: pd.DataFrame) -> None:
        with tempfile.TemporaryDirectory() as temp:
            path = Path(temp) / TEXTS
            texts = books[["book_id", "book_text"]].rename(columns={"book_text": "text"})
            texts.to_parquet(path, index=False, compression=COMPRESSION)
            self.add(TEXTS, path)

    def _add_pairs(self, pairs: Pairs | GivenPairs) -> None:
        """Copy the parts before refinement, if there are any, and the refined pairs as one file."""
        parts = getattr(pairs, "parts", None)
        if parts is not None:
            self.add(PARTS, parts)
        with tempfile.TemporaryDirectory() as temp:
            path = Path(temp) / "pairs.parquet"
            _join(pairs.path, path)
            self.add(self.cfg.sampling.refined_file, path)

    def add_reports(self, log: RunLog) -> None:
        """Copy the pages of a run, and print what `output_dir` received."""
        for name in ("data_report", "pairs_report", "run_report"):
            if path := log.result["paths"].get(name):
                self.add(f"{name}.html", Path(path))
        if self.names:
            log.result["paths"]["output_dir"] = redact(str(self.cfg.output_dir))
            log.console.print(f"{redact(str(self.cfg.output_dir))}: {', '.join(self.names)}")


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = target.with_name(f".{target.name}.tmp-{uuid.uuid4().hex}")
    try:
        if source.is_dir():
            shutil.copytree(source, temp)
        else:
            shutil.copy2(source, temp)
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.replace(temp, target)
    finally:
        if temp.is_dir():
            shutil.rmtree(temp, ignore_errors=True)
        else:
            temp.unlink(missing_ok=True)


def _push(source: Path, name: str, root: str, cfg: Config) -> None:
    if source.is_dir():
        folders.push(source, f"{root.rstrip('/')}/{name}", cfg.data.storage)
        return
    with tempfile.TemporaryDirectory() as temp:
        shutil.copy2(source, Path(temp) / name)
        folders.push(Path(temp) / name, root, cfg.data.storage)


def _join(pairs: Path, target: Path) -> None:
    """Write a file or a folder of part files as one file, a row group at a time."""
    import pyarrow.parquet as pq

    files = sorted(pairs.glob("*.parquet")) if pairs.is_dir() else [pairs]
    with pq.ParquetWriter(target, pq.read_schema(files[0]), compression=COMPRESSION) as out:
        for path in files:
            with pq.ParquetFile(path) as file:
                for i in range(file.num_row_groups):
                    out.write_table(file.read_row_group(i))
