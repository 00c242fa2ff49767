"""Runs, sweeps and evaluations by hand, and what the store kept of them."""

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
    return Config(
        data=DataConfig(name="demo", world=WorldConfig()),
        model=ModelConfig(name="tiny", source="random"),
        tracking=TrackingConfig(uri=uri, experiment=experiment),
        cache_dir="outputs/cache",
    )


def evaluation() -> Evaluation:
    """Two list kinds, three scorers, four users, of whom the last has no positives; each value by hand."""
    users, summary, curve, lift = [], [], [], []
    for kind, easier in (("uniform", 0.0), ("popularity", -0.1)):
        for scorer, base in (("random", 0.2), ("bm25", 0.4), ("fine_tuned", 0.6)):
            values = np.array([base - 0.1, base, base + 0.1, np.nan]) + easier
            row = {"scorer": scorer, "kind": kind}
            users.append(
                pd.DataFrame(
                    {**row, "user_id": list("abcd"), "n_candidates": 20, "ndcg_10": values}
                )
            )
            means = {"n_users": 4, "n_without_positives": 1, "ndcg_10": base + easier, "auc": 0.5}
            ends = {"ndcg_10_low": base + easier - 0.1, "ndcg_10_high": base + easier + 0.1}
            summary.append(row | means | ends)
            k = np.arange(1, 21)
            curve.append(pd.DataFrame({**row, "k": k, "ndcg": (base + easier) * k / 20}))
        for over, value in (("random", 0.4), ("bm25", 0.2)):
            end = {"low": value - 0.05, "high": value + 0.05}
            lift.append(
                {
                    "kind": kind,
                    "model": "fine_tuned",
                    "over": over,
                    "is_best": over == "bm25",
                    "lift": value,
                }
                | end
            )
    return Evaluation(
        pd.concat(users, ignore_index=True),
        pd.DataFrame(summary),
        pd.concat(curve, ignore_index=True),
        pd.DataFrame(lift),
    )


def checked() -> Evaluation:
    """`evaluation()` with the fused model, checks, slices (a bin of one user among them) and calibration."""
    e = evaluation()
    row = {"scorer": "fine_tuned", "kind": "uniform"}
    bins = [
        ("history_length", "2-3", 2, 3),
        ("history_length", "4-7", 4, 1),
        ("cold_books", "yes", 1, 3),
    ]
    slices = [
        {
            "scorer": scorer,
            "kind": "uniform",
            "slice": name,
            "bin": text,
            "step": step,
            "n_users": n,
            "ndcg_10": value,
        }
        | {
            "low": value - 0.1 if n > 1 else math.nan,
            "high": value + 0.1 if n > 1 else math.nan,
            "chance": 0.2,
        }
        for scorer, value in (("bm25", 0.4), ("fine_tuned", 0.6))
        for name, text, step, n in bins
    ]
    check = {
        "kind": "uniform",
        "check": "shuffled_contexts",
        "metric": "ndcg_10",
        "value": 0.5,
        "own_value": 0.6,
    }
    return dataclasses.replace(
        e,
        lift=pd.concat(
            [e.lift, e.lift.assign(model="fused", lift=-0.2, low=-0.3, high=-0.1)],
            ignore_index=True,
        ),
        bands=pd.DataFrame({**row, "k": np.arange(1, 21), "low": 0.1, "high": 0.7}),
        checks=pd.DataFrame([{**check, "gap": 0.1, "low": 0.05, "high": 0.15}]),
        slices=pd.DataFrame(slices),
        calibration=pd.DataFrame(
            {
                "kind": "uniform",
                "bin": [1, 2],
                "mean_probability": [0.1, 0.8],
                "positive_fraction": [0.0, 0.4],
            }
        ),
        depth=pd.DataFrame(
            {"scorer": ["fine_tuned", "fused"], "depth": [10, 100], "ndcg_10": [0.3, 0.4]}
        ),
        chance=pd.DataFrame({"kind": ["uniform"], "ndcg_10": [0.2], "map": [0.1]}),
        warnings=("uniform lists: collapse: of the scores",),
    )


def of_one_user() -> Evaluation:
    """`evaluation()` with user b alone: the means stay, and there are no intervals."""
    e = evaluation()
    ends = {"ndcg_10_low": math.nan, "ndcg_10_high": math.nan}
    users = e.per_user[e.per_user["user_id"] == "b"]
    return Evaluation(
        users,
        e.summary.assign(n_users=1, **ends),
        e.curve,
        e.lift.assign(low=math.nan, high=math.nan),
    )


def found(cfg: Config) -> tuple[MlflowClient, list[Run]]:
    """The runs of the config's experiment, oldest first."""
    client, experiment_id = store.open_store(cfg.tracking)
    return client, list(client.search_runs([experiment_id], order_by=["attributes.start_time ASC"]))


def artifacts(cfg: Config, run_id: str) -> Path:
    client, _ = store.open_store(cfg.tracking)
    return Path(client.download_artifacts(run_id, ""))


def account(run_dir: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return read


PROGRAM = """
import os, sys, time
from pathlib import Path
from reranker.config import Config, DataConfig, ModelConfig, TrackingConfig
from reranker.tracking import start
cfg = Config(data=DataConfig(name="demo"), model=ModelConfig(name="tiny", source="random"),
             tracking=TrackingConfig(uri=sys.argv[1], experiment=sys.argv[2]), cache_dir="cache")
with start(cfg, Path(sys.argv[3])) as log:
    log.metric("value", int(sys.argv[4]))
    print("inside", flush=True)
    time.sleep(float(sys.argv[5]))
"""


def program(cfg: Config, run_dir: Path, number: int, wait_s: float) -> subprocess.Popen[str]:
    given = [cfg.tracking.uri, cfg.tracking.experiment, str(run_dir), str(number), str(wait_s)]
    command = [sys.executable, "-c", textwrap.dedent(PROGRAM), *given]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )


def child(
    cfg: Config, folder: Path, values: list[float], error: BaseException | None = None
) -> str:
    ids: list[str] = []
    try:
        with start(cfg, folder / str(time.monotonic_ns())) as log:
            ids.append(log.run_id)
            for step, value in enumerate(values):
                log.metric("dev/ndcg_10", value, step)
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    return ids[0]
