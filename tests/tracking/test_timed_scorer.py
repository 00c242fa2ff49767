"""A run keeps the speed of each stage's scoring."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from reranker.model.throughput import Work
from reranker.tracking.timed_scorer import Metered


class Encoder:
    scores_in_bf16 = False
    scored = Work()

    def score(self, queries: list[str], candidates: list[str], *, progress: str) -> np.ndarray:
        self.scored = Work(n_pairs=len(queries), n_tokens=30, n_rows=40, flops=8, seconds=2)
        return np.arange(len(queries), dtype=np.float32)

    def gemm_flops_per_s(self, *, bf16: bool) -> float:
        return 16.0


class Log:
    running = "untrained"

    def __init__(self) -> None:
        self.kept: dict[str, float] = {}

    def metrics(self, values: dict[str, float]) -> None:
        self.kept |= values


def test_calls_of_a_stage_add_up_and_stages_are_apart() -> None:
    log: Any = Log()
    encoder: Any = Encoder()
    score = Metered(encoder, log)
    for n_pairs in (2, 6):
        assert score(["q"] * n_pairs, ["c"] * n_pairs).tolist() == list(range(n_pairs))
    log.running = "after"
    score(["q"], ["c"])
    assert {
        name: log.kept[f"score/untrained/{name}"] for name in ("pairs_per_s", "tokens_per_s")
    } == {
        "pairs_per_s": 8 / 4,
        "tokens_per_s": 60 / 4,
    }
    assert log.kept["score/untrained/padding_fraction"] == 0.25
    assert log.kept["score/untrained/gemm_peak_fraction"] == pytest.approx(16 / 4 / 16)
    assert log.kept["score/after/pairs_per_s"] == 0.5
