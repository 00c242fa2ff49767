"""Test the benchmarks without timing them: the sides of pairs, their check, operation counts."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker import data
from reranker.cache import Cache
from reranker.config import ROOT, DataConfig, ModelConfig, WorldConfig

SCRIPT = ROOT / "experiments" / "benchmarks" / "pairs.py"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return feature tables of 300 users and 250 books.

    They are dense enough that draws hit books that are seen or drawn already.
    """
    folder = tmp_path_factory.mktemp("world")
    cfg = DataConfig(name="demo", world=WorldConfig(n_books=250, n_users=300, mean_ratings=20))
    write_world = runpy.run_path(str(SCRIPT))["write_world"]
    write_world(data.load(cfg, Cache(folder / "cache")), folder)
    return folder


def expected_positives(world: Path) -> pd.DataFrame:
    users, rated = (pd.read_parquet(world / f"{n}.parquet") for n in ("users", "histories"))
    train = users.index[users["split"] == "train"]
    return rated[rated["user"].isin(train) & rated["is_target"] & (rated["rating"] >= 4)]


@pytest.mark.slow
@pytest.mark.parametrize("side", ["ours", "bookdb", "duckdb", "polars"])
def test_every_side_writes_the_expected_rows(world: Path, tmp_path: Path, side: str) -> None:
    if side in ("duckdb", "polars") and importlib.util.find_spec(side) is None:
        pytest.skip(f"{side} is not installed; pip install -e '.[bench]'")
    arguments = ["--side", side, "--world", str(world), "--out", str(tmp_path)]
    command = [sys.executable, str(SCRIPT), *arguments]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    facts = json.loads(run.stdout.splitlines()[-1])
    n = len(expected_positives(world))
    assert {k: facts[k] for k in ("rows", "negatives", "seen", "duplicates")} == {
        "rows": 4 * n,
        "negatives": 3 * n,
        "seen": 0,
        "duplicates": 0,
    }


@pytest.fixture
def sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)


def right_rows(world: Path) -> pd.DataFrame:
    """Return correct rows: the negatives of each user are the first books that it has not rated."""
    books, users, rated, contexts = (
        pd.read_parquet(world / f"{n}.parquet") for n in ("books", "users", "histories", "contexts")
    )
    rows = []
    for user, liked in expected_positives(world).groupby("user")["book"]:
        unseen = np.setdiff1d(np.arange(len(books)), rated.loc[rated["user"] == user, "book"])
        rows += [(user, book, 1) for book in liked]
        rows += [(user, book, 0) for book in unseen[: 3 * len(liked)]]
    frame = pd.DataFrame(rows, columns=["user", "book", "label"])
    return pd.DataFrame(
        {
            "user_id": users["user_id"].to_numpy()[frame["user"]],
            "user_ctx": contexts["user_ctx"].to_numpy()[frame["user"]],
            "book_id": books["book_id"].to_numpy()[frame["book"]],
            "book_text": books["book_text"].to_numpy()[frame["book"]],
            "label": frame["label"],
        }
    )


def check(world: Path, rows: pd.DataFrame, folder: Path) -> dict[str, int]:
    from sides.check import Truth, check_flat
    from sides.task import Task

    rows.to_parquet(folder / "pairs.parquet", index=False)
    return check_flat(Truth(Task(world, folder)), [folder / "pairs.parquet"], contexts=True)


def test_check_counts_seen_and_repeated_negatives(world: Path, tmp_path: Path, sides: None) -> None:
    rows = right_rows(world)
    right = check(world, rows, tmp_path)
    assert (right["seen"], right["duplicates"], right["rows"]) == (0, 0, len(rows))
    is_first_user = rows["user_id"] == rows["user_id"].iloc[0]
    first, second = np.flatnonzero((rows["label"] == 0) & is_first_user)[:2]
    texts = ["book_id", "book_text"]
    twice = rows.copy()
    twice.loc[second, texts] = rows.loc[first, texts].to_numpy()
    assert check(world, twice, tmp_path)["duplicates"] == 1
    seen = rows.copy()
    seen.loc[first, texts] = rows.loc[0, texts].to_numpy()  # the user's first positive
    assert check(world, seen, tmp_path)["seen"] == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing negative", "1 users do not have 3 negatives per positive"),
        ("missing positive", "positives differ from the"),
        ("text of another book", "book_text: a text does not belong to its id"),
        ("context of another user", "user_ctx: a text does not belong to its id"),
        ("unknown book", "A book_id is not in books.parquet"),
        ("unknown user", "A user_id is not in users.parquet"),
    ],
)
def test_check_refuses_wrong_rows(
    world: Path, tmp_path: Path, sides: None, fault: str, message: str
) -> None:
    rows = right_rows(world)
    if fault == "missing negative":
        rows = rows.drop(np.flatnonzero(rows["label"] == 0)[0])
    elif fault == "missing positive":
        rows = rows.drop(0)
    else:
        columns = {"text of another book": "book_text", "context of another user": "user_ctx"}
        column = columns.get(fault) or {"unknown book": "book_id", "unknown user": "user_id"}[fault]
        rows.loc[5, column] = -1 if column == "book_id" else "of nobody"
    with pytest.raises(ValueError, match=message):
        check(world, rows, tmp_path)


def test_polars_replaces_missing_draws_until_all_unseen_books_are_drawn(sides: None) -> None:
    """There are 12 books. User 0 has seen 3 and needs the other 9; user 1 has seen 1, needs 3."""
    pl = pytest.importorskip("polars")
    from sides.task import Task
    from sides.with_polars import _draw

    seen = pl.Series([0, 4, 7, 12], dtype=pl.Int64)
    positives = pl.Series([0, 4, 7, 12], dtype=pl.Int64)
    drawn = _draw(Task(Path(), Path()), seen, positives, 12).to_numpy()
    assert drawn[drawn < 12].tolist() == [1, 2, 3, 5, 6, 8, 9, 10, 11]
    assert len(set(drawn[drawn >= 12])) == 3
    assert set(drawn[drawn >= 12]) <= set(range(13, 24))


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_operations_of_our_sides_equal_the_count_of_torch(attention: str, sides: None) -> None:
    """Torch also counts the products of the head: a pooler and one logit for every pair."""
    from torch.utils.flop_counter import FlopCounterMode

    from reranker.model import load as load_model

    cfg = ModelConfig(name="tiny", source="random", max_length=32, attention=attention)
    encoder = load_model(cfg)
    queries, candidates = ["liked dune"] * 5 + ["a" * 60] * 4, [f"emma {'b' * n}" for n in range(9)]
    with FlopCounterMode(display=False) as counted:
        encoder.score(queries, candidates)
    hidden = encoder.model[0].model.config.hidden_size
    head = len(queries) * 2 * (hidden * hidden + hidden)
    operations = importlib.import_module("arithmetic").operations
    found = operations(encoder, queries, candidates, is_stock=False)
    assert found == counted.get_total_flops() - head
