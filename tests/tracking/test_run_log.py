"""RunLog writes the same results to MLflow and to result.json."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from rich.console import Console

from reranker.cache import digest, digest_file
from reranker.config import Config, TrainerConfig
from reranker.config.schema import added_defaults
from reranker.model.throughput import Work
from reranker.model.weights import Weights
from reranker.tracking.lifecycle import start
from reranker.tracking.metric_names import curve_points, evaluation_metrics
from reranker.tracking.run_log import RunLog
from reranker.trainer import History
from tests.helpers.tracked import (
    artifacts,
    config,
    evaluation,
    find_runs,
    full_evaluation,
    read_result,
)


@dataclasses.dataclass(frozen=True)
class Made:
    """A result of a stage."""

    digest: str
    counts: dict[str, Any]
    hit: bool


PAIRS = Made("ab" * 32, {"out": np.int64(12), "dropped": {"few": 3}}, True)


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_shows_a_stage_from_its_start_other_outputs_at_its_end(
    tmp_path: Path, terminal: bool
) -> None:
    log = RunLog(None, "run", config(), run_dir=tmp_path, environment={})
    log.console = Console(
        file=io.StringIO(), force_terminal=terminal, force_interactive=terminal, highlight=False
    )
    with log.timed("pairs"):
        assert log.console.file.getvalue() == ("pairs …\r" if terminal else "")
    assert re.fullmatch(
        r"pairs … \d\.\d s\n", log.console.file.getvalue().removeprefix("pairs …\r")
    )


@pytest.mark.slow
def test_a_finished_run_writes_its_results(
    run_cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text(
        "- sampling.neg_ratio=5\n- tracking.experiment=x\n"
    )
    with start(run_cfg, tmp_path) as log:
        assert log.stage("pairs", lambda: PAIRS) is PAIRS
        log.metrics({"test/ndcg_10": np.float64(0.5)})
    result = read_result(tmp_path)
    assert (result["status"], result["error"], result["run_id"]) == ("FINISHED", None, log.run_id)
    assert result["overrides"] == ["sampling.neg_ratio=5", "tracking.experiment=x"]
    assert result["metrics"] == {"test/ndcg_10": 0.5}
    assert result["counts"] == {"pairs/out": 12, "pairs/dropped/few": 3}
    assert (result["hashes"]["pairs"], result["cache_hits"]) == ("ab" * 32, {"pairs": True})
    assert {"versions", "machine", "git_commit", "seconds", "skipped_metrics"} <= set(result)
    assert re.search(r"^pairs … \d\.\d s$", capsys.readouterr().out, re.MULTILINE)

    client, [made] = find_runs(run_cfg)
    assert (made.info.status, made.info.run_name) == ("FINISHED", "tiny demo sampling.neg_ratio=5")
    assert made.data.params["sampling.neg_ratio"] == "3"
    assert made.data.tags["hash.pairs"] == "ab" * 32
    assert made.data.metrics["time/pairs_s"] == pytest.approx(result["seconds"]["pairs"])
    kept = artifacts(run_cfg, log.run_id)
    assert json.loads((kept / "result.json").read_text()) == result
    assert yaml.safe_load((kept / "config.yaml").read_text())["sampling"]["neg_ratio"] == 3
    assert client.get_experiment(made.info.experiment_id).artifact_location.endswith(
        f"a%20st%C3%B6re0/mlruns/artifacts/{run_cfg.tracking.experiment}"
    )


@pytest.mark.slow
def test_the_config_hash_covers_only_what_decides_the_result(
    run_cfg: Config, tmp_path: Path
) -> None:
    def config_hash(name: str) -> str:
        with start(run_cfg, tmp_path / name):
            pass
        return str(read_result(tmp_path / name)["hashes"]["config"])

    first = config_hash("first")
    run_cfg.cache_dir, run_cfg.engine.n_partitions, run_cfg.tracking.alias = "elsewhere", 9, "other"
    assert config_hash("moved") == first
    run_cfg.sampling.neg_ratio = 5
    assert config_hash("another") != first


def test_a_key_that_was_added_later_changes_no_digest_until_it_is_set() -> None:
    """Reference: the digest of the plain values without the key."""
    cfg = TrainerConfig()
    before = {
        k: v for k, v in dataclasses.asdict(cfg).items() if f"trainer.{k}" not in added_defaults()
    }
    assert set(before) < set(dataclasses.asdict(cfg))
    assert digest({"trainer": cfg}) == digest({"trainer": before})
    assert digest(dataclasses.replace(cfg, evaluation_steps=5)) == digest(
        before | {"evaluation_steps": 5}
    )


@pytest.mark.slow
def test_metrics_that_are_not_finite_are_skipped_and_named(
    run_cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(run_cfg, tmp_path) as log:
        log.metrics({"test/auc": math.nan, "test/map": 0.25, "test/ap": math.inf})
        log.metrics({"test/auc": math.nan})
    assert read_result(tmp_path)["metrics"] == {"test/map": 0.25}
    assert read_result(tmp_path)["skipped_metrics"] == ["test/auc", "test/ap"]
    assert "warning: not finite, so not logged: test/auc, test/ap\n" in capsys.readouterr().out
    _, [made] = find_runs(run_cfg)
    assert set(made.data.metrics) == {"test/map"}


@pytest.mark.slow
def test_the_trainers_logs_become_stepped_metrics(
    run_cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = {"dev_map": 0.3, "dev_auc": 0.7, "dev_accuracy": 0.9, "dev_majority_share": 0.8}
    logs = [{"step": 10, "loss": 0.7}, {"step": 10, "dev_ndcg_10": 0.4, **others}]
    with start(run_cfg, tmp_path) as log:
        log.training_metrics({"loss": 0.7, "learning_rate": 1e-4}, 10)
        log.training_metrics({"dev_ndcg_10": 0.4, **others}, 10)
        log.training_metrics({"dev_ndcg_10": 0.3}, 20)
        # More points than MLflow takes in one call.
        log.points.log(log._finite(("many", float(i), i) for i in range(2500)))
        log.history(History(logs=logs, best_step=10, best_dev=0.4))
    assert "dev lists at step 10: NDCG@10 0.400, MAP 0.300, AUC 0.700, accuracy 0.900 (" in (
        capsys.readouterr().out
    )
    client, [made] = find_runs(run_cfg)
    points = client.get_metric_history(log.run_id, "dev/ndcg_10")
    assert [(p.step, p.value) for p in points] == [(10, 0.4), (20, 0.3)]
    assert len(client.get_metric_history(log.run_id, "many")) == 2500
    assert {"train/loss", "train/learning_rate", "dev/ndcg_10"} <= set(made.data.metrics)
    assert {"dev/map", "dev/auc", "dev/accuracy", "dev/majority_share"} <= set(made.data.metrics)


@pytest.mark.slow
def test_an_evaluation_is_logged_as_metrics_curves_and_rows(
    run_cfg: Config, tmp_path: Path
) -> None:
    run_cfg.eval.list_kinds = ["uniform", "popularity"]
    with start(run_cfg, tmp_path) as log:
        log.console = Console(file=io.StringIO(), markup=False)
        log.evaluation(full_evaluation())
    client, [made] = find_runs(run_cfg)
    expected = evaluation_metrics(full_evaluation(), "uniform")
    points = {p[0] for p in curve_points(full_evaluation(), "uniform")}
    assert {k: v for k, v in made.data.metrics.items() if k not in points} == pytest.approx(
        expected
    )
    assert "warning: uniform lists: collapse: of the scores" in log.console.file.getvalue()
    assert made.data.tags["warnings"] == "uniform lists: collapse: of the scores"
    by_length = client.get_metric_history(log.run_id, "slice/history_length/ndcg_10")
    assert [(p.step, p.value) for p in by_length] == [(2, 0.6), (4, 0.6)]
    [dataset] = made.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.tags[0].value) == ("per_user", "evaluation")
    assert dataset.dataset.digest == digest_file(tmp_path / "per_user.parquet")[:36]
    assert read_result(tmp_path)["metrics"] == pytest.approx(expected)
    curve = client.get_metric_history(log.run_id, "baseline/bm25/popularity/ndcg_by_k")
    assert [(p.step, p.value) for p in curve] == [
        (k, pytest.approx(0.3 * k / 20)) for k in range(1, 21)
    ]
    kept = artifacts(run_cfg, log.run_id)
    pd.testing.assert_frame_equal(pd.read_parquet(kept / "per_user.parquet"), evaluation().per_user)


@pytest.mark.slow
def test_inputs_are_logged_by_name_and_content_digest(run_cfg: Config, tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_ctx": ["likes"], "label": [1]})
    with start(run_cfg, tmp_path) as log:
        log.dataset(frame, "pairs", context="training", digest="cd" * 32)
        log.dataset(tmp_path / "books.parquet", "tables", context="source", digest="ef" * 32)
    _, [made] = find_runs(run_cfg)
    inputs = {i.dataset.name: i for i in made.inputs.dataset_inputs}
    assert {n: i.dataset.digest for n, i in inputs.items()} == {
        "pairs": "cd" * 18,
        "tables": "ef" * 18,
    }
    assert [t.value for t in inputs["tables"].tags] == ["source"]
    assert str(tmp_path / "books.parquet") in inputs["tables"].dataset.source


class Encoder:
    """Reports the work of one stage, and none afterwards."""

    new_head, scores_in_bf16 = False, False

    def __init__(self) -> None:
        self.work = Work()

    def score(self) -> None:
        self.work += Work(n_pairs=4, n_tokens=30, n_rows=40, flops=8, seconds=2)

    def take_work(self) -> Work:
        work, self.work = self.work, Work()
        return work

    def gemm_flops_per_s(self, *, bf16: bool) -> float:
        return 16.0


@pytest.mark.slow
def test_a_stage_logs_the_speed_of_the_scoring_in_it(run_cfg: Config, tmp_path: Path) -> None:
    encoder = Encoder()
    weights = Weights(folder=tmp_path, description="random seed 0", sha256="ef" * 32)
    with start(run_cfg, tmp_path) as log:
        log.encoder(encoder, weights)
        log.stage("untrained", lambda: (encoder.score(), encoder.score()))
        log.stage("train", lambda: None)
    metrics = read_result(tmp_path)["metrics"]
    assert metrics == {
        "score/untrained/pairs_per_s": 2,
        "score/untrained/tokens_per_s": 15,
        "score/untrained/padding_fraction": 0.25,
        "score/untrained/gemm_peak_fraction": pytest.approx(16 / 4 / 16),
    }
    assert read_result(tmp_path)["weights"]["source"] == "random seed 0"
