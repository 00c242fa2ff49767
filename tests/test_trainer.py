"""Fine-tuning learns what the pairs say, keeps the best checkpoint, and gives the same weights twice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.config import ModelConfig, TrainerConfig
from reranker.model import Encoder, load
from reranker.trainer import fit

pytestmark = pytest.mark.slow
TINY = ModelConfig(name="tiny", source="random", max_length=32)
CFG = TrainerConfig(epochs=6, batch_size=16, learning_rate=3e-3, n_evaluations=3, log_steps=5)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """The label is 1 where the candidate starts with `a`, 0 where it starts with `z`."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    text = ["az"[1 - y] + "qwxyz"[i % 5] for i, y in enumerate(label)]
    path = tmp_path / "pairs.parquet"
    pd.DataFrame({"user_ctx": "reader", "book_text": text, "label": label.astype(np.int8)}).to_parquet(path)
    return path


def margin(encoder: Encoder) -> float:
    a, z = encoder.score(["reader"] * 2, ["ak", "zk"])
    return float(a - z)


def test_fine_tuning_learns_and_reports(pairs: Path) -> None:
    encoder = load(TINY)
    logged: list[tuple[dict[str, Any], int]] = []
    history = fit(encoder, pairs, lambda: margin(encoder), CFG, lambda logs, step: logged.append((logs, step)))
    assert margin(encoder) > 4  # logits; a positive is e^4 times as likely as a negative
    losses = [row["loss"] for row in history.logs if "loss" in row]
    assert losses[-1] < 0.2 < 0.5 < losses[0]
    assert history.n_steps == 78  # 6 epochs of 200 / 16 rounded up
    assert [step for logs, step in logged if "dev_ndcg_10" in logs] == [26, 52, 78]
    assert {"loss", "learning_rate", "grad_norm"} <= set(logged[0][0])
    assert history.pairs_per_s > 0


def test_the_best_checkpoint_is_kept_not_the_last(pairs: Path) -> None:
    encoder = load(TINY)
    margins: list[float] = []

    def score_dev() -> float:
        margins.append(margin(encoder))
        return [0.2, 0.9, 0.5][len(margins) - 1]

    history = fit(encoder, pairs, score_dev, CFG, lambda logs, step: None)
    assert (history.best_step, history.best_dev) == (52, 0.9)
    assert margin(encoder) == pytest.approx(margins[1], abs=1e-5)
    assert margins[1] != pytest.approx(margins[2], abs=1e-3)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(pairs: Path) -> None:
    margins = []
    for seed in (0, 0, 1):
        encoder = load(TINY)
        fit(encoder, pairs, lambda: 0.5, TrainerConfig(max_steps=8, seed=seed), lambda logs, step: None)
        margins.append(margin(encoder))
    assert margins[0] == margins[1] != margins[2]


def test_max_steps_takes_the_place_of_epochs(pairs: Path) -> None:
    encoder = load(TINY)
    history = fit(encoder, pairs, lambda: 0.5, TrainerConfig(epochs=9, max_steps=3), lambda logs, step: None)
    assert history.n_steps == 3
