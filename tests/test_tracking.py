"""Runs say truly how they ended, keep their whole account, and give no secret away; sweeps know their children."""

from __future__ import annotations

import dataclasses
import http.client
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import yaml
from omegaconf import OmegaConf
from rich.console import Console

from reranker.cache import Cache, digest_file
from reranker.config import ROOT, Config, DataConfig, ModelConfig, TrackingConfig, WorldConfig
from reranker.data import Contexts, Tables
from reranker.errors import ConfigError, RerankerError
from reranker.eval import Evaluation
from reranker.sampling import build_pairs
from reranker.tracking import facts, lifecycle, plots, store, sweep
from reranker.tracking.keys import curve_points, evaluation_metrics, params, trainer_key
from reranker.tracking.lifecycle import PARENT, start
from reranker.tracking.registry import Registered
from reranker.tracking.report import next_commands, report, verdict
from reranker.tracking.run import RunLog
from reranker.tracking.ui import ui
from reranker.trainer import History

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
            users.append(pd.DataFrame({**row, "user_id": list("abcd"), "n_candidates": 20, "ndcg_10": values}))
            means = {"n_users": 4, "n_without_positives": 1, "ndcg_10": base + easier, "auc": 0.5}
            ends = {"ndcg_10_low": base + easier - 0.1, "ndcg_10_high": base + easier + 0.1}
            summary.append(row | means | ends)
            k = np.arange(1, 21)
            curve.append(pd.DataFrame({**row, "k": k, "ndcg": (base + easier) * k / 20}))
        for over, value in (("random", 0.4), ("bm25", 0.2)):
            end = {"low": value - 0.05, "high": value + 0.05}
            lift.append(
                {"kind": kind, "model": "fine_tuned", "over": over, "is_best": over == "bm25", "lift": value} | end
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
    bins = [("history_length", "2-3", 2, 3), ("history_length", "4-7", 4, 1), ("cold_books", "yes", 1, 3)]
    slices = [
        {"scorer": scorer, "kind": "uniform", "slice": name, "bin": text, "step": step, "n_users": n, "ndcg_10": value}
        | {"low": value - 0.1 if n > 1 else math.nan, "high": value + 0.1 if n > 1 else math.nan, "chance": 0.2}
        for scorer, value in (("bm25", 0.4), ("fine_tuned", 0.6))
        for name, text, step, n in bins
    ]
    check = {"kind": "uniform", "check": "shuffled_contexts", "metric": "ndcg_10", "value": 0.5, "own_value": 0.6}
    return dataclasses.replace(
        e,
        lift=pd.concat([e.lift, e.lift.assign(model="fused", lift=-0.2, low=-0.3, high=-0.1)], ignore_index=True),
        bands=pd.DataFrame({**row, "k": np.arange(1, 21), "low": 0.1, "high": 0.7}),
        checks=pd.DataFrame([{**check, "gap": 0.1, "low": 0.05, "high": 0.15}]),
        slices=pd.DataFrame(slices),
        calibration=pd.DataFrame(
            {"kind": "uniform", "bin": [1, 2], "mean_probability": [0.1, 0.8], "positive_fraction": [0.0, 0.4]}
        ),
        depth=pd.DataFrame({"scorer": ["fine_tuned", "fused"], "depth": [10, 100], "ndcg_10": [0.3, 0.4]}),
        chance=pd.DataFrame({"kind": ["uniform"], "ndcg_10": [0.2], "map": [0.1]}),
        warnings=("uniform lists: collapse: of the scores",),
    )


# What needs no store


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        (SECRET_URI, "postgresql://***@db.example/runs"),
        (f"cannot reach 'https://token:{SECRET}@host:5000/x' now", "cannot reach 'https://***@host:5000/x' now"),
        (f"https://host/runs?user=me&password={SECRET}&a=1", "https://host/runs?user=me&password=***&a=1"),
        (f"postgresql://me:p@{SECRET}@db.example/runs", "postgresql://***@db.example/runs"),
        (f"postgresql://db/runs?sslmode=on&sslpassword={SECRET}", "postgresql://db/runs?sslmode=on&sslpassword=***"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("num_memory_tokens=5, mail me@example.org", "num_memory_tokens=5, mail me@example.org"),
    ],
)
def test_redaction_takes_userinfo_and_passwords_and_nothing_else(text: str, safe: str) -> None:
    assert store.redact(text) == safe


def test_the_database_of_a_uri_is_its_file() -> None:
    assert store.database("sqlite:////a b/ü/mlflow.db") == Path("/a b/ü/mlflow.db")
    assert store.database("sqlite:///mlflow.db") == Path.cwd() / "mlflow.db"
    assert store.database("http://127.0.0.1:5000") is None
    assert store.database("postgresql+psycopg2://host/runs") is None


@pytest.mark.parametrize("uri", ["mlruns", "/abs/mlruns", "sqlite://", "sqlite:///:memory:", "sqlite://host/a.db"])
def test_a_uri_that_keeps_nothing_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.uri=.*sqlite:////ABSOLUTE/FOLDER/mlflow\.db"):
        store.database(uri)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "../x", "a\x00b", "/abs", "%2e%2e"])
def test_an_experiment_name_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"tracking\.experiment="):
        store.open_store(TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db", experiment=name))
    assert list(tmp_path.iterdir()) == []


def test_the_environments_store_goes_before_the_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert store.default_uri() == f"sqlite:///{ROOT}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert store.default_uri() == "http://127.0.0.1:5000"


@pytest.mark.parametrize(
    ("key", "named"),
    [
        ("loss", "train/loss"),
        ("learning_rate", "train/learning_rate"),
        ("grad_norm", "train/grad_norm"),
        ("dev_ndcg_10", "dev/ndcg_10"),
    ],
)
def test_the_trainers_keys_become_ours(key: str, named: str) -> None:
    assert trainer_key(key) == named


def test_params_are_flat_text_with_the_weights_named() -> None:
    cfg = config()
    cfg.model = ModelConfig(name="bge", source="hub", hub_id="BAAI/bge", revision="2cfc")
    found = params(cfg)
    assert found["model.source"] == "hub BAAI/bge@2cfc"
    assert (found["sampling.neg_ratio"], found["data.max_users"], found["data.world.taste"]) == ("3", "null", "1.0")
    assert found["eval.cutoffs"] == "3,5,10"
    assert not [key for key in found if key.startswith(("tracking.", "cache_dir", "engine."))]


def test_a_long_param_is_cut_and_a_secret_one_is_masked() -> None:
    cfg = config()
    cfg.model = ModelConfig(name="x" * 7000, source="path", path=f"https://me:{SECRET}@host/weights")
    found = params(cfg)
    assert len(found["model.name"]) == 6000
    assert found["model.source"] == "path https://***@host/weights"


def test_metric_keys_name_the_scorer_and_any_kind_but_the_headline() -> None:
    found = evaluation_metrics(evaluation(), "uniform")
    assert found["test/ndcg_10"] == pytest.approx(0.6)
    assert found["test/popularity/ndcg_10"] == pytest.approx(0.5)
    assert found["baseline/bm25/ndcg_10_high"] == pytest.approx(0.5)
    assert found["baseline/random/popularity/ndcg_10"] == pytest.approx(0.1)
    assert {k: round(v, 9) for k, v in found.items() if k.startswith("lift")} == {
        "lift/ndcg_10": 0.2,
        "lift/ndcg_10_low": 0.15,
        "lift/ndcg_10_high": 0.25,
        "lift/over_bm25/ndcg_10": 0.2,
        "lift/over_bm25/ndcg_10_low": 0.15,
        "lift/over_bm25/ndcg_10_high": 0.25,
        "lift/over_random/ndcg_10": 0.4,
        "lift/over_random/ndcg_10_low": 0.35,
        "lift/over_random/ndcg_10_high": 0.45,
        "lift/popularity/ndcg_10": 0.2,
        "lift/popularity/ndcg_10_low": 0.15,
        "lift/popularity/ndcg_10_high": 0.25,
        "lift/popularity/over_bm25/ndcg_10": 0.2,
        "lift/popularity/over_bm25/ndcg_10_low": 0.15,
        "lift/popularity/over_bm25/ndcg_10_high": 0.25,
        "lift/popularity/over_random/ndcg_10": 0.4,
        "lift/popularity/over_random/ndcg_10_low": 0.35,
        "lift/popularity/over_random/ndcg_10_high": 0.45,
    }
    assert evaluation_metrics(evaluation(), "popularity")["test/ndcg_10"] == pytest.approx(0.5)


def test_every_metric_name_is_one_that_mlflow_takes() -> None:
    made = {*evaluation_metrics(checked(), "uniform"), *(p[0] for p in curve_points(checked(), "uniform"))}
    made |= {str(trainer_key(key)) for key in ("loss", "dev_ndcg_10")}
    assert [name for name in made if not re.fullmatch(r"[\w.\- :/]+", name)] == []


def test_checks_chance_and_unordered_slices_are_metrics() -> None:
    found = evaluation_metrics(checked(), "uniform")
    assert {k: v for k, v in found.items() if k.startswith(("check", "chance", "slice/cold"))} == pytest.approx(
        {
            "check/shuffled_contexts/ndcg_10": 0.5,
            "check/shuffled_contexts/gap": 0.1,
            "check/shuffled_contexts/gap_low": 0.05,
            "check/shuffled_contexts/gap_high": 0.15,
            "chance/ndcg_10": 0.2,
            "chance/map": 0.1,
            "slice/cold_books/yes/ndcg_10": 0.6,
            "slice/cold_books/yes/ndcg_10_low": 0.5,
            "slice/cold_books/yes/ndcg_10_high": 0.7,
            "slice/cold_books/yes/ndcg_10_chance": 0.2,
            "slice/cold_books/yes/n_users": 3,
        }
    )
    assert found["slice/baseline/bm25/cold_books/yes/ndcg_10"] == 0.4
    assert (found["lift/ndcg_10"], found["lift/fused/ndcg_10"]) == (0.2, -0.2)
    assert found["lift/fused/popularity/over_random/ndcg_10_high"] == -0.1
    assert "check/uniform/shuffled_contexts/gap" in evaluation_metrics(checked(), "popularity")


def test_ordered_slices_and_depths_are_points_and_one_user_has_no_interval() -> None:
    points = [p for p in curve_points(checked(), "uniform") if not p[0].endswith("ndcg_by_k")]
    own = {(key, step): value for key, value, step in points}
    assert {(k, s): v for (k, s), v in own.items() if k.startswith("slice/history")} == pytest.approx(
        {
            ("slice/history_length/ndcg_10", 2): 0.6,
            ("slice/history_length/ndcg_10_low", 2): 0.5,
            ("slice/history_length/ndcg_10_high", 2): 0.7,
            ("slice/history_length/ndcg_10_chance", 2): 0.2,
            ("slice/history_length/n_users", 2): 3,
            ("slice/history_length/ndcg_10", 4): 0.6,
            ("slice/history_length/ndcg_10_chance", 4): 0.2,
            ("slice/history_length/n_users", 4): 1,
        }
    )
    assert own["slice/baseline/bm25/history_length/ndcg_10", 4] == 0.4
    assert own["test/ndcg_10_by_depth", 10] == 0.3
    assert own["fused/ndcg_10_by_depth", 100] == 0.4


def test_curves_are_points_whose_step_is_k() -> None:
    points = curve_points(evaluation(), "uniform")
    assert [p[2] for p in points if p[0] == "baseline/bm25/ndcg_by_k"] == list(range(1, 21))
    assert ("test/ndcg_by_k", pytest.approx(0.3), 10) in points
    assert len(points) == 2 * 3 * 20


def test_sigterm_interrupts_once_and_the_old_handler_comes_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with lifecycle.interruptible():
        with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        os.kill(os.getpid(), signal.SIGTERM)  # while the run closes: ignored
    assert signal.getsignal(signal.SIGTERM) is before


def test_facts_name_versions_machine_and_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert facts.versions()["numpy"] == np.__version__
    assert facts.versions()["python"] == sys.version.split()[0]
    assert facts.machine()["n_cores"] == os.cpu_count()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)  # a developer's commit.gpgsign would ask for a key
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setattr(facts, "ROOT", tmp_path)
    assert facts.git_commit() is None
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    assert facts.git_commit() is None  # no commit yet
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    assert facts.git_commit() == head
    (tmp_path / "inside").mkdir()
    monkeypatch.setattr(facts, "ROOT", tmp_path / "inside")  # somebody else's checkout around the project
    assert facts.git_commit() is None


def test_bars_stand_at_the_values_best_on_top_with_the_chance_level() -> None:
    figure = plots.bars(evaluation())
    assert len(figure.axes) == 2
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["random (chance)", "BM25", "fine-tuned"]
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.4, 0.6])
    chance = [line for line in axis.lines if list(line.get_ydata()) == [0, 1]]
    assert [line.get_xdata()[0] for line in chance] == pytest.approx([0.2])
    assert {"0.200", "0.400", "0.600", "chance"} <= {t.get_text() for t in axis.texts}


def test_the_users_figure_steps_by_one_share_per_user_with_a_value() -> None:
    axis = plots.users(evaluation(), "uniform").axes[0]
    assert [t.get_text().split(",")[0] for t in axis.texts] == ["fine-tuned", "BM25"]
    x, y = axis.lines[0].get_data()
    assert list(np.asarray(x)) == pytest.approx([0, 0.5, 0.6, 0.7, 1])
    assert list(np.asarray(y)) == pytest.approx([0, 1 / 3, 2 / 3, 1, 1])


def test_the_training_figure_marks_the_best_dev_step() -> None:
    logs = [{"step": 1.0, "loss": 0.7}, {"step": 2.0, "dev_ndcg_10": 0.4}, {"step": 3.0, "loss": 0.5}]
    logs += [{"step": 4.0, "dev_ndcg_10": 0.6}, {"step": 6.0, "dev_ndcg_10": 0.5}]
    above, below = plots.training(logs).axes
    assert list(np.asarray(above.lines[0].get_xdata())) == [1, 3]
    assert [t.get_text() for t in below.texts] == ["best 0.600 at step 4"]


def test_every_figure_of_an_evaluation_can_be_drawn(tmp_path: Path) -> None:
    figures = plots.evaluation_figures(evaluation())
    kinds = ("uniform", "popularity")
    assert set(figures) == {"ndcg_10", *(f"ndcg_by_k_{k}" for k in kinds), *(f"users_{k}" for k in kinds)}
    for name, figure in figures.items():
        figure.savefig(tmp_path / f"{name}.png")


def test_slices_stand_with_their_support_and_chance(tmp_path: Path) -> None:
    figures = plots.evaluation_figures(checked())
    assert {"slices_uniform", "calibration_uniform"} <= set(figures) and "slices_popularity" not in figures
    [axis] = figures["slices_uniform"].axes
    labels = [t.get_text() for t in axis.get_yticklabels()]
    assert labels == ["2-3 context books, n = 3", "4-7 context books, n = 1", "cold: yes, n = 3"]
    values = [list(np.asarray(line.lines[0].get_xdata())) for line in axis.containers]
    assert values == [[0.6, 0.6, 0.6], [0.4, 0.4, 0.4]]
    figures["slices_uniform"].savefig(tmp_path / "slices.png")
    assert figures["slices_uniform"].get_suptitle().startswith("NDCG@10 by slice, uniform lists")


def test_the_calibration_curve_is_beside_the_diagonal() -> None:
    [axis] = plots.calibration(checked(), "uniform").axes
    diagonal, curve = (np.asarray(line.get_xydata()).tolist() for line in axis.lines)
    assert diagonal == [[0, 0], [1, 1]]
    assert curve == [[0.1, 0.0], [0.8, 0.4]]


def test_a_curve_has_its_band() -> None:
    [axis] = plots.curves(checked(), "uniform").axes
    [band] = axis.collections
    assert band.get_paths()[0].get_extents().extents.tolist() == pytest.approx([1, 0.1, 20, 0.7])


def of_one_user() -> Evaluation:
    """`evaluation()` with user b alone: the means stay, and there are no intervals."""
    e = evaluation()
    ends = {"ndcg_10_low": math.nan, "ndcg_10_high": math.nan}
    users = e.per_user[e.per_user["user_id"] == "b"]
    return Evaluation(users, e.summary.assign(n_users=1, **ends), e.curve, e.lift.assign(low=math.nan, high=math.nan))


def test_the_figures_of_one_user_stand_without_intervals(tmp_path: Path) -> None:
    figures = plots.evaluation_figures(of_one_user())
    figures["ndcg_10"].savefig(tmp_path / "ndcg_10.png")
    axis = figures["ndcg_10"].axes[0]
    assert axis.get_xlim() == pytest.approx((0, 0.6 * 1.16))
    assert [bar.get_width() for bar in axis.patches] == pytest.approx([0.2, 0.4, 0.6])
    assert [t.xy[0] for t in axis.texts if t.get_text() == "0.400"] == pytest.approx([0.4])


def test_every_scorer_is_named_in_the_figures_that_compare_them() -> None:
    names = {"random (chance)", "BM25", "fine-tuned"}
    figures = plots.evaluation_figures(evaluation())
    assert [{t.get_text() for t in axis.get_yticklabels()} for axis in figures["ndcg_10"].axes] == [names, names]
    for kind in ("uniform", "popularity"):
        [axis] = figures[f"ndcg_by_k_{kind}"].axes
        assert {t.get_text() for t in axis.texts} == names
        assert len(axis.lines) == len(names)


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.09, "beats"),
        (-0.09, -0.01, "loses to"),
        (-0.01, 0.05, "is not told apart from"),
        (0.0, 0.05, "is not told apart from"),
        (-0.05, 0.0, "is not told apart from"),
    ],
)
def test_the_verdict_goes_by_the_intervals_sign(low: float, high: float, word: str) -> None:
    lift = pd.DataFrame(
        {
            "model": "fine_tuned",
            "over": ["random", "bm25"],
            "is_best": [False, True],
            "lift": [0.9, (low + high) / 2],
            "low": low,
            "high": high,
        }
    )
    text = verdict(lift).replace("\\[", "[")
    assert text.startswith(f"The fine-tuned model {word} the best baseline, BM25: NDCG@10 {(low + high) / 2:+.3f} ")
    assert f"[{low:+.3f}, {high:+.3f}] (95 %" in text


def test_every_model_has_its_own_verdict() -> None:
    e = checked()
    fine_tuned, fused = verdict(e.lift[e.lift["kind"] == "uniform"]).split("\n")
    assert fine_tuned.startswith("The fine-tuned model beats the best baseline, BM25: NDCG@10 +0.200")
    assert fused.startswith("The fused model loses to the best baseline, BM25: NDCG@10 -0.200")


def reported(cfg: Config, registered: Registered, shown: Evaluation | None = None) -> str:
    console = Console(record=True, width=100, file=io.StringIO(), highlight=False)
    report(shown or evaluation(), registered, cfg, console)
    return console.export_text()


def test_the_report_has_a_row_for_every_scorer_of_every_kind_best_last() -> None:
    cfg = config()
    cfg.eval.kinds = ["uniform", "popularity"]
    text = reported(cfg, Registered(4, "models:/book-reranker/4", "m-1", True, "no version was champion before"))
    rows = re.findall(r"^ *(random|BM25|fine-tuned) +(0\.\d{3} \[.*?\]) .* 0\.500 *$", text, re.MULTILINE)
    assert rows == [
        ("random", "0.200 [0.100, 0.300]"),
        ("BM25", "0.400 [0.300, 0.500]"),
        ("fine-tuned", "0.600 [0.500, 0.700]"),
        ("random", "0.100 [0.000, 0.200]"),
        ("BM25", "0.300 [0.200, 0.400]"),
        ("fine-tuned", "0.500 [0.400, 0.600]"),
    ]
    assert text.count("The fine-tuned model beats the best baseline, BM25: NDCG@10 +0.200 [+0.150, +0.250]") == 2
    assert "model models:/book-reranker/4: champion is this version now (no version was champion before)" in text
    assert "rerank --tracking-uri sqlite:////nowhere/mlflow.db --model models:/book-reranker@champion " in text


def test_the_report_of_one_user_says_what_an_interval_needs() -> None:
    text = reported(config(), Registered(4, "models:/book-reranker/4", "m-1", True, "first"), of_one_user())
    assert re.search(r"fine-tuned +0\.600 \(no interval\) ", text)
    assert "the best baseline, BM25: NDCG@10 +0.200, without an interval, which needs two test users" in text
    assert "nan" not in text


@pytest.mark.parametrize("terminal", [True, False])
def test_a_stage_is_named_from_its_start_in_a_terminal_and_at_its_end_alone_elsewhere(
    tmp_path: Path, terminal: bool
) -> None:
    log = RunLog(None, "run", config(), tmp_path, {})
    log.console = Console(file=io.StringIO(), force_terminal=terminal, force_interactive=terminal, highlight=False)
    with log.stage("pairs"):
        assert log.console.file.getvalue() == ("pairs …\r" if terminal else "")
    assert re.fullmatch(r"pairs … \d\.\d s\n", log.console.file.getvalue().removeprefix("pairs …\r"))


def test_the_commands_name_the_run_that_was_made_and_no_password() -> None:
    cfg = config(f"postgresql://me:{SECRET}@db/runs?sslmode=on&a=1")
    text = reported(cfg, Registered(4, "models:/book-reranker/4", "m-1", False, "version 3 did better"))
    assert "model models:/book-reranker/4: not champion (version 3 did better)" in text
    assert "reranker ui --tracking-uri 'postgresql://***@db/runs?sslmode=on&a=1'\n" in text
    assert " --model models:/book-reranker/4 " in text


def test_a_store_that_another_process_keeps_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "LOCK_TIMEOUT_S", 0.05)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    words = rf"{tmp_path}/\.init\.lock: another process has kept this lock for 0\.05 s.*Wait for that process or end it"
    with store.init_lock(uri), pytest.raises(RerankerError, match=words), store.init_lock(uri):
        pass
    with store.init_lock(uri):  # free again
        pass


def test_the_interface_is_for_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for host in ("0.0.0.0", "192.168.1.5", "::", "example.org"):
        with pytest.raises(RerankerError, match="not a loopback address"):
            ui(uri, host=host)


def test_the_interface_says_why_it_cannot_start(tmp_path: Path) -> None:
    with pytest.raises(RerankerError, match=r"mlflow\.db: no runs yet"):
        ui(f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(RerankerError, match=r"https://\*\*\*@host is a server already"):
        ui(f"https://me:{SECRET}@host")
    (tmp_path / "mlflow.db").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RerankerError, match=f"port {port} on 127.0.0.1 cannot be had"):
            ui(f"sqlite:///{tmp_path}/mlflow.db", port=port)


# What needs a store


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One database with its schema; setting it up takes seconds."""
    file = tmp_path_factory.mktemp("a störe") / "mlruns" / "mlflow.db"
    store.open_store(TrackingConfig(uri=f"sqlite:///{file}"))
    return file


@pytest.mark.slow
def test_the_commands_name_the_runs_store_and_opening_it_leaves_the_environment_as_it_was(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{database}.another")  # MLflow exports a URI when it changes
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    cfg = config(f"sqlite:///{database}")
    store.open_store(cfg.tracking)
    assert "MLFLOW_TRACKING_URI" not in os.environ
    made = Registered(1, "models:/book-reranker/1", "m-1", True, "first")
    assert [f" --tracking-uri 'sqlite:///{database}'" in line for line in next_commands(made, cfg)] == [True, True]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", cfg.tracking.uri)  # now the shell says so, to the commands as well
    store.open_store(cfg.tracking)
    assert os.environ["MLFLOW_TRACKING_URI"] == cfg.tracking.uri
    assert not any("--tracking-uri" in line for line in next_commands(made, cfg))


@pytest.fixture
def cfg(database: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Config:
    """A config with an experiment of its own in the shared database."""
    for name in (PARENT, "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    return config(f"sqlite:///{database}", re.sub(r"\W+", "_", request.node.name))


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


@pytest.mark.slow
def test_a_run_that_ends_well_keeps_its_account(
    cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / ".hydra").mkdir()
    (tmp_path / ".hydra" / "overrides.yaml").write_text("- sampling.neg_ratio=5\n- tracking.experiment=x\n")
    with start(cfg, tmp_path) as log:
        with log.stage("pairs"):
            log.counts("pairs", {"out": np.int64(12), "dropped": {"few": 3}})
            log.hash("pairs", "ab" * 32)
            log.cache_hit("pairs", True)
        log.metric("test/ndcg_10", np.float64(0.5))
    result = account(tmp_path)
    assert (result["status"], result["error"], result["run_id"]) == ("FINISHED", None, log.run_id)
    assert result["overrides"] == ["sampling.neg_ratio=5", "tracking.experiment=x"]
    assert result["metrics"] == {"test/ndcg_10": 0.5}
    assert result["counts"] == {"pairs/out": 12, "pairs/dropped/few": 3}
    assert (result["hashes"]["pairs"], result["cache_hits"]) == ("ab" * 32, {"pairs": True})
    assert {"versions", "machine", "git_commit", "seconds", "skipped_metrics"} <= set(result)
    assert re.search(r"^pairs … \d\.\d s$", capsys.readouterr().out, re.MULTILINE)

    client, [made] = found(cfg)
    assert (made.info.status, made.info.run_name) == ("FINISHED", "tiny demo sampling.neg_ratio=5")
    assert made.data.params["sampling.neg_ratio"] == "3"
    assert made.data.tags["hash.pairs"] == "ab" * 32
    assert made.data.metrics["time/pairs_s"] == pytest.approx(result["seconds"]["pairs"])
    kept = artifacts(cfg, log.run_id)
    assert json.loads((kept / "result.json").read_text()) == result
    assert yaml.safe_load((kept / "config.yaml").read_text())["sampling"]["neg_ratio"] == 3
    assert client.get_experiment(made.info.experiment_id).artifact_location.endswith(
        f"a%20st%C3%B6re0/mlruns/artifacts/{cfg.tracking.experiment}"
    )


@pytest.mark.slow
def test_the_config_hash_moves_with_what_decides_the_result_alone(cfg: Config, tmp_path: Path) -> None:
    def config_hash(name: str) -> str:
        with start(cfg, tmp_path / name):
            pass
        return str(account(tmp_path / name)["hashes"]["config"])

    first = config_hash("first")
    cfg.cache_dir, cfg.engine.n_partitions, cfg.tracking.alias = "elsewhere", 9, "other"
    assert config_hash("moved") == first
    cfg.sampling.neg_ratio = 5
    assert config_hash("another") != first


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "status"),
    [(ValueError("no pairs"), "FAILED"), (SystemExit(0), "FAILED"), (KeyboardInterrupt(), "KILLED")],
    ids=["exception", "exit", "interrupt"],
)
def test_a_run_that_does_not_end_well_says_how(cfg: Config, tmp_path: Path, error: BaseException, status: str) -> None:
    with pytest.raises(type(error)) as raised, start(cfg, tmp_path) as log, log.stage("pairs"):
        raise error
    assert raised.value is error
    result = account(tmp_path)
    assert (result["status"], result["error"]) == (status, {"type": type(error).__name__, "message": str(error)})
    assert "pairs" in result["seconds"]
    _, [made] = found(cfg)
    assert made.info.status == status
    trace = (artifacts(cfg, log.run_id) / "traceback.txt").read_text()
    assert "test_tracking.py" in trace and type(error).__name__ in trace


@pytest.mark.slow
def test_a_store_that_fails_while_a_run_closes_does_not_hide_the_first_error(
    cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object) -> None:
        raise OSError(f"no space at {SECRET_URI}")

    with pytest.raises(ValueError, match="first") as raised, start(cfg, tmp_path) as log:
        monkeypatch.setattr(log.client, "log_text", refuse)
        raise ValueError("first")
    assert raised.value.__notes__ == [
        "The run could not be closed as FAILED: no space at postgresql://***@db.example/runs"
    ]
    assert account(tmp_path)["status"] == "FAILED"
    assert found(cfg)[1][0].info.status == "FAILED"


@pytest.mark.slow
def test_a_secret_in_the_uri_stands_nowhere(
    cfg: Config, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mlruns").mkdir()
    shutil.copy(database, tmp_path / "mlruns")  # its own copy, to search it
    real = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlruns/mlflow.db", experiment="secret")
    monkeypatch.setattr(lifecycle, "open_store", lambda tracking: store.open_store(real))
    cfg.tracking.uri = SECRET_URI
    overrides = tmp_path / "run" / ".hydra" / "overrides.yaml"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(f"- tracking.uri={SECRET_URI}\n")
    with pytest.raises(RuntimeError), start(cfg, tmp_path / "run") as log:
        raise RuntimeError(f"could not connect to {SECRET_URI}")
    overrides.unlink()  # Hydra's own file, which tracking does not write
    files = [f for f in tmp_path.rglob("*") if f.is_file()]
    assert {"result.json", "config.yaml", "traceback.txt", "mlflow.db"} <= {f.name for f in files}
    assert [f for f in files if SECRET.encode() in f.read_bytes()] == []
    assert SECRET not in capsys.readouterr().out
    assert account(tmp_path / "run")["error"]["message"] == "could not connect to postgresql://***@db.example/runs"
    assert log.result["overrides"] == ["tracking.uri=postgresql://***@db.example/runs"]


@pytest.mark.slow
def test_metrics_that_are_not_finite_are_left_out_and_named(
    cfg: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(cfg, tmp_path) as log:
        log.metrics({"test/auc": math.nan, "test/map": 0.25, "test/ap": math.inf})
        log.metric("test/auc", math.nan)
    assert account(tmp_path)["metrics"] == {"test/map": 0.25}
    assert account(tmp_path)["skipped_metrics"] == ["test/auc", "test/ap"]
    assert "warning: not finite, so not logged: test/auc, test/ap\n" in capsys.readouterr().out
    _, [made] = found(cfg)
    assert set(made.data.metrics) == {"test/map"}


@pytest.mark.slow
def test_the_trainers_logs_become_stepped_metrics(cfg: Config, tmp_path: Path) -> None:
    with start(cfg, tmp_path) as log:
        log.training_callback_metrics({"loss": 0.7, "learning_rate": 1e-4}, 10)
        log.training_callback_metrics({"dev_ndcg_10": 0.4}, 10)
        log.training_callback_metrics({"dev_ndcg_10": 0.3}, 20)
        log._points(("many", float(i), i) for i in range(2500))  # more than MLflow takes in one call
        log.history(History(logs=[{"step": 10, "loss": 0.7}, {"step": 10, "dev_ndcg_10": 0.4}], best_dev=0.4))
    client, [made] = found(cfg)
    points = client.get_metric_history(log.run_id, "dev/ndcg_10")
    assert [(p.step, p.value) for p in points] == [(10, 0.4), (20, 0.3)]
    assert len(client.get_metric_history(log.run_id, "many")) == 2500
    assert {"train/loss", "train/learning_rate", "dev/ndcg_10"} <= set(made.data.metrics)
    assert (artifacts(cfg, log.run_id) / "plots" / "training.png").exists()


@pytest.mark.slow
def test_an_evaluation_goes_in_as_metrics_curves_rows_and_figures(cfg: Config, tmp_path: Path) -> None:
    cfg.eval.kinds = ["uniform", "popularity"]
    with start(cfg, tmp_path) as log:
        log.console = Console(file=io.StringIO(), markup=False)
        log.evaluation(checked())
    client, [made] = found(cfg)
    expected = evaluation_metrics(checked(), "uniform")
    points = {p[0] for p in curve_points(checked(), "uniform")}
    assert {k: v for k, v in made.data.metrics.items() if k not in points} == pytest.approx(expected)
    assert "warning: uniform lists: collapse: of the scores" in log.console.file.getvalue()
    assert made.data.tags["warnings"] == "uniform lists: collapse: of the scores"
    by_length = client.get_metric_history(log.run_id, "slice/history_length/ndcg_10")
    assert [(p.step, p.value) for p in by_length] == [(2, 0.6), (4, 0.6)]
    [dataset] = made.inputs.dataset_inputs
    assert (dataset.dataset.name, dataset.tags[0].value) == ("per_user", "evaluation")
    assert dataset.dataset.digest == digest_file(tmp_path / "per_user.parquet")[:36]
    assert account(tmp_path)["metrics"] == pytest.approx(expected)
    curve = client.get_metric_history(log.run_id, "baseline/bm25/popularity/ndcg_by_k")
    assert [(p.step, p.value) for p in curve] == [(k, pytest.approx(0.3 * k / 20)) for k in range(1, 21)]
    kept = artifacts(cfg, log.run_id)
    pd.testing.assert_frame_equal(pd.read_parquet(kept / "per_user.parquet"), evaluation().per_user)
    assert {f.stem for f in (kept / "plots").iterdir()} == set(plots.evaluation_figures(checked()))


@pytest.mark.slow
def test_inputs_are_kept_by_name_and_content_digest(cfg: Config, tmp_path: Path) -> None:
    frame = pd.DataFrame({"user_ctx": ["likes"], "label": [1]})
    with start(cfg, tmp_path) as log:
        log.dataset(frame, "pairs", context="training", digest="cd" * 32)
        log.dataset(tmp_path / "books.parquet", "tables", context="source", digest="ef" * 32)
    _, [made] = found(cfg)
    inputs = {i.dataset.name: i for i in made.inputs.dataset_inputs}
    assert {n: i.dataset.digest for n, i in inputs.items()} == {"pairs": "cd" * 18, "tables": "ef" * 18}
    assert [t.value for t in inputs["tables"].tags] == ["source"]
    assert str(tmp_path / "books.parquet") in inputs["tables"].dataset.source


@pytest.mark.slow
def test_the_data_report_goes_in_as_metrics_and_a_page(
    cfg: Config, tmp_path: Path, tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = build_pairs(tables, contexts, cfg.sampling, cfg.engine, cache)
    with start(cfg, tmp_path / "run") as log:
        log.data_report(tables, pairs, {"pairs_checked": 7}, lambda texts: np.array([len(t) for t in texts]), 100)
    page = tmp_path / "run" / "data_report.html"
    result = account(tmp_path / "run")
    assert result["paths"]["data_report"] == str(page)
    assert result["skipped_metrics"] == []
    assert result["metrics"]["data/n_pairs"] == len(pairs.codes) and result["metrics"]["data/audit/pairs_checked"] == 7
    _, [made] = found(cfg)
    kept = {key: value for key, value in made.data.metrics.items() if key.startswith("data/")}
    assert kept == {key: pytest.approx(value) for key, value in result["metrics"].items()}
    assert (artifacts(cfg, log.run_id) / "data_report.html").read_bytes() == page.read_bytes()


@pytest.mark.slow
def test_an_experiment_that_was_deleted_is_named_with_the_way_back(cfg: Config) -> None:
    client, experiment_id = store.open_store(cfg.tracking)
    client.delete_experiment(experiment_id)
    with pytest.raises(RerankerError, match=f"is deleted in .* --experiment-id {experiment_id}"):
        store.open_store(cfg.tracking)


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
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


@pytest.mark.slow
def test_four_processes_open_a_fresh_store_at_once_and_each_logs_a_run(tmp_path: Path) -> None:
    cfg = config(f"sqlite:///{tmp_path}/mlruns/mlflow.db", "cold start")
    children = [program(cfg, tmp_path / str(i), i, 0) for i in range(4)]
    outputs = [child.communicate(timeout=180)[0] for child in children]
    assert [child.returncode for child in children] == [0] * 4, outputs
    _, runs = found(cfg)
    assert sorted(r.data.metrics["value"] for r in runs) == [0, 1, 2, 3]
    assert {r.info.status for r in runs} == {"FINISHED"}
    assert {account(tmp_path / str(i))["run_id"] for i in range(4)} == {r.info.run_id for r in runs}


@pytest.mark.slow
def test_sigterm_leaves_a_killed_run_and_its_account_long_before_the_run_would_end(cfg: Config, tmp_path: Path) -> None:
    child = program(cfg, tmp_path, 7, 600)
    assert child.stdout is not None
    while "inside" not in (line := child.stdout.readline()):
        assert line, "the program ended before its run began"
    child.terminate()
    try:
        output, _ = child.communicate(timeout=120)
    finally:
        child.kill()  # one that went on; nothing to one that ended
    assert child.returncode != 0
    assert "KeyboardInterrupt: SIGTERM" in output
    assert (account(tmp_path)["status"], account(tmp_path)["metrics"]) == ("KILLED", {"value": 7})
    _, [made] = found(cfg)
    assert made.info.status == "KILLED"
    assert made.info.end_time is not None


@pytest.mark.slow
def test_the_interface_answers_to_its_own_name_alone_and_ends_with_ctrl_c(cfg: Config, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    call = f"import sys; from reranker.tracking.ui import ui; sys.exit(ui({cfg.tracking.uri!r}, port={port}))"
    server = subprocess.Popen([sys.executable, "-c", call], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert server.stdout.readline().startswith(f"http://127.0.0.1:{port} shows sqlite:///")
        answers = [status(port, f"127.0.0.1:{port}", wait_s=90), status(port, "books.example.org", wait_s=5)]
        assert answers == [200, 403]
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=20)
    assert server.returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


def status(port: int, host: str, *, wait_s: float) -> int:
    """The status of the experiments' API for a request to a host of this name, as soon as the port answers."""
    end = time.monotonic() + wait_s
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", "/api/2.0/mlflow/experiments/search?max_results=1", headers={"Host": host})
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):  # refused, or reset by a server that is still starting
            assert time.monotonic() < end, "the server did not start"
            time.sleep(0.2)
        finally:
            connection.close()


# Sweeps


@pytest.fixture
def multirun(cfg: Config) -> Iterator[Any]:
    """What Hydra gives the callback for `-m sampling.neg_ratio=3,5 trainer.seed=1` over a saved sweep of models."""
    hydra = {
        "overrides": {"task": ["sampling.neg_ratio=3,5", "+trainer.seed=1", f"tracking.uri={SECRET_URI}"]},
        "sweeper": {"params": {"model": "minilm,bge", "sampling.neg_ratio": "1,2"}},
        "runtime": {"choices": {"experiments": "grid"}},
    }
    yield OmegaConf.create({"tracking": OmegaConf.structured(cfg.tracking), "hydra": hydra})
    sweep.close_sweep("KILLED")  # a test that failed half-way leaves none open


def child(cfg: Config, folder: Path, values: list[float], error: BaseException | None = None) -> str:
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


def parent(cfg: Config, children: list[str]) -> Run:
    [made] = [r for r in found(cfg)[1] if r.info.run_id not in children]
    return made


@pytest.mark.slow
def test_a_sweep_knows_its_params_children_and_the_best_of_them(cfg: Config, multirun: Any, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    callback = sweep.MlflowSweep()
    callback.on_multirun_start(multirun)
    children = [child(cfg, tmp_path, values) for values in ([0.2, 0.6, 0.1], [0.5, 0.5, 0.5], [])]
    callback.on_multirun_end(multirun)
    sweep.close_sweep("FAILED")  # main's `finally`, after the fact: nothing happens
    made = parent(cfg, children)
    assert (made.info.status, made.info.run_name) == ("FINISHED", "sweep grid")
    assert made.data.params == {
        "model": "minilm,bge",
        "sampling.neg_ratio": "3,5",
        "trainer.seed": "1",
        "tracking.uri": "postgresql://***@db.example/runs",
    }
    assert (made.data.tags["n_children"], made.data.tags["best_child"]) == ("3", children[0])
    tags = [r.data.tags.get("mlflow.parentRunId") for r in found(cfg)[1] if r.info.run_id in children]
    assert tags == [made.info.run_id] * 3
    assert PARENT not in os.environ
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("errors", "given", "status"),
    [
        ([None, ValueError("no pairs"), KeyboardInterrupt()], "FINISHED", "FAILED"),
        ([None, KeyboardInterrupt()], "FAILED", "KILLED"),
        ([None], "FAILED", "FAILED"),
    ],
    ids=["a child failed", "a child was killed", "the sweep itself failed"],
)
def test_a_sweep_ends_as_its_worst_child(
    cfg: Config, multirun: Any, tmp_path: Path, errors: list[BaseException | None], given: str, status: str
) -> None:
    sweep.MlflowSweep().on_multirun_start(multirun)
    children = [child(cfg, tmp_path, [0.1 * i], error) for i, error in enumerate(errors, 1)]
    sweep.close_sweep(given)
    made = parent(cfg, children)
    assert made.info.status == status
    assert made.data.tags["best_child"] == children[0]  # others did better, and did not finish


@pytest.mark.slow
def test_a_child_that_died_without_a_word_is_killed_when_the_sweep_closes(cfg: Config, multirun: Any) -> None:
    sweep.MlflowSweep().on_multirun_start(multirun)
    client, experiment_id = store.open_store(cfg.tracking)
    dead = client.create_run(experiment_id, tags={"mlflow.parentRunId": os.environ[PARENT]}).info.run_id
    sweep.close_sweep("FINISHED")
    assert client.get_run(dead).info.status == "KILLED"
    assert parent(cfg, [dead]).info.status == "KILLED"
    assert "best_child" not in parent(cfg, [dead]).data.tags


@pytest.mark.slow
def test_a_sweep_whose_store_cannot_be_opened_stops_before_its_jobs(multirun: Any) -> None:
    multirun.tracking.uri = "mlruns"
    with pytest.raises(SystemExit, match=r"the sweep's run could not be started: tracking\.uri='mlruns'"):
        sweep.MlflowSweep().on_multirun_start(multirun)
    assert PARENT not in os.environ


@pytest.mark.slow
def test_a_run_id_left_in_the_environment_is_not_continued(
    cfg: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = child(cfg, tmp_path, [0.1])
    monkeypatch.setenv("MLFLOW_RUN_ID", first)
    second = child(cfg, tmp_path, [0.2])
    assert first != second
    assert "MLFLOW_RUN_ID" not in os.environ
