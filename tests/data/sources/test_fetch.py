"""Every source gives a folder with the four raw tables; see also test_ucsd and test_goodbooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, WorldConfig
from reranker.data.sources import bookdb
from reranker.data.sources.fetch import fetch
from reranker.errors import DataError


def test_the_folder_of_bookdb_is_used_as_it_is(raw: Callable[..., Path], cache: Cache) -> None:
    root = raw()
    source = fetch(DataConfig(name="bookdb", root=str(root)), cache)
    assert (source.folder, source.files, source.counts) == (root, bookdb.files(root), {})


def test_the_demo_tables_are_generated_once(cache: Cache) -> None:
    cfg = DataConfig(name="demo", world=WorldConfig(n_books=60, n_users=12))
    source = fetch(cfg, cache)
    assert len(pc.unique(pa.concat_tables(bookdb.ratings(source.folder, 1000))["user_id"])) == 12
    assert fetch(cfg, cache) == source


@pytest.mark.parametrize("name", ["bookdb", "ucsd", "goodbooks"])
def test_a_source_with_files_requires_a_folder(cache: Cache, name: str) -> None:
    with pytest.raises(DataError, match=f"data={name} has no folder; set data.root"):
        fetch(DataConfig(name=name), cache)


@pytest.mark.parametrize("name", ["ucsd", "goodbooks"])
def test_a_failed_conversion_leaves_nothing_in_the_cache(
    tmp_path: Path, cache: Cache, name: str
) -> None:
    with pytest.raises(DataError, match="missing"):
        fetch(DataConfig(name=name, root=str(tmp_path)), cache)
    assert not [p for p in cache.root.rglob("*") if p.is_file() and p.suffix != ".lock"]
