"""output_dir: copies under plain names that replace earlier ones and never touch the cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from reranker.config import Config
from reranker.pipeline.outputs import Outputs


def outputs(root: Path | None) -> Outputs:
    return Outputs(Config(output_dir=None if root is None else str(root)))


def test_a_copy_replaces_an_earlier_file_or_folder(tmp_path: Path) -> None:
    source, root = tmp_path / "source", tmp_path / "new" / "out"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "a").write_text("1")
    out = outputs(root)
    out.add("model", source)
    (source / "sub" / "a").rename(source / "sub" / "b")
    out.add("model", source)
    assert [p.name for p in (root / "model" / "sub").iterdir()] == ["b"]
    out.add("model", source / "sub" / "b")  # a file in place of a folder
    assert (root / "model").read_text() == "1"
    assert [p.name for p in root.iterdir()] == ["model"]


def test_a_changed_copy_does_not_change_the_source(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("cached")
    outputs(tmp_path / "out").add("a", tmp_path / "a")
    (tmp_path / "out" / "a").write_text("edited in place")
    assert (tmp_path / "a").read_text() == "cached"


def test_a_failed_copy_keeps_the_earlier_one(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("first")
    out = outputs(tmp_path / "out")
    out.add("a", tmp_path / "a")
    with pytest.raises(OSError):
        out.add("a", tmp_path / "missing")
    assert {p.name: p.read_text() for p in (tmp_path / "out").iterdir()} == {"a": "first"}


def test_without_output_dir_nothing_is_copied(tmp_path: Path) -> None:
    outputs(None).add("a", tmp_path / "missing")
