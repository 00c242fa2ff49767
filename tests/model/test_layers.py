"""Tests of students that keep only some layers of a checkpoint."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model import Encoder, load
from reranker.model.layers import layer_indices
from tests.helpers import hub

QUERIES = ["liked dune", "x" * 20, "a b c", ""]
CANDIDATES = ["emma, a story", "b", "y" * 30, "it"]
WRITE: dict[str, Callable[..., None]] = {"minilm": hub.write_minilm, "bge": hub.write_bge}


@given(n_layers=st.integers(1, 48), data=st.data())
def test_layer_indices_are_evenly_spaced_from_first_to_last(
    n_layers: int, data: st.DataObject
) -> None:
    n = data.draw(st.integers(1, n_layers))
    chosen = layer_indices(n_layers, n)
    assert len(chosen) == n
    assert chosen[0] == 0
    if n > 1:
        gaps = np.diff(chosen)
        assert chosen[-1] == n_layers - 1
        assert gaps.min() >= 1
        assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(
    ("n_layers", "n", "chosen"),
    [(12, 6, [0, 2, 4, 7, 9, 11]), (6, 3, [0, 3, 5]), (6, 6, [0, 1, 2, 3, 4, 5]), (6, 1, [0])],
)
def test_layer_indices_of_half_the_layers_are_those_of_distilbert(
    n_layers: int, n: int, chosen: list[int]
) -> None:
    assert layer_indices(n_layers, n) == chosen


def at(folder: Path, **changes: Any) -> Encoder:
    return load(
        ModelConfig(name="local", source="path", path=str(folder), max_length=64, **changes)
    )


def without_layer_1(folder: Path, target: Path) -> Path:
    """Copy a checkpoint of three layers, and remove layer 1 from its file and configuration."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(folder, target)
    stored = load_file(target / "model.safetensors")
    kept = {name: value for name, value in stored.items() if ".layer.1." not in name}
    tensors = {re.sub(r"\.layer\.2\.", ".layer.1.", name): value for name, value in kept.items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    settings = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(settings | {"num_hidden_layers": 2}))
    return target


def stock_scores(folder: Path) -> np.ndarray:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

    stock = CrossEncoder(str(folder), local_files_only=True, device="cpu", max_length=64)
    pairs = list(zip(QUERIES, CANDIDATES, strict=True))
    return np.asarray(
        stock.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITE)
def test_a_student_scores_as_the_checkpoint_without_the_other_layers(
    name: str, tmp_path: Path
) -> None:
    WRITE[name](tmp_path / "complete", n_layers=3)
    expected = stock_scores(without_layer_1(tmp_path / "complete", tmp_path / "edited"))
    student = at(tmp_path / "complete", layers=2)
    assert (student.n_layers, student.packed) == (2, True)
    np.testing.assert_allclose(student.score(QUERIES, CANDIDATES), expected, atol=1e-5)
    student.save(tmp_path / "saved")
    np.testing.assert_allclose(stock_scores(tmp_path / "saved"), expected, atol=1e-5)
    assert at(tmp_path / "saved").n_layers == at(tmp_path / "saved", layers=2).n_layers == 2
    assert np.abs(at(tmp_path / "complete").score(QUERIES, CANDIDATES) - expected).max() > 0.1


@pytest.mark.slow
def test_more_layers_than_the_checkpoint_has_raise(tmp_path: Path) -> None:
    hub.write_minilm(tmp_path)
    with pytest.raises(
        ModelError, match=r"model.layers=3 is above the 2 layers of .*Set model.layers to at most"
    ):
        at(tmp_path, layers=3)
