"""Groups are split into chunks, and unsuitable pairs are rejected with a reason."""

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
from reranker.trainer.dataset import group_chunks, read

TINY = ModelConfig(name="tiny", source="random", max_length=32)
GROUPS = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=80)


@given(
    rows=GROUPS,
    group_size=st.integers(2, 12),
    loss=st.sampled_from(["bce", "softmax", "margin_mse"]),
)
def test_chunks_are_parts_of_groups_with_evenly_spread_positives(
    rows: list[tuple[int, bool]], group_size: int, loss: str
) -> None:
    given_group, label = (np.array(column) for column in zip(*rows, strict=True))
    group = np.unique(given_group, return_inverse=True)[1]
    chunk = group_chunks(group, label, group_size=group_size, loss=loss, seed=0)
    assert set(chunk) - {-1} == set(range(chunk.max() + 1))
    assert np.bincount(chunk[chunk >= 0]).max() <= group_size
    assert label[chunk < 0].sum() == 0  # all positives are in a chunk
    for g in range(group.max() + 1):
        mine = chunk[(group == g) & (chunk >= 0)]
        assert not set(mine) & set(chunk[group != g])
        n_positives = [int(label[chunk == u].sum()) for u in set(mine)]
        assert max(n_positives) - min(n_positives) <= 1
        fewest = -(-int((group == g).sum()) // group_size)
        if loss == "softmax":
            assert len(n_positives) == min(fewest, max(sum(n_positives), 1))
            largest = len(n_positives) * group_size
            assert len(mine) == min(int((group == g).sum()), largest)
        else:
            assert len(mine) == (group == g).sum()
        if loss == "margin_mse":
            assert len(n_positives) == fewest


def test_a_chunk_of_a_pointwise_loss_is_a_positive_and_its_part_of_the_negatives() -> None:
    label = np.array([1, 0, 0, 0] * 3)
    chunk = group_chunks(np.zeros(12, dtype=np.int64), label, group_size=32, loss="bce", seed=0)
    assert np.bincount(chunk).tolist() == [4, 4, 4]
    assert np.bincount(chunk, weights=label).tolist() == [1, 1, 1]


@pytest.mark.parametrize("loss", ["softmax", "listnet", "plistmle", "ranknet", "lambdaloss"])
def test_every_chunk_has_a_positive_if_the_loss_compares_labels(loss: str) -> None:
    label = np.array([0] * 60 + [1] + [0] * 36)
    chunk = group_chunks(np.zeros(97, dtype=np.int64), label, group_size=32, loss=loss, seed=0)
    assert [int((chunk == u).sum()) for u in (-1, 0)] == [65, 32]
    assert chunk[60] == 0
    other = group_chunks(np.zeros(97, dtype=np.int64), label, group_size=32, loss=loss, seed=1)
    assert (chunk != other).any()  # the negatives to leave out are drawn with the seed


def written(tmp_path: Path, **columns: list[object]) -> Path:
    path = tmp_path / "pairs.parquet"
    default = {"user_ctx": ["r", "r", "s"], "book_text": ["a", "b", "a"], "label": [1, 0, 1]}
    pd.DataFrame(default | columns).to_parquet(path)
    return path


@pytest.mark.slow
def test_texts_are_tokenised_once_and_users_with_the_same_context_are_two_groups(
    tmp_path: Path,
) -> None:
    path = written(tmp_path, user_ctx=["r", "r", "r"], user_id=["u", "u", "v"])
    dataset = read(path, load(TINY), TrainerConfig())
    assert (len(dataset.contexts), len(dataset.books)) == (1, 2)
    assert dataset.group.tolist() == [0, 0, 1]
    assert dataset.length.tolist() == [5, 5, 5]  # [CLS] r [SEP] a [SEP]
    assert dataset.target.tolist() == [1, 0, 1]


@pytest.mark.slow
def test_a_folder_of_part_files_gives_the_same_dataset_as_one_file(tmp_path: Path) -> None:
    path, folder = written(tmp_path), tmp_path / "parts"
    folder.mkdir()
    frame = pd.read_parquet(path)
    for name, rows in (("part-0", frame[:2]), ("part-1", frame[2:])):
        rows.to_parquet(folder / f"{name}.parquet")
    one, parts = (read(p, load(TINY), TrainerConfig()) for p in (path, folder))
    assert parts.group.tolist() == one.group.tolist()
    assert parts.candidate.tolist() == one.candidate.tolist()
    assert parts.target.tolist() == one.target.tolist()


@pytest.mark.slow
def test_negatives_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = written(tmp_path, user_ctx=["r"] * 6, book_text=list("abcdef"), label=[0, 0, 0, 1, 0, 0])
    dataset = read(path, load(TINY), TrainerConfig(loss="softmax", group_size=4))
    assert (len(dataset.target), dataset.n_left_out) == (4, 2)
    assert len(dataset.query) == len(dataset.candidate) == len(dataset.length) == 4
    assert dataset.target.tolist().count(1) == 1


@pytest.mark.slow
def test_softmax_accepts_graded_labels(tmp_path: Path) -> None:
    dataset = read(written(tmp_path, label=[5, 1, 0]), load(TINY), TrainerConfig(loss="softmax"))
    assert dataset.target.tolist() == [5, 1, 0]


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
        ({}, "mse", r"has no column score; .* Set trainer\.teacher, whose scores it holds"),
        ({"score": [0.5, float("inf"), 0.0]}, "mse", "score of row 1 is inf"),
        (
            {"label": [1, 1, 0]},
            "softmax",
            "no group of pairs .* so trainer.loss=softmax has nothing to compare",
        ),
    ],
)
def test_unsuitable_pairs_are_rejected(
    tmp_path: Path, columns: dict[str, list[object]], loss: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        read(written(tmp_path, **columns), load(TINY), TrainerConfig(loss=loss))
