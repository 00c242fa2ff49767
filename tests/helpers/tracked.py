"""Configs, evaluations and runs for tests of tracking, and functions that read logged runs."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reranker.config import ROOT, Config, DataConfig, ModelConfig, TrackingConfig, WorldConfig
from reranker.eval import Evaluation
from reranker.tracking import store
from reranker.tracking.lifecycle import start

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

SECRET = "hunter2canary"
SECRET_URI = f"postgresql://me:{SECRET}@db.example/runs"


def config(uri: str = "sqlite:////nowhere/mlflow.db", experiment: str = "reranker") -> Config:
    """Return a config with the demo data and a random model."""
    return Config(
        data=DataConfig(name="demo", world=WorldConfig()),
        model=ModelConfig(name="tiny", source="random"),
        tracking=TrackingConfig(uri=uri, experiment=experiment),
        cache_dir="outputs/cache",
    )


def evaluation() -> Evaluation:
    """Return an evaluation of three scorers on two list kinds.

    It has four users, the last of them without positives. The values are set by hand.
    """
    users, summary, curve, lift = [], [], [], []
    for kind, easier in (("uniform", 0.0), ("popularity", -0.1)):
        for scorer, base in (("random", 0.2), ("bm25", 0.4), ("fine_tuned", 0.6)):
            mean = base + easier
            row = {"scorer": scorer, "kind": kind}
            user = {**row, "user_id": list("abcd"), "n_candidates": 20}
            values = np.array([mean - 0.1, mean, mean + 0.1, np.nan])
            users.append(pd.DataFrame({**user, "ndcg_10": values}))
            means = {"n_users": 4, "n_without_positives": 1, "ndcg_10": mean, "auc": 0.5}
            ends = {"ndcg_10_low": mean - 0.1, "ndcg_10_high": mean + 0.1}
            summary.append(row | means | ends)
            k = np.arange(1, 21)
            curve.append(pd.DataFrame({**row, "k": k, "ndcg": mean * k / 20, "map": mean * k / 40}))
        for over, value in (("random", 0.4), ("bm25", 0.2)):
            row = {"kind": kind, "model": "fine_tuned", "over": over, "is_best": over == "bm25"}
            lift.append({**row, "lift": value, "low": value - 0.05, "high": value + 0.05})
    return Evaluation(
        pd.concat(users, ignore_index=True),
        pd.DataFrame(summary),
        pd.concat(curve, ignore_index=True),
        pd.DataFrame(lift),
    )


def full_evaluation() -> Evaluation:
    """Return `evaluation()` with a fused model, checks, slices, calibration and a warning.

    One bin of the slices has a single user.
    """
    e = evaluation()
    fused_lift = e.lift.assign(model="fused", lift=-0.2, low=-0.3, high=-0.1)
    band = {"scorer": "fine_tuned", "kind": "uniform", "low": 0.1, "high": 0.7}
    check = {"kind": "uniform", "check": "shuffled_contexts", "metric": "ndcg_10"}
    values = {"value": 0.5, "own_value": 0.6, "gap": 0.1, "low": 0.05, "high": 0.15}
    calibration = {"mean_probability": [0.1, 0.8], "positive_fraction": [0.0, 0.4]}
    return dataclasses.replace(
        e,
        lift=pd.concat([e.lift, fused_lift], ignore_index=True),
        bands=pd.DataFrame({**band, "k": np.arange(1, 21)}),
        checks=pd.DataFrame([{**check, **values}]),
        slices=pd.DataFrame(_slices()),
        calibration=pd.DataFrame({"kind": "uniform", "bin": [1, 2], **calibration}),
        depth=pd.DataFrame(
            {"scorer": ["fine_tuned", "fused"], "depth": [10, 100], "ndcg_10": [0.3, 0.4]}
        ),
        chance=pd.DataFrame({"kind": ["uniform"], "ndcg_10": [0.2], "map": [0.1]}),
        warnings=("uniform lists: collapse: of the scores",),
    )


def _slices() -> list[dict[str, Any]]:
    bins = [
        ("history_length", "2-3", 2, 3),
        ("history_length", "4-7", 4, 1),
        ("cold_books", "yes", 1, 3),
    ]
    rows: list[dict[str, Any]] = []
    for scorer, value in (("bm25", 0.4), ("fine_tuned", 0.6)):
        for name, text, step, n_users in bins:
            row = {"scorer": scorer, "kind": "uniform", "slice": name, "bin": text, "step": step}
            row |= {"n_users": n_users, "ndcg_10": value, "chance": 0.2}
            half = 0.1 if n_users > 1 else math.nan
            rows.append({**row, "low": value - half, "high": value + half})
    return rows


def one_user_evaluation() -> Evaluation:
    """Return `evaluation()` with user b only: the same means, without intervals."""
    e = evaluation()
    return Evaluation(
        e.per_user[e.per_user["user_id"] == "b"],
        e.summary.assign(n_users=1, ndcg_10_low=math.nan, ndcg_10_high=math.nan),
        e.curve,
        e.lift.assign(low=math.nan, high=math.nan),
    )


def find_runs(cfg: Config) -> tuple[MlflowClient, list[Run]]:
    """Return a client and the runs of the config's experiment, oldest first."""
    client, experiment_id = store.open_store(cfg.tracking)
    return client, list(client.search_runs([experiment_id], order_by=["attributes.start_time ASC"]))


def artifacts(cfg: Config, run_id: str) -> Path:
    """Return the folder of a run's artifacts."""
    client, _ = store.open_store(cfg.tracking)
    return Path(client.download_artifacts(run_id, ""))


def read_result(run_dir: Path) -> dict[str, Any]:
    """Return the content of `result.json`."""
    result: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return result


PROGRAM = """
import os, sys, time
from pathlib import Path
from reranker.config import Config, DataConfig, ModelConfig, TrackingConfig
from reranker.tracking import start
cfg = Config(data=DataConfig(name="demo"), model=ModelConfig(name="tiny", source="random"),
             tracking=TrackingConfig(uri=sys.argv[1], experiment=sys.argv[2]), cache_dir="cache")
with start(cfg, Path(sys.argv[3])) as log:
    log.metrics({"value": int(sys.argv[4])})
    print("inside", flush=True)
    time.sleep(float(sys.argv[5]))
"""


def start_program(cfg: Config, run_dir: Path, number: int, wait_s: float) -> subprocess.Popen[str]:
    """Start a process that logs a number in a separate run and then waits in that run."""
    args = [cfg.tracking.uri, cfg.tracking.experiment, str(run_dir), str(number), str(wait_s)]
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), *args]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def log_run(
    cfg: Config, folder: Path, values: list[float], error: BaseException | None = None
) -> str:
    """Log dev/ndcg_10 values in a run, end it with the error if there is one; return its id."""
    ids: list[str] = []
    try:
        with start(cfg, folder / str(time.monotonic_ns())) as log:
            ids.append(log.run_id)
            for step, value in enumerate(values):
                log.metrics({"dev/ndcg_10": value}, step)
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    return ids[0]
