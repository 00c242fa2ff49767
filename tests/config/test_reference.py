"""docs/configuration.md is up to date, and every key of the schema has a description."""

from __future__ import annotations

import dataclasses

import pytest

from reranker.config import CHOICES, ROOT, Config, EngineConfig, reference
from reranker.config.reference import Key


def all_keys() -> list[Key]:
    blocks = reference.blocks(Config, "")
    return [key for prefix, node in blocks for key in reference.keys(prefix, node)]


def test_the_page_is_what_the_generator_writes() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert written == reference.page(), f"docs/configuration.md is stale; run {reference.COMMAND}"


def test_every_key_is_listed_with_its_type_and_default() -> None:
    scheduler, n_partitions, address = reference.keys("engine", EngineConfig)
    assert (scheduler.type, scheduler.default) == ("str", "`threads`")
    assert (n_partitions.name, n_partitions.default) == ("engine.n_partitions", "`4`")
    assert n_partitions.description.endswith("Allowed: at least 1.")
    assert (address.type, address.default) == ("str or null", "`null`")
    names = [key.name for key in all_keys()]
    assert {"data.storage.region", "sampling.mix.uniform", "cache_dir"} <= set(names)
    assert len(names) == len(set(names))


def test_every_key_has_a_description() -> None:
    assert [key.name for key in all_keys() if len(key.description) < 10] == []


@pytest.mark.parametrize("name", CHOICES)
def test_a_description_names_every_choice(name: str) -> None:
    [description] = [key.description for key in all_keys() if key.name == name]
    assert [c for c in CHOICES[name] if c not in description] == []


def test_every_preset_is_listed_with_its_use() -> None:
    rows = [line for line in reference.page().splitlines() if line.startswith("| `")]
    uses = {cells[1].strip(" `"): cells[2].strip() for cells in (row.split("|") for row in rows)}
    folders = [p for p in (ROOT / "conf").rglob("*/") if p.is_dir() and p.name != "conf"]
    for folder in folders:
        group = folder.relative_to(ROOT / "conf").as_posix()
        for file in folder.glob("*.yaml"):
            assert len(uses[f"{group}={file.stem}"]) > 10, file


def test_cells_of_tables_contain_no_bars() -> None:
    for line in reference.page().splitlines():
        if line.startswith("|"):
            assert line.count("|") in (3, 4, 5), line


def test_the_schema_has_a_block_for_every_dataclass() -> None:
    prefixes = [prefix for prefix, node in reference.blocks(Config, "")]
    scalars = ("seed", "cache_dir", "experiments")
    top = [f.name for f in dataclasses.fields(Config) if f.name not in scalars]
    assert [p for p in prefixes if p and "." not in p] == top
