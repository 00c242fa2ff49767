"""A training resumes from its own checkpoints with the same result, and rejects others."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from reranker.config import ModelConfig, TrainerConfig
from reranker.errors import TrainingError
from reranker.model import Encoder, load, precision
from reranker.trainer import fit

pytestmark = pytest.mark.slow
TINY = ModelConfig(name="tiny", source="random", max_length=32)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """The label is 1 where the candidate starts with `a`, 0 where it starts with `z`."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 200)
    text = ["az"[1 - y] + "qwxyz"[i % 5] for i, y in enumerate(label)]
    path = tmp_path / "pairs.parquet"
    pd.DataFrame(
        {"user_ctx": "reader", "book_text": text, "label": label.astype(np.int8)}
    ).to_parquet(path)
    return path


def margin(encoder: Encoder) -> float:
    a, z = encoder.score(["reader"] * 2, ["ak", "zk"])
    return float(a - z)


def trace(logs: list[dict[str, float]]) -> list[dict[str, float]]:
    """Return the logs without their measured speeds."""
    timed = ("pairs_per_s", "tokens_per_s", "gemm_peak_fraction", "runtime_s")
    return [{k: v for k, v in row.items() if k not in timed} for row in logs]


class Interrupted(Exception):
    """Raised by a test to end a training."""


@pytest.mark.parametrize("n_scored", [1, 2])
def test_an_interrupted_training_resumes_to_the_same_trace_and_weights(
    pairs: Path, tmp_path: Path, n_scored: int
) -> None:
    cfg = TrainerConfig(
        max_steps=16,
        n_evaluations=4,
        log_steps=3,
        learning_rate=3e-3,
        checkpoint_dir=str(tmp_path / "c"),
    )

    def run(
        cfg: TrainerConfig, stops_after: int = 99
    ) -> tuple[list[dict[str, float]], Encoder, list[int]]:
        encoder, logged, calls = load(TINY), [], []

        def score_dev() -> dict[str, float]:
            calls.append(1)
            if len(calls) > stops_after:
                raise Interrupted
            return {"ndcg_10": -abs(margin(encoder) - 1)}  # the best step is not the last

        history = fit(
            encoder,
            pairs,
            score_dev,
            cfg=cfg,
            on_log=lambda logs, step: logged.append({"step": step, **logs}),
        )
        assert trace(logged) == trace(history.logs)  # earlier logs are repeated
        return trace(history.logs), encoder, calls

    expected, uninterrupted, _ = run(dataclasses.replace(cfg, checkpoint_dir=None))
    with pytest.raises(Interrupted):
        run(cfg, stops_after=n_scored)
    found, resumed, calls = run(cfg)
    assert len(calls) == 4 - n_scored
    assert found == expected
    for a, b in zip(uninterrupted.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(a, b)
    again, finished, calls = run(cfg)  # nothing is left to do
    assert (again, calls) == (expected, [])
    assert margin(finished) == margin(uninterrupted)


def short(tmp_path: Path) -> TrainerConfig:
    return TrainerConfig(max_steps=1, precision="fp32", checkpoint_dir=str(tmp_path / "c"))


def train(pairs: Path, cfg: TrainerConfig, encoder: Encoder | None = None, **more: Any) -> Any:
    return fit(encoder or load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=cfg, **more)


def test_a_checkpoint_of_other_pairs_is_rejected(pairs: Path, tmp_path: Path) -> None:
    train(pairs, short(tmp_path))
    pd.read_parquet(pairs)[:-1].to_parquet(pairs)
    with pytest.raises(TrainingError, match="belongs to another training: pairs was"):
        train(pairs, short(tmp_path))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"layers": 1}, "n_layers was 2 and is 1"),
        ({"dropout": 0.5}, r"hidden_dropout_prob was 0\.1 and is 0\.5"),
    ],
)
def test_a_checkpoint_of_another_model_is_rejected(
    pairs: Path, tmp_path: Path, change: dict[str, Any], named: str
) -> None:
    train(pairs, short(tmp_path))
    with pytest.raises(TrainingError, match=rf"belongs to another training: .*{named}"):
        train(pairs, short(tmp_path), load(dataclasses.replace(TINY, **change)))


def test_a_checkpoint_of_another_new_head_is_rejected(pairs: Path, tmp_path: Path) -> None:
    encoder = load(TINY)
    encoder.new_head = True
    train(pairs, short(tmp_path), encoder)
    again = load(TINY)
    again.new_head = True
    train(pairs, short(tmp_path), again)  # the same new head resumes
    other = load(TINY)
    other.new_head = True
    torch.nn.init.zeros_(other.model.get_parameter("0.model.classifier.weight"))
    with pytest.raises(
        TrainingError, match=r"belongs to another training: head drawn with model\.seed was"
    ):
        train(pairs, short(tmp_path), other)


def test_a_checkpoint_with_other_dev_lists_is_rejected(pairs: Path, tmp_path: Path) -> None:
    train(pairs, short(tmp_path), dev_lists="a")
    with pytest.raises(
        TrainingError, match="belongs to another training: dev_lists was 'a' and is 'b'"
    ):
        train(pairs, short(tmp_path), dev_lists="b")


def test_auto_keeps_the_precision_of_its_checkpoints(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = dataclasses.replace(short(tmp_path), precision="auto")
    for faster in (False, True):  # the second trial has another result
        monkeypatch.setattr(precision, "bf16_is_faster", lambda device, faster=faster: faster)
        train(pairs, cfg)
    assert capsys.readouterr().err == f"resumed from step 1 of {cfg.checkpoint_dir}\n"
    with pytest.raises(TrainingError, match="bf16 was False and is True"):
        train(pairs, dataclasses.replace(cfg, precision="bf16"))
