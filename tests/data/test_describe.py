"""Summaries of sources have the numbers of small files, and a command prints them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from reranker.cache import Cache
from reranker.cli import main
from reranker.config import DataConfig
from reranker.data import load_tables
from reranker.data.describe import _file, describe
from reranker.data.sources import bookdb
from reranker.errors import DataError
from tests.conftest import GENRES, some_ratings


def described(folder: Path, cache: Cache) -> dict[str, Any]:
    """Return the summary of a raw folder."""
    cfg = DataConfig(name="bookdb", root=str(folder), genres=GENRES)
    texts = folder / "book_texts_reduced.parquet"
    return describe(load_tables(cfg, cache), bookdb.files(folder), texts)


def test_numbers_are_those_of_the_files(raw: Callable[..., Path], cache: Cache) -> None:
    rated = some_ratings()
    folder = raw(rated, texts={1: "One", 2: " ", 99: "Unknown"}, titles={3: "Three (Trilogy, #3)"})
    facts = described(folder, cache)
    n_rows = dict(zip(bookdb.SCHEMA, (40, 600, 7, 3), strict=True))
    assert [(f["name"], f["rows"]) for f in facts["files"]] == list(n_rows.items())
    assert facts["files"][1]["columns"] == ["user_id", "book_id", "rating"]
    assert facts["files"][1]["bytes"] == (folder / "reduced_interactions.parquet").stat().st_size
    assert facts["funnel"]["ratings"] == facts["ratings"]["n"] == 600
    by_value = Counter(str(rating) for _, _, rating in rated)
    assert facts["ratings"]["by_value"] == dict(sorted(by_value.items()))
    assert facts["ratings"]["timestamps"] == {"n": 0, "first": None, "last": None}
    assert list(facts["users"]) == ["train", "dev", "test"] and sum(facts["users"].values()) == 60
    n_described = sum(i % 3 == 0 for i in range(1, 41))
    assert facts["books"] == {
        "n": 40,
        "own_text": 1,
        "description": n_described,
        "genres": 40,
        "authors": 40,
        "series": 1,
    }


def test_quantiles_of_positives_are_whole_numbers(raw: Callable[..., Path], cache: Cache) -> None:
    n_liked = [0, 1, 2, 3, 10]  # books that a user liked, of 10
    rated = [(f"u{u}", 1 + b, 5 if b < n else 3) for u, n in enumerate(n_liked) for b in range(10)]
    folder = raw([(f"{u}-{copy}", b, r) for copy in range(20) for u, b, r in rated])
    facts = described(folder, cache)["positives_per_user"]
    quantiles = {"min": 0, "p25": 1, "p50": 2, "p75": 3, "p90": 10, "p99": 10, "max": 10}
    assert facts == {**quantiles, "mean": 3.2, "users_without": 20}


def test_timestamps_are_dates(raw: Callable[..., Path], cache: Cache) -> None:
    folder = raw([(*r, 0 if i == 0 else 86_400 * i) for i, r in enumerate(some_ratings())])
    facts = described(folder, cache)
    # Days 1 to 599.
    times = {"n": 599, "first": "1970-01-02T00:00:00", "last": "1971-08-23T00:00:00"}
    assert facts["ratings"]["timestamps"] == times


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "text", "rows", "columns"),
    [
        ("a.csv", 'id,title\n1,"two\nlines"\n2,"a, b"\n3,too,many\n4', 4, ["id", "title"]),
        ("a.csv", "id,title\r\n1,é\r\n", 1, ["id", "title"]),
        ("a.csv", "id,title\n", 0, ["id", "title"]),
        ("a.json", '{"id": 1, "x": [2]}\n{"id": 2}\n', 2, ["id", "x"]),
        ("a.json", '{"id": 1}\n{"id": 2}', 2, ["id"]),
        ("a.json", "", 0, []),
    ],
)
def test_rows_and_columns_of_text_files(
    name: str, text: str, rows: int, columns: list[str], zipped: bool, tmp_path: Path
) -> None:
    data = text.encode()
    path = tmp_path / (f"{name}.gz" if zipped else name)
    path.write_bytes(gzip.compress(data) if zipped else data)
    expected = {"name": path.name, "rows": rows, "columns": columns, "bytes": path.stat().st_size}
    assert _file(path) == expected


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b"PAR1"),
        ("a.json", b"[1\n"),
        ("a.csv", b""),
        ("a.csv.gz", b"no gzip"),
        ("a.json.gz", b"no gzip"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=rf"{name}: cannot be read"):
        _file(tmp_path / name)


def test_the_command_accepts_overrides_of_the_config(
    raw: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ["data=bookdb", f"data.root={raw()}", f"cache_dir={tmp_path / 'cache'}"]
    assert main.main(["data", "describe", *overrides, "--format", "json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main.main(["data", "describe", *overrides]) == 0
    table = capsys.readouterr().out
    assert facts["users"]["train"] + facts["users"]["dev"] + facts["users"]["test"] == 60
    for shown in (
        "reduced_interactions.parquet",
        "users by split",
        "40 books",
        "timestamps: none",
        facts["digest"],
    ):
        assert shown in table


def test_the_command_describes_the_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world = ["data.world.n_users=20", "data.world.n_books=60"]
    args = [f"cache_dir={tmp_path / 'cache'}", *world, "--format", "json"]
    assert main.main(["data", "describe", *args]) == 0
    assert sum(json.loads(capsys.readouterr().out)["users"].values()) == 20


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["data.roto=x"], "Did you mean data.root?"),
        (["data=goodreads"], "Could not find 'data/goodreads'"),
        (["data=bookdb", "data.root=missing"], "data.root='missing' is not a folder"),
    ],
)
def test_the_error_of_a_wrong_override_is_one_line(
    overrides: list[str], named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["data", "describe", *overrides]) == 2
    err = capsys.readouterr().err
    assert named in err
    assert err.startswith("reranker: ") and err.count("\n") == 1
