"""Every source ends in a folder of the four raw tables. Those of the published sets: test_ucsd, test_goodbooks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, WorldConfig
from reranker.data import bookdb
from reranker.data.sources import raw_folder
from reranker.errors import DataError


def test_bookdbs_folder_is_taken_as_it_is(raw: Callable[..., Path], cache: Cache) -> None:
    root = raw()
    source = raw_folder(DataConfig(name="bookdb", root="s3://somewhere"), root, cache)
    assert (source.folder, source.counts) == (root, {})


def test_the_demo_makes_its_tables_once(cache: Cache) -> None:
    cfg = DataConfig(name="demo", world=WorldConfig(n_books=60, n_users=12))
    source = raw_folder(cfg, None, cache)
    assert len(bookdb.read(source.folder).ratings["user_id"].unique()) == 12
    assert raw_folder(cfg, None, cache) == source


@pytest.mark.parametrize("name", ["bookdb", "ucsd", "goodbooks"])
def test_a_source_of_files_needs_a_folder(cache: Cache, name: str) -> None:
    with pytest.raises(DataError, match=f"data={name} has no folder; set data.root"):
        raw_folder(DataConfig(name=name), None, cache)


@pytest.mark.parametrize("name", ["ucsd", "goodbooks"])
def test_a_failed_conversion_leaves_nothing_in_the_cache(tmp_path: Path, cache: Cache, name: str) -> None:
    with pytest.raises(DataError, match="missing"):
        raw_folder(DataConfig(name=name), tmp_path, cache)
    assert not [p for p in cache.root.rglob("*") if p.is_file() and p.suffix != ".lock"]
