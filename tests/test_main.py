"""main.py: one run, the same run twice, a sweep, a leak, and the errors that a user can fix."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir

from reranker import config, pipeline, tracking
from reranker.config import ROOT, Config
from reranker.data import contexts as contexts_module
from reranker.errors import DataError, LeakError, ModelError
from tests.helpers import hub
from tests.helpers.published import write_goodbooks, write_ucsd
from tests.sampling.test_audit import compare_across_types

if TYPE_CHECKING:
    from mlflow.entities import Run

pytestmark = pytest.mark.slow

WORLD = ["data.world.n_books=160", "data.world.n_users=120", "data.world.mean_ratings=12"]
SMALL = [
    *WORLD,
    "model=tiny",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.max_steps=4",
    "trainer.n_evaluations=2",
    "eval.n_candidates=20",
    "eval.max_users=10",
    "eval.max_dev_users=6",
    "eval.n_bootstrap=100",
    "eval.baselines=[random,popularity,item_knn,bm25]",
]
TIMEOUT_S = 1800  # of a command; the sweep of four jobs takes minutes on a busy machine
TIMED = (
    "time/",
    "score/",
    "train/runtime_s",
    *(f"train/{name}" for name in tracking.run_log.SPEEDS),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the store and the cache of this file's runs."""
    return tmp_path_factory.mktemp("project")


def composed(place: Path, *overrides: str) -> Config:
    return defaults(place, *SMALL, *overrides)


def defaults(place: Path, *overrides: str) -> Config:
    """Return the config of `python main.py OVERRIDES`, with its store and cache in `place`."""
    own = [f"tracking.uri=sqlite:///{place}/mlruns/mlflow.db", f"cache_dir={place}/cache"]
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return config.from_hydra(compose("config", overrides=[*own, *overrides]))


def result(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "result.json").read_text())
    return found


@pytest.fixture(scope="module")
def finished(place: Path) -> Path:
    pipeline.run(composed(place), place / "run")
    return place / "run"


def test_a_run_writes_its_results(finished: Path) -> None:
    found = result(finished)
    assert (found["status"], found["error"]) == ("FINISHED", None)
    lists = {"lists/dev", "lists/test", "lists/test/uniform"}
    assert set(found["hashes"]) == {"config", "tables", "pairs"} | lists
    assert all(len(h) == 64 for h in found["hashes"].values())
    stages = [
        "weights",
        "tables",
        "lists",
        "pairs",
        "audit",
        "baselines/dev",
        "baselines/test",
        "model",
        "data_report",
        "untrained",
        "train",
        "score/dev",
        "score/test",
        "fuse",
        "evaluate",
        "register",
        "reports",
    ]
    assert list(found["seconds"]) == stages
    page = (finished / "run_report.html").read_text()
    assert found["paths"]["run_report"] == str(finished / "run_report.html")
    assert "On uniform lists the fine-tuned model" in page and found["hashes"]["pairs"] in page
    metrics, counts = found["metrics"], found["counts"]
    assert {
        "test/ndcg_10",
        "test/map",
        "baseline/untrained/ndcg_10",
        "lift/ndcg_10_low",
        "dev/ndcg_10",
    } <= set(metrics)
    assert all(math.isfinite(v) for v in metrics.values())
    assert counts["tables/users_in"] == 120
    assert counts["pairs/pairs"] == counts["pairs/positives"] + counts["pairs/negatives"]
    assert {"torch", "mlflow", "python"} <= set(found["versions"])
    others = [v for k, v in metrics.items() if k.startswith("baseline/") and k.endswith("/ndcg_10")]
    assert metrics["lift/ndcg_10"] == pytest.approx(metrics["test/ndcg_10"] - max(others), abs=1e-9)
    assert metrics["lift/fused/ndcg_10"] == pytest.approx(
        metrics["fused/ndcg_10"] - max(others), abs=1e-9
    )
    for other in ("random", "popularity", "item_knn", "bm25", "untrained"):
        lift = metrics["test/ndcg_10"] - metrics[f"baseline/{other}/ndcg_10"]
        assert metrics[f"lift/over_{other}/ndcg_10"] == pytest.approx(lift, abs=1e-9)
        assert (
            metrics[f"lift/over_{other}/ndcg_10_low"]
            <= lift + 1e-9
            <= metrics[f"lift/over_{other}/ndcg_10_high"] + 2e-9
        )


def test_mlflow_has_the_same_results(finished: Path, place: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db")
    found = result(finished)
    run = client.get_run(found["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.metrics["test/ndcg_10"] == found["metrics"]["test/ndcg_10"]
    assert run.data.params["sampling.neg_ratio"] == "3"
    assert len(client.get_metric_history(found["run_id"], "test/ndcg_by_k")) == 20
    assert [m.step for m in client.get_metric_history(found["run_id"], "dev/ndcg_10")] == [2, 4]
    names = {f.path for f in client.list_artifacts(found["run_id"])}
    tables = {
        "per_user.parquet",
        "scores.parquet",
        "lists_dev.parquet",
        "lists_test.parquet",
        "fusions.parquet",
    }
    assert {"config.yaml", "result.json", "plots"} | tables <= names


def test_the_registered_model_scores_as_the_evaluation_did(finished: Path, place: Path) -> None:
    from reranker import Reranker

    loaded = Reranker.load(
        "models:/book-reranker@champion", tracking_uri=f"sqlite:///{place}/mlruns/mlflow.db"
    )
    scores = pd.read_parquet(finished / "scores.parquet")
    users = pd.read_parquet(Path(result(finished)["paths"]["tables"]) / "users.parquet")
    pairs = pd.read_parquet(Path(result(finished)["paths"]["tables"]) / "histories.parquet")
    books = pd.read_parquet(Path(result(finished)["paths"]["tables"]) / "books.parquet")
    for user_id, rows in list(scores.groupby("user_id"))[:3]:
        code = users.index[users["user_id"] == user_id][0]
        known = pairs[(pairs["user"] == code) & ~pairs["is_target"]].sort_values("timestamp")
        ranked = loaded.rerank(
            None,
            rows["book_id"].tolist(),
            history=books["book_id"].to_numpy()[known["book"]].tolist(),
            ratings=known["rating"].tolist(),
            timestamps=known["timestamp"].tolist(),
        )
        served = {r.book_id: r.score for r in ranked}
        evaluated = dict(zip(rows["book_id"], rows["fine_tuned"], strict=True))
        assert served == pytest.approx(evaluated, abs=1e-5)


def test_a_run_is_exported_with_its_own_data_and_served_by_name(
    finished: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not all(importlib.util.find_spec(name) for name in ("openvino", "nncf")):
        pytest.skip("the extra is not installed: pip install -e '.[export]'")
    from reranker.cli import main
    from reranker.serving.reranker import Reranker

    uri, run_id = f"sqlite:///{place}/mlruns/mlflow.db", result(finished)["run_id"]
    command = [
        "export",
        run_id,
        "--variant",
        "int8",
        "--calibration-pairs",
        "16",
        "--tracking-uri",
        uri,
        "--force",
    ]
    assert main.main(command) == 0
    printed = capsys.readouterr().out
    found = re.search(r"On 6 dev lists NDCG@10 is [\d.]+ \(fp32 ([\d.]+)\)", printed)
    assert found and float(found[1]) == pytest.approx(
        result(finished)["metrics"]["dev/ndcg_10"], abs=1e-4
    )
    name = result(finished)["model"]["uri"]
    models = [Reranker.load(name, tracking_uri=uri, variant=variant) for variant in (None, "int8")]
    exact, int8 = (
        {
            r.text: r.score
            for r in m.rerank("Likes: a book.", ["A tale of the sea", "A war", "Love"])
        }
        for m in models
    )
    assert exact != int8
    assert exact == pytest.approx(int8, abs=0.5)


def test_the_champion_teaches_a_student_of_fewer_layers(finished: Path, place: Path) -> None:
    from reranker import Reranker

    student = [
        "experiments=distil",
        "model.layers=1",
        "trainer.teacher=models:/book-reranker@champion",
    ]
    pipeline.run(composed(place, *student), place / "student")
    found = result(place / "student")
    assert list(found["seconds"])[4:7] == ["audit", "teacher", "baselines/dev"]
    distilled = pd.read_parquet(found["paths"]["teacher"])
    teacher = Reranker.load(
        result(finished)["model"]["uri"], tracking_uri=f"sqlite:///{place}/mlruns/mlflow.db"
    )
    query = distilled["user_ctx"].iloc[0]
    own = distilled[distilled["user_ctx"] == query]
    expected = {
        r.text: r.score for r in teacher.rerank(query, own["book_text"].astype(str).tolist())
    }
    assert dict(zip(own["book_text"], own["score"], strict=True)) == pytest.approx(
        expected, abs=1e-5
    )
    pairs = pd.read_parquet(found["paths"]["pairs"])
    assert (len(distilled), found["counts"]["teacher/pairs"]) == (len(pairs), len(pairs))


def test_a_baseline_teaches_together_with_the_labels(finished: Path, place: Path) -> None:
    distilled = [
        "data.text_features=[authors,genres]",
        "trainer.loss=softmax",
        "trainer.teacher=features_lr",
        "trainer.teacher_weight=1",
    ]
    pipeline.run(composed(place, *distilled), place / "distilled")
    found = result(place / "distilled")
    assert list(found["seconds"])[4:7] == ["audit", "teacher", "baselines/dev"]
    table = pd.read_parquet(found["paths"]["teacher"]).astype({"book_text": str})
    levels = table["book_text"].str.extract(r"Authors: (\d+) \| Genres: (\d+) \|").astype(float)
    assert levels.notna().all(axis=None)
    assert table["score"].std(ddof=0) == pytest.approx(1, abs=1e-5)
    assert np.corrcoef(table["score"], levels.sum(axis=1))[0, 1] > 0.5
    assert (
        found["hashes"]["pairs"] != result(finished)["hashes"]["pairs"]
    )  # the texts start with features


def test_a_missing_teacher_stops_the_run_before_its_tables(place: Path) -> None:
    nobody = ["trainer.loss=mse", "trainer.teacher=models:/nobody@champion"]
    fails(
        place,
        "nobody",
        ModelError,
        *nobody,
        words="models:/nobody@champion: not in the MLflow store",
    )
    assert list(result(place / "nobody")["seconds"]) == ["weights"]


def test_a_model_is_saved_when_the_store_fails_after_the_training(
    finished: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from reranker import Reranker

    def away(*args: object) -> None:
        raise ConnectionError("the store is away")

    monkeypatch.setattr(tracking.RunLog, "evaluation", away)
    with pytest.raises(ConnectionError):
        pipeline.run(composed(place), place / "away")
    found = result(place / "away")
    saved = found["paths"]["bundle"]
    assert found["status"] == "FAILED"
    assert f"is saved in {saved}; load it with Reranker.from_folder" in capsys.readouterr().out
    stored = Reranker.load(
        result(finished)["model"]["uri"], tracking_uri=f"sqlite:///{place}/mlruns/mlflow.db"
    )
    request = "Likes: Emma", ["Title: Emma", "Title: Persuasion"]
    assert [r.score for r in Reranker.from_folder(saved).rerank(*request)] == [
        r.score for r in stored.rerank(*request)
    ]
    assert not list(finished.glob("bundle*"))  # what is registered is not saved twice


def test_the_same_command_again_uses_the_cache_and_gives_the_same_metrics(
    finished: Path, place: Path
) -> None:
    pipeline.run(composed(place), place / "again")
    first, second = result(finished), result(place / "again")
    assert second["cache_hits"] == dict.fromkeys(
        ["tables", "lists/dev", "lists/test", "pairs"], True
    )
    assert not any(first["cache_hits"].values())
    assert first["hashes"] == second["hashes"]
    same = {k: v for k, v in first["metrics"].items() if not k.startswith(TIMED)}
    assert same == {k: v for k, v in second["metrics"].items() if not k.startswith(TIMED)}


def test_regenerate_builds_the_pairs_again(finished: Path, place: Path) -> None:
    pipeline.run(
        composed(place, "sampling.regenerate=true", "eval.list_kinds=[uniform,retriever]"),
        place / "regenerated",
    )
    again = result(place / "regenerated")
    assert (again["cache_hits"]["pairs"], again["cache_hits"]["tables"]) == (False, True)
    assert again["hashes"]["pairs"] == result(finished)["hashes"]["pairs"]
    check_first_stage(again, place / "regenerated")


def check_first_stage(found: dict[str, Any], run_dir: Path) -> None:
    """Recall is that of the logged lists, and no reranking is above the ceiling."""
    lists = pd.read_parquet(run_dir / "lists_test.parquet").groupby("kind")
    retrieved = lists.get_group("retriever")
    hits = retrieved.groupby("user_id")["label"].max().mean()
    assert found["metrics"]["first_stage/hit_fraction"] == pytest.approx(hits)
    curve = pd.read_parquet(run_dir / "depth_curve.parquet")
    assert set(curve["depth"]) == {10, 20}
    assert curve["ndcg_10"].max() <= found["metrics"]["first_stage/ceiling_ndcg_10"] + 1e-9
    assert {"fine_tuned", "fused", "item_knn"} <= set(curve["scorer"])


def fails(place: Path, name: str, kind: type[Exception], *overrides: str, words: str) -> None:
    import mlflow

    with pytest.raises(kind, match=words):
        pipeline.run(composed(place, *overrides), place / name)
    found = result(place / name)
    assert found["status"] == "FAILED"
    assert found["error"]["type"] == kind.__name__
    run = mlflow.MlflowClient(f"sqlite:///{place}/mlruns/mlflow.db").get_run(found["run_id"])
    assert run.info.status == "FAILED"
    left = [p for p in (place / "cache").rglob(".*") if p.suffix != ".lock"]
    assert left == []


def test_the_originals_leak_stops_the_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contexts_module, "drop_targets", compare_across_types)
    words = r"targets are part of their own context \(first: user_id=[0-9a-f]+, book_id=\d+"
    fails(place, "leak", LeakError, words=words)
    assert "train" not in result(place / "leak")["seconds"]


def test_a_wrong_weights_hash_stops_the_run(place: Path) -> None:
    wrong = ["model=minilm_wheel", f"model.sha256={'0' * 64}"]
    fails(place, "hash", ModelError, *wrong, words=f"expected {'0' * 64}, found 53aa51172d")
    assert list(result(place / "hash")["seconds"]) == ["weights"]


def test_a_missing_device_stops_the_run_before_its_tables(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    fails(
        place,
        "device",
        ModelError,
        "trainer.device=cuda",
        words=r"trainer\.device=cuda, but torch sees no CUDA GPU",
    )
    assert list(result(place / "device")["seconds"]) == ["weights"]


def test_a_ratio_above_the_catalogue_stops_the_run(place: Path) -> None:
    fails(
        place,
        "ratio",
        DataError,
        "sampling.neg_ratio=500",
        words=r"sampling.neg_ratio=500: \d+ users have too few",
    )


def test_a_missing_table_stops_the_run(place: Path, raw: Callable[..., Path]) -> None:
    root = raw()
    (root / "reduced_books.parquet").unlink()
    overrides = [
        "data=bookdb",
        f"data.root={root}",
        *(o.replace(o.split("=")[1], default(o)) for o in WORLD),
    ]
    fails(
        place,
        "missing",
        DataError,
        *overrides,
        words="missing reduced_books.parquet; found book_texts_reduced",
    )


def default(override: str) -> str:
    return str(getattr(config.WorldConfig(), override.split("=")[0].split(".")[-1]))


@pytest.mark.parametrize(
    ("source", "write"), [("ucsd", write_ucsd), ("goodbooks", write_goodbooks)]
)
def test_a_run_on_published_files_finishes(
    place: Path, source: str, write: Callable[[Path], Path]
) -> None:
    """60 users have 10 ratings each; the files hold invalid rows too."""
    root = write(place / source)
    overrides = [
        f"data={source}",
        f"data.root={root}",
        "eval.max_users=null",
        "trainer.max_steps=2",
    ]
    overrides += [o.replace(o.split("=")[1], default(o)) for o in WORLD]
    pipeline.run(composed(place, *overrides), place / f"{source}-run")
    found = result(place / f"{source}-run")
    assert found["status"] == "FINISHED"
    counts = found["counts"]
    assert (counts["tables/users"], counts["tables/ratings"]) == (60, 600)
    assert counts["tables/source_ratings_in"] > counts["tables/source_ratings"] == 600
    assert found["metrics"]["test/ndcg_10"] > 0


def project(folder: Path) -> Path:
    """Copy the project's code, so that a command run in it writes its outputs there."""
    for name in ("conf", "reranker", "experiments"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "main.py", folder)
    return folder


def run_command(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {
        k: v
        for k, v in os.environ.items()
        if not k.startswith(("HF_", "HYDRA_", "MLFLOW_", "RERANKER_"))
    }
    command = [sys.executable, "main.py", *args]
    return subprocess.run(
        command,
        cwd=folder,
        env=clean | env,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (
            ["sampling.neg_rato=3"],
            "ConfigError: 'sampling.neg_rato=3': unknown option 'sampling.neg_rato'. Did",
        ),
        (
            ["sampling.neg_ratio=0"],
            "ConfigError: sampling.neg_ratio=0 is impossible; it must be at least 1.",
        ),
        (["sampling.neg_ratio=many"], "sampling.neg_ratio"),
        (["model=huge"], "tiny"),
        (["experiments=goodreads_cp"], "goodreads_cpu"),
        (
            ["-m", "trainer.epochs=1,-1"],
            "the sweep does not start: job 1 (trainer.epochs=-1): trainer.epochs=-1.0 is",
        ),
    ],
)
def test_a_bad_command_line_gives_one_clear_error_and_no_work(
    tmp_path: Path, args: list[str], named: str
) -> None:
    done = run_command(project(tmp_path), *args)
    assert done.returncode == 1
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "outputs" / "cache").exists()
    assert not (tmp_path / "mlruns").exists()


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the README's sweep on small data, with both checkpoints on a hub on loopback."""
    little = [o for o in SMALL if o != "model=tiny" and not o.startswith("eval.baselines")]
    folder = project(tmp_path_factory.mktemp("sweep"))
    with hub.serve(hub.write_both(tmp_path_factory.mktemp("hub"))) as url:
        env = {"HF_ENDPOINT": url, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(folder / "hub-cache")}
        swept = ["model=minilm,bge", "sampling.neg_ratio=3,5"]
        done = run_command(
            folder, "-m", *swept, *little, "eval.baselines=[random,popularity]", **env
        )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


def test_a_sweep_is_four_runs_on_two_pair_sets_and_the_same_lists(sweep: Path) -> None:
    results = [result(p.parent) for p in sorted(sweep.glob("outputs/multirun/*/*/*/result.json"))]
    assert [a["status"] for a in results] == ["FINISHED"] * 4
    assert len({(a["hashes"]["lists/dev"], a["hashes"]["lists/test"]) for a in results}) == 1
    assert len({a["hashes"]["pairs"] for a in results}) == 2
    assert (
        len([p for p in (sweep / "outputs/cache/pairs").iterdir() if not p.name.startswith(".")])
        == 2
    )
    assert [a["cache_hits"]["pairs"] for a in results] == [False, False, True, True]
    assert [a["weights"]["source"] for a in results] == [
        "hub cross-encoder/ms-marco-MiniLM-L6-v2@c5ee24cb",
        "hub cross-encoder/ms-marco-MiniLM-L6-v2@c5ee24cb",
        "hub BAAI/bge-reranker-base@2cfc18c9",
        "hub BAAI/bge-reranker-base@2cfc18c9",
    ]


def test_a_sweep_is_one_parent_with_its_children(sweep: Path) -> None:
    parent, children = runs_of(sweep)
    assert parent.info.status == "FINISHED"
    assert len(children) == 4
    swept = {(r.data.params["model.name"], r.data.params["sampling.neg_ratio"]) for r in children}
    assert swept == {(m, n) for m in ("minilm", "bge") for n in ("3", "5")}


def runs_of(folder: Path) -> tuple[Run, list[Run]]:
    """Return the parent run in a project's store, and its children."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlruns/mlflow.db")
    [experiment] = [e for e in client.search_experiments() if e.name == "reranker"]
    runs = client.search_runs([experiment.experiment_id])
    [parent] = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children = [r for r in runs if r is not parent]
    assert {r.data.tags["mlflow.parentRunId"] for r in children} <= {parent.info.run_id}
    return parent, children


def test_a_failed_job_of_a_sweep_is_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    done = run_command(project(tmp_path), "-m", *SMALL, "model=path", "model.path=nowhere,neither")
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    for number, name in enumerate(("nowhere", "neither")):
        [line] = [
            line
            for line in done.stderr.splitlines()
            if f"ModelError: {name} is not a folder" in line
        ]
        assert re.match(rf"job {number} \(.*model\.path={name}.*\): ModelError: ", line)
    parent, children = runs_of(tmp_path)
    assert [parent.info.status, *(r.info.status for r in children)] == ["FAILED"] * 3


def test_the_settings_of_the_original_run_on_small_data(place: Path) -> None:
    import mlflow

    smaller = [one for one in SMALL if not one.startswith(("trainer.n_eval", "eval.n_candidates"))]
    cfg = defaults(place, "experiments=original", *smaller, "trainer.evaluation_steps=3")
    pipeline.run(cfg, place / "original")
    found = result(place / "original")
    assert (found["status"], found["counts"]["pairs/negatives_missing"]) == ("FINISHED", 0)
    assert found["counts"]["pairs/negatives"] == 3 * found["counts"]["pairs/positives"]
    assert found["counts"]["pairs/positives"] == 3 * found["counts"]["pairs/users"]
    metrics = {"test/map", "test/ndcg_3", "test/ndcg_5", "test/ndcg_10", "test/auc", "test/ap"}
    dev = {"dev/ndcg_10", "dev/map", "dev/auc", "dev/accuracy"}
    assert metrics | dev <= set(found["metrics"])
    # The silu of a logit is above -0.28, also for the served model.
    scores = pd.read_parquet(place / "original" / "scores.parquet")
    assert -0.28 < scores["fine_tuned"].min() < scores["fine_tuned"].max()
    client = mlflow.MlflowClient(cfg.tracking.uri)
    points = client.get_metric_history(found["run_id"], "dev/accuracy")
    assert [point.step for point in points] == [3, 4]
    curve = client.get_metric_history(found["run_id"], "test/map_by_k")
    assert [point.step for point in curve] == list(range(1, 21))


def test_parallel_jobs_on_a_fresh_database_are_children_of_one_parent(tmp_path: Path) -> None:
    tiny = [
        "trainer.max_steps=1",
        "trainer.n_evaluations=1",
        "eval.baselines=[random]",
        "eval.max_users=4",
    ]
    parallel = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    done = run_command(project(tmp_path), "-m", *parallel, *SMALL, *tiny, "sampling.neg_ratio=2,3")
    assert done.returncode == 0, done.stderr[-3000:]
    parent, children = runs_of(tmp_path)
    assert [parent.info.status, *(r.info.status for r in children)] == ["FINISHED"] * 3
    assert {r.data.params["sampling.neg_ratio"] for r in children} == {"2", "3"}
    assert parent.data.tags["n_children"] == "2"
