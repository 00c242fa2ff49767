"""The main job under torchrun: one run, and the trace of one process with the doubled batch."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from reranker import pipeline
from tests.test_main import TIMEOUT_S, defaults, project

if TYPE_CHECKING:
    from mlflow import MlflowClient

pytestmark = [pytest.mark.long, pytest.mark.slow]
SMALL = [
    "data.world.n_books=160",
    "data.world.n_users=120",
    "data.world.mean_ratings=12",
    "model=tiny",
    "model.dropout=0",  # which is drawn by each process for itself
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.max_steps=4",
    "trainer.log_steps=1",
    "trainer.n_evaluations=2",
    "eval.n_candidates=20",
    "eval.max_users=4",
    "eval.max_dev_users=6",
    "eval.n_bootstrap=100",
    "eval.baselines=[random]",
]


def started(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """`torchrun --nproc_per_node=2 main.py ARGS` in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    where = ["--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}"]
    command = [sys.executable, "-m", "torch.distributed.run", *where, "main.py", *args]
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("HYDRA_", "MLFLOW_", "RERANKER_"))
    }
    env = clean | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )


def trace(client: MlflowClient, run_id: str, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run_id, key)]


def test_two_processes_make_one_run_with_the_trace_of_one_process_with_the_doubled_batch(
    tmp_path: Path,
) -> None:
    import mlflow

    done = started(project(tmp_path), *SMALL, "trainer.batch_size=8")
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("FINISHED") == 1
    [run_dir] = [path.parent for path in (tmp_path / "outputs").glob("*/*/.hydra")]
    assert (run_dir / "result.json").exists()
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlruns/mlflow.db")
    cfg = defaults(tmp_path, *SMALL, "trainer.batch_size=16", f"cache_dir={tmp_path}/outputs/cache")
    pipeline.run(cfg, tmp_path / "alone")
    [experiment] = [e for e in client.search_experiments() if e.name == "reranker"]
    alone, both = client.search_runs(
        [experiment.experiment_id], order_by=["attributes.start_time DESC"]
    )
    assert [run.info.status for run in (both, alone)] == ["FINISHED"] * 2
    for key, n in (("dev/ndcg_10", 2), ("train/loss", 4), ("train/grad_norm", 4)):
        found, wanted = (trace(client, run.info.run_id, key) for run in (both, alone))
        assert len(found) == n
        assert [step for step, _ in found] == [step for step, _ in wanted]
        assert [value for _, value in found] == pytest.approx(
            [value for _, value in wanted], rel=1e-4
        )
