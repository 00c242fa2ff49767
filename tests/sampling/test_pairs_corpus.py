"""data=pairs: training pairs and held-out lists come from one pairs file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, SamplingConfig
from reranker.errors import DataError
from reranker.sampling import PairsCorpus, load_given, split_pairs
from tests.helpers.pair_tables import pairs_frame

DATA = DataConfig(name="pairs")


def split(frame: pd.DataFrame, folder: Path, **settings: object) -> PairsCorpus:
    path = folder / "pairs.parquet"
    frame.to_parquet(path)
    cfg = SamplingConfig(path=str(path), **settings)  # type: ignore[arg-type]
    cache = Cache(folder / "cache")
    return split_pairs(load_given(cfg, cache, refined=False), DATA, cfg, cache)


def rows_of(found: PairsCorpus, name: str) -> pd.DataFrame:
    """The candidates of a split with their ids and texts."""
    rows, tables = found.lists[name], found.corpus.tables
    return pd.DataFrame(
        {
            "user_id": tables.user_ids(rows["user"].to_numpy()),
            "user_ctx": np.array(found.corpus.contexts.text, dtype=object)[rows["context"]],
            "book_id": tables.book_ids(rows["book"].to_numpy()),
            "book_text": tables.books["book_text"].to_numpy()[rows["book"]],
            "label": rows["label"].to_numpy(),
        }
    )


@pytest.mark.parametrize("own_contexts", [False, True])
@pytest.mark.parametrize("by", ["user", "pair"])
def test_every_pair_is_in_one_split_with_its_own_texts(
    tmp_path: Path, own_contexts: bool, by: str
) -> None:
    frame = pairs_frame(60, own_contexts=own_contexts)
    found = split(frame, tmp_path, val_size=0.4, split_by=by)
    parts = [found.pairs.read(), rows_of(found, "dev"), rows_of(found, "test")]
    columns = ["user_id", "user_ctx", "book_id", "book_text", "label"]
    joined = pd.concat([part[columns].astype(str) for part in parts])
    key = columns[:4]
    expected = frame.astype(str).sort_values(key, ignore_index=True)
    assert joined.sort_values(key, ignore_index=True).equals(expected)
    users = [set(part["user_id"].astype(str)) for part in parts]
    assert not users[1] & users[2]
    assert bool(users[0] & users[2]) == (by == "pair")
    tables = found.corpus.tables
    first = [found.corpus.contexts.text[user] for user in found.lists["test"]["user"]]
    if not own_contexts:
        assert first == rows_of(found, "test")["user_ctx"].tolist()
    known = tables.known()["user"].to_numpy()
    assert (tables.users["split"].to_numpy()[known] == "train").all()


def test_the_split_depends_on_ids_only(tmp_path: Path) -> None:
    frame = pairs_frame(60)
    found = [
        split(part, tmp_path / str(i), val_size=0.4)
        for i, part in enumerate([frame, frame.sample(frac=1, random_state=1), frame[:400]])
        if (tmp_path / str(i)).mkdir() is None
    ]
    held_out = [set(rows_of(one, "test")["user_id"]) for one in found]
    assert held_out[0] == held_out[1]
    assert held_out[2] == held_out[0] & set(frame[:400]["user_id"])


def test_ids_that_are_not_integers_are_replaced_by_numbers(tmp_path: Path) -> None:
    frame = pairs_frame(60)
    frame["book_id"] = "b" + frame["book_id"].astype(str)
    books = split(frame, tmp_path, val_size=0.4).corpus.tables.books
    assert books["book_id"].tolist() == list(range(frame["book_text"].nunique()))
    without = split(frame.drop(columns="book_id"), tmp_path, val_size=0.4).corpus.tables.books
    assert without["book_id"].equals(books["book_id"])


def test_too_few_users_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"val_size=0\.1 of 2 users leaves no positive in"):
        split(pairs_frame(2), tmp_path)
