"""Two processes train like one process with the doubled batch."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist

from reranker.config import ModelConfig, TrainerConfig
from reranker.errors import DataError, ModelError
from reranker.model import Encoder, device, load
from reranker.trainer import fit, run_worker, worker
from reranker.trainer.distributed import ProcessGroup, process_group

pytestmark = pytest.mark.slow
TINY = ModelConfig(name="tiny", source="random", max_length=32, dropout=0.0)


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    rows = [
        {
            "user_ctx": f"reader {u}",
            "book_text": "az"[1 - y] + "b" * int(rng.integers(1, 20)),
            "label": y,
        }
        for u in range(24)
        for y in (1, 0, 0, 0)
    ]
    path = tmp_path / "pairs.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def trained(encoder: Encoder, pairs: Path, batch_size: int) -> dict[str, Any]:
    """Return the trace of a training, its number of evaluations, and a sum over its weights."""
    scored: list[int] = []

    def score_dev() -> dict[str, float]:
        scored.append(1)
        return {"ndcg_10": float(len(scored))}

    cfg = TrainerConfig(
        loss="softmax",
        batch_size=batch_size,
        max_steps=5,
        n_evaluations=2,
        log_steps=1,
        precision="fp32",
    )
    history = fit(encoder, pairs, score_dev, cfg=cfg)
    trace = [
        [row["step"], row["loss"], row["grad_norm"], row["spread"]]
        for row in history.logs
        if "loss" in row
    ]
    weights = sum(float(p.detach().abs().sum()) for p in encoder.model.parameters())
    return {
        "trace": trace,
        "n_scored": len(scored),
        "weights": weights,
        "best_dev": history.best_dev,
    }


def train_as_rank(rank: int, pairs: Path, rendezvous: Path) -> None:
    torch.set_num_threads(1)  # a forked process must not use its parent's threads
    encoder = load(dataclasses.replace(TINY, seed=rank))  # rank 0 broadcasts its weights
    store = f"file://{rendezvous}"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    found = trained(encoder, pairs, batch_size=8)
    pairs.with_name(f"rank {rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()
    os._exit(0)  # skip the exit handlers of pytest, which belong to the parent


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_two_processes_have_the_trace_of_one_with_the_doubled_batch(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    fork = multiprocessing.get_context("fork")  # a new interpreter takes 10 s to import torch
    rendezvous = tmp_path / "rendezvous"
    both = [fork.Process(target=train_as_rank, args=(r, pairs, rendezvous)) for r in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        process.kill()
    first, second = (json.loads((tmp_path / f"rank {rank}.json").read_text()) for rank in range(2))
    one_process = trained(load(TINY), pairs, batch_size=16)
    assert len(one_process["trace"]) == 5
    np.testing.assert_allclose(first["trace"], one_process["trace"], rtol=1e-4, atol=1e-6)
    assert second["trace"] == first["trace"]
    assert second["weights"] == first["weights"] == pytest.approx(one_process["weights"], rel=1e-5)
    assert (first["n_scored"], second["n_scored"]) == (2, 0)
    assert second["best_dev"] == first["best_dev"] == 2.0


def worker_process(rendezvous: Path, pairs: Path) -> None:
    """Run rank 1 of two; its exit status is 1 after a DataError."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=1, world_size=2)
    worker.GRACE_S = 0.1
    try:
        run_worker()
        os._exit(0)
    except DataError as error:
        pairs.with_name("error").write_text(str(error))
        os._exit(1)


@contextmanager
def running_worker(rendezvous: Path, pairs: Path) -> Iterator[Any]:
    """Yield a second process, a worker; this process is rank 0 meanwhile."""
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=worker_process, args=(rendezvous, pairs))
    process.start()
    dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=0, world_size=2)
    try:
        yield process
    finally:
        dist.destroy_process_group()
        process.join(30)
        process.kill()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_worker_computes_its_part_of_the_training(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    traces = {}
    for n, batch_size in ((1, 16), (2, 8)):
        cfg = TrainerConfig(
            batch_size=batch_size, max_steps=2, n_evaluations=1, log_steps=1, precision="fp32"
        )
        context = running_worker(tmp_path / "rendezvous", pairs) if n == 2 else nullcontext()
        with context as other:
            history = fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=cfg, model=TINY)
        traces[n] = [row["loss"] for row in history.logs if "loss" in row]
    assert other.exitcode == 0
    assert len(traces[1]) == 2
    assert traces[2] == pytest.approx(traces[1], rel=1e-4)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_unsuitable_pairs_end_both_processes(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    cfg = TrainerConfig(loss="margin_mse")
    with (
        pytest.raises(DataError, match="has no column score") as caught,
        running_worker(tmp_path / "rendezvous", pairs) as other,
    ):
        fit(load(TINY), pairs, lambda: {"ndcg_10": 0.5}, cfg=cfg, model=TINY)
    assert other.exitcode == 1
    assert pairs.with_name("error").read_text() == str(caught.value)


@pytest.mark.parametrize(
    ("name", "local", "expected"),
    [("cuda", "1", "cuda:1"), ("auto", "0", "cuda"), ("cpu", "1", "cpu")],
)
def test_each_process_of_a_machine_uses_its_own_gpu(
    name: str, local: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", local)
    assert device(name) == expected
    monkeypatch.setenv("LOCAL_RANK", "2")
    message = r"process 2 .* torch sees 2\. Start torchrun with --nproc_per_node=2"
    with pytest.raises(ModelError, match=message):
        device("cuda")


def test_without_torchrun_the_process_group_has_one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group() as processes:
        assert processes == ProcessGroup(rank=0, world_size=1)
