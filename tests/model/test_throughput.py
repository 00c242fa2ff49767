"""Tests of FLOPs against PyTorch's counter, and of speeds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from reranker.config import ModelConfig
from reranker.model import Batch, load
from reranker.model.throughput import Cost, Work
from tests.helpers import hub


def test_speeds_are_work_over_time() -> None:
    work = Work(n_pairs=10, n_tokens=600, n_rows=800, flops=3e6, seconds=1) + Work(seconds=1)
    assert work.speeds(peak=1e7) == {
        "pairs_per_s": 5.0,
        "tokens_per_s": 300.0,
        "padding_fraction": 0.25,
        "gemm_peak_fraction": 0.15,
    }


def test_shared_contexts_give_no_negative_padding() -> None:
    work = Work(n_pairs=4, n_tokens=900, n_rows=500, seconds=1)
    assert work.speeds(peak=1)["padding_fraction"] == 0.0
    assert Work().speeds(peak=1)["padding_fraction"] == 0.0


def test_a_bert_layer_takes_24_hidden_squared_per_token_and_4_hidden_per_query_and_key() -> None:
    hidden, lengths = 16, np.array([3, 5])
    batch = Batch(
        *[np.zeros(8, dtype=np.int64)] * 3,
        np.array([0, 3, 8]),
        np.array([-1, -1]),
        np.array([0, 1]),
    )
    cost = Cost(n_layers=2, hidden=hidden, n_weights=2 * 12 * hidden**2)
    layer = 24 * hidden**2 * 8 + 4 * hidden * (lengths**2).sum()
    assert cost.flops(batch, last_layer=True) == 2 * layer
    last = 2 * 2 * hidden**2 * 8 + 20 * hidden**2 * 2 + 4 * hidden * lengths.sum()
    assert cost.flops(batch, last_layer=False) == layer + last


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_flops_equal_torchs_and_a_step_takes_three_times_a_forward(
    attention: str, tmp_path: Path
) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    folder = hub.write_both(tmp_path)[hub.pinned("minilm")]
    encoder = load(ModelConfig(source="path", path=str(folder), max_length=48, attention=attention))
    queries = encoder.tokenise(["a b c d", "x" * 30])
    candidates = encoder.tokenise(["e", "f g", "h" * 40])
    batch = encoder.assemble(queries, candidates, np.array([0, 0, 1, 1]), np.array([0, 1, 1, 2]))
    hidden = encoder.model[0].model.config.hidden_size
    # Pooler and classifier of four pairs, which `cost` does not count.
    head = 4 * (2 * hidden**2 + 2 * hidden)
    with FlopCounterMode(display=False) as counter:
        logits = encoder.logits(batch)
    assert encoder.cost(batch) == (batch.n_tokens, counter.get_total_flops() - head)
    with FlopCounterMode(display=False) as counter:
        logits.sum().backward()
    assert counter.get_total_flops() - 2 * head == 2 * encoder.cost(batch)[1]


@pytest.mark.slow
def test_scoring_measures_its_work() -> None:
    encoder = load(ModelConfig(name="tiny", source="random", max_length=32))
    encoder.score(["ab", "ab"], ["c", "def"])
    work = encoder.take_work()
    n_tokens = 2 * (2 + 3) + 1 + 3
    assert (work.n_pairs, work.n_tokens, work.n_rows) == (2, n_tokens, n_tokens)
    assert work.flops > 0 < work.seconds


@pytest.mark.slow
def test_work_adds_up_over_calls_until_it_is_taken() -> None:
    encoder = load(ModelConfig(name="tiny", source="random", max_length=32))
    assert encoder.take_work() == Work()
    encoder.score(["ab"], ["c"])
    first = encoder.work
    encoder.score(["ab", "ab"], ["c", "def"])
    both = encoder.take_work()
    assert (both.n_pairs, both.n_tokens) == (3, first.n_tokens + 2 * (2 + 3) + 1 + 3)
    assert both.flops > first.flops > 0
    assert encoder.take_work() == Work()
