"""Pairs become units that stay together; what cannot be learnt from is refused by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.config import ModelConfig, TrainerConfig
from reranker.errors import DataError
from reranker.model import load
from reranker.trainer.dataset import read, units

TINY = ModelConfig(name="tiny", source="random", max_length=32)
GROUPS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=80)


@given(
    rows=GROUPS,
    group_size=st.integers(2, 12),
    loss=st.sampled_from(["bce", "softmax", "margin_mse"]),
)
def test_units_are_parts_of_groups_and_share_their_positives(
    rows: list[tuple[int, bool]], group_size: int, loss: str
) -> None:
    given_group, label = (np.array(column) for column in zip(*rows, strict=True))
    group = np.unique(given_group, return_inverse=True)[1]
    unit = units(group, label, group_size=group_size, loss=loss, seed=0)
    assert set(unit) - {-1} == set(range(unit.max() + 1))
    assert np.bincount(unit[unit >= 0]).max() <= group_size
    assert label[unit < 0].sum() == 0  # no positive is left out
    for g in range(group.max() + 1):
        mine = unit[(group == g) & (unit >= 0)]
        assert not set(mine) & set(unit[group != g])
        n_positives = [int(label[unit == u].sum()) for u in set(mine)]
        assert max(n_positives) - min(n_positives) <= 1
        fewest = -(-int((group == g).sum()) // group_size)
        if loss == "softmax":
            assert len(n_positives) == min(fewest, max(sum(n_positives), 1))
            assert len(mine) == min(
                int((group == g).sum()), len(n_positives) * group_size
            )  # no more left out than need be
        else:
            assert len(mine) == (group == g).sum()
        if loss == "margin_mse":
            assert len(n_positives) == fewest


def test_a_pointwise_unit_is_a_positive_and_its_share_of_negatives() -> None:
    label = np.array([1, 0, 0, 0] * 3)
    unit = units(np.zeros(12, dtype=np.int64), label, group_size=32, loss="bce", seed=0)
    assert np.bincount(unit).tolist() == [4, 4, 4]
    assert np.bincount(unit, weights=label).tolist() == [1, 1, 1]


@pytest.mark.parametrize("loss", ["softmax", "listnet", "plistmle", "ranknet", "lambdaloss"])
def test_no_part_of_a_group_is_without_a_positive_where_labels_are_compared(loss: str) -> None:
    label = np.array([0] * 60 + [1] + [0] * 36)
    unit = units(np.zeros(97, dtype=np.int64), label, group_size=32, loss=loss, seed=0)
    assert [int((unit == u).sum()) for u in (-1, 0)] == [65, 32]
    assert unit[60] == 0
    other = units(np.zeros(97, dtype=np.int64), label, group_size=32, loss=loss, seed=1)
    assert (unit != other).any()  # which negatives are left out is a draw, not the end of the file


def written(tmp_path: Path, **columns: list[object]) -> Path:
    path = tmp_path / "pairs.parquet"
    plain = {"user_ctx": ["r", "r", "s"], "book_text": ["a", "b", "a"], "label": [1, 0, 1]}
    pd.DataFrame(plain | columns).to_parquet(path)
    return path


@pytest.mark.slow
def test_a_text_is_tokenised_once_and_users_with_one_context_are_two_groups(tmp_path: Path) -> None:
    path = written(tmp_path, user_ctx=["r", "r", "r"], user_id=["u", "u", "v"])
    examples = read(path, load(TINY), TrainerConfig())
    assert (len(examples.contexts), len(examples.books)) == (1, 2)
    assert examples.group.tolist() == [0, 0, 1]
    assert examples.length.tolist() == [5, 5, 5]  # [CLS] r [SEP] a [SEP], one token for each letter
    assert examples.target.tolist() == [1, 0, 1]


@pytest.mark.slow
def test_a_folder_of_parts_is_read_as_the_one_file_is(tmp_path: Path) -> None:
    path, folder = written(tmp_path), tmp_path / "parts"
    folder.mkdir()
    frame = pd.read_parquet(path)
    for name, rows in (("part-0", frame[:2]), ("part-1", frame[2:])):
        rows.to_parquet(folder / f"{name}.parquet")
    whole, parts = (read(p, load(TINY), TrainerConfig()) for p in (path, folder))
    assert parts.group.tolist() == whole.group.tolist()
    assert parts.candidate.tolist() == whole.candidate.tolist()
    assert parts.target.tolist() == whole.target.tolist()


@pytest.mark.slow
def test_negatives_that_are_left_out_are_counted_and_gone(tmp_path: Path) -> None:
    path = written(tmp_path, user_ctx=["r"] * 6, book_text=list("abcdef"), label=[0, 0, 0, 1, 0, 0])
    examples = read(path, load(TINY), TrainerConfig(loss="softmax", group_size=4))
    assert (len(examples.target), examples.n_left_out) == (4, 2)
    assert len(examples.query) == len(examples.candidate) == len(examples.length) == 4
    assert examples.target.tolist().count(1) == 1


@pytest.mark.slow
def test_graded_labels_are_for_other_objectives_than_bce(tmp_path: Path) -> None:
    examples = read(written(tmp_path, label=[5, 1, 0]), load(TINY), TrainerConfig(loss="softmax"))
    assert examples.target.tolist() == [5, 1, 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "loss", "message"),
    [
        ({"label": [1, None, 0]}, "bce", "1 rows have no label"),
        (
            {"label": [1.0, -1.0, 0.0]},
            "bce",
            "label of row 1 is -1.0; it must be finite and at least 0",
        ),
        (
            {"label": [1.0, 5.0, 0.0]},
            "bce",
            r"label of row 1 is 5.0; .* with trainer\.loss=bce at most 1",
        ),
        ({}, "mse", "has no column score; .* It is a teacher's, whom trainer.teacher names"),
        ({"score": [0.5, float("inf"), 0.0]}, "mse", "score of row 1 is inf"),
        (
            {"label": [1, 1, 0]},
            "softmax",
            "no group of pairs .* so trainer.loss=softmax has nothing to compare",
        ),
    ],
)
def test_pairs_that_teach_nothing_are_refused(
    tmp_path: Path, columns: dict[str, list[object]], loss: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, **columns), load(TINY), TrainerConfig(loss=loss))
