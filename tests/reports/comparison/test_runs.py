"""Runs of the store are compared if they ranked the same lists, and otherwise refused."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from omegaconf import OmegaConf

from reranker import sweep
from reranker.cache import Cache
from reranker.cli import main
from reranker.config import EvalConfig, TrackingConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.errors import ComparisonError
from reranker.eval import EvalSet
from reranker.reports.comparison.runs import find
from reranker.tracking import store
from reranker.tracking.lifecycle import PARENT
from reranker.tracking.run_log import RunLog

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.slow

N_USERS = 40
LISTS = {"lists/test/uniform": "aa" * 32, "lists/test": "bb" * 32, "lists/dev": "dd" * 32}
USERS = np.random.default_rng(0).uniform(0.1, 0.6, N_USERS)
Make = Callable[..., str]


def per_user(values: np.ndarray, kinds: tuple[str, ...] = ("uniform",)) -> pd.DataFrame:
    """The per-user values of a run: those of the model and of one baseline."""
    ids = [f"user{i:02d}" for i in range(len(values))]
    rows = [
        pd.DataFrame(
            {
                "scorer": scorer,
                "kind": kind,
                "user_id": ids,
                "n_candidates": 20,
                "ndcg_10": v,
                "ap": v / 2,
            }
        )
        for kind in kinds
        for scorer, v in (("random", values * 0), ("fine_tuned", values))
    ]
    return pd.concat(rows, ignore_index=True)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store with its schema, whose creation takes seconds."""
    made = f"sqlite:///{tmp_path_factory.mktemp('compare')}/mlruns/mlflow.db"
    store.open_store(TrackingConfig(uri=made))
    return made


@pytest.fixture
def opened(uri: str, request: pytest.FixtureRequest) -> tuple[MlflowClient, str, TrackingConfig]:
    """Client, experiment id and config of a separate experiment for the test."""
    cfg = TrackingConfig(uri=uri, experiment=re.sub(r"\W+", "_", request.node.name))
    return *store.open_store(cfg), cfg


@pytest.fixture
def make(opened: tuple[MlflowClient, str, TrackingConfig], tmp_path: Path) -> Make:
    """`make(values, params, ...)` logs a finished run as `main.py` would, and returns its id."""
    client, experiment_id, _ = opened

    def make(
        values: np.ndarray | None,
        params: dict[str, str] | None = None,
        *,
        hashes: dict[str, str] = LISTS,
        dev: tuple[float, ...] = (0.5,),
        kinds: tuple[str, ...] = ("uniform",),
        status: str = "FINISHED",
    ) -> str:
        from mlflow.entities import Metric, Param

        tags = {f"hash.{name}": value for name, value in hashes.items()}
        if PARENT in os.environ:
            tags["mlflow.parentRunId"] = os.environ[PARENT]
        run_id = str(client.create_run(experiment_id, tags=tags, run_name="a run").info.run_id)
        points = [("time/train_s", 12.0, 0), ("train/pairs_per_s", 340.0, 0)]
        points += [("dev/ndcg_10", value, step) for step, value in enumerate(dev)]
        client.log_batch(
            run_id,
            [Metric(key, value, 0, step) for key, value, step in points],
            [
                Param(key, value)
                for key, value in {"eval.list_kinds": ",".join(kinds), **(params or {})}.items()
            ],
        )
        if values is not None:
            per_user(values, kinds).to_parquet(tmp_path / "per_user.parquet")
            client.log_artifact(run_id, str(tmp_path / "per_user.parquet"))
        client.set_terminated(run_id, status)
        return run_id

    return make


@pytest.fixture
def compare(uri: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """`compare(run, run, ...)` runs the command: exit code, stdout, stderr."""

    def compare(*args: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return (main.main(["compare", "--tracking-uri", uri, *args]), *capsys.readouterr())

    return compare


def test_the_command_compares_two_runs_by_prefixes_of_their_ids(
    make: Make, compare: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    first = make(USERS, {"sampling.neg_ratio": "3"}, dev=(0.2, 0.6, 0.1))
    second = make(USERS + np.linspace(0.01, 0.09, N_USERS), {"sampling.neg_ratio": "5"}, dev=(0.5,))
    page = tmp_path / "page.html"
    code, out, err = compare(first[:12], second[:12], "--html", str(page))
    assert (code, err) == (0, "")
    assert f"1  sampling.neg_ratio=3 (reference for all others): 1 run {first[:8]}" in out
    assert re.search(rf"^ *1 +{USERS.mean():.4f} *$", out, re.MULTILINE)
    effect = 0.05 / np.linspace(0.01, 0.09, N_USERS).std(ddof=1)
    row = (
        rf"^ *2 +{USERS.mean() + 0.05:.4f} +\+0\.0500 \[\+0\.04\d\d, \+0\.05\d\d\] +"
        rf"0\.0001 +0\.0001 +\+{effect:.2f} "
    )
    assert re.search(row, out, re.MULTILINE)
    assert re.search(rf"^ *2 +{N_USERS}/0/0 ", out, re.MULTILINE)
    assert "2 is better than 1: +0.0500 [" in out
    assert (
        "The dev lists select 1, sampling.neg_ratio=3; the test lists only confirm the selection."
        in out
    )
    assert max(len(line) for line in out.splitlines() if re.match(r" *[12] ", line)) <= 80
    assert "2 is better than 1" in page.read_text() and not list(tmp_path.glob(".*.tmp"))


def test_another_metric_and_scorer_are_read_from_the_same_rows(
    make: Make, compare: Callable[..., tuple[int, str, str]]
) -> None:
    first, second = make(USERS), make(USERS + 0.1)
    code, out, _ = compare(first, second, "--metric", "ap")
    assert (code, f"+{0.1 / 2:.4f}" in out) == (0, True)
    code, out, _ = compare(first, second, "--scorer", "random")
    assert code == 0
    assert "2 does not differ significantly from 1: +0.0000 [+0.0000, +0.0000]." in out
    assert f"0/{N_USERS}/0" in out and "nan" not in out


def test_runs_on_different_lists_are_refused_with_both_hashes_and_a_remedy(
    make: Make, compare: Callable[..., tuple[int, str, str]]
) -> None:
    other = LISTS | {"lists/test/uniform": "cc" * 32}
    first, second = make(USERS), make(USERS, hashes=other)
    code, out, err = compare(first, second)
    assert (code, out) == (2, "")
    for named in (
        first,
        second,
        "aa" * 32,
        "cc" * 32,
        "hash.lists/test/uniform",
        "with the same data.* and eval.*",
    ):
        assert named in err


def test_an_additional_list_kind_in_one_run_does_not_prevent_the_comparison(
    make: Make, compare: Callable[..., tuple[int, str, str]]
) -> None:
    other = LISTS | {"lists/test": "cc" * 32, "lists/test/popularity": "ee" * 32}
    first, second = make(USERS), make(USERS, hashes=other, kinds=("uniform", "popularity"))
    assert compare(first, second)[0] == 0
    code, _, err = compare(first, second, "--kind", "popularity")
    assert (code, f"run {first} ranked no popularity lists; it has uniform." in err) == (2, True)


def test_runs_without_a_hash_per_kind_are_compared_by_the_hash_of_all_kinds(
    make: Make, compare: Callable[..., tuple[int, str, str]]
) -> None:
    old = {"lists/test": "bb" * 32}
    first, second = make(USERS, hashes=old), make(USERS)
    assert compare(first, second)[0] == 0
    third, fourth = make(USERS, hashes={"lists/test": "cc" * 32}), make(USERS, hashes={})
    code, _, err = compare(second, third)
    assert (code, "bb" * 32 in err, "cc" * 32 in err) == (2, True, True)
    assert f"run {fourth} has no tag hash.lists/test" in compare(first, fourth)[2]


def test_a_run_of_an_earlier_version_is_compared_under_todays_names(
    make: Make, compare: Callable[..., tuple[int, str, str]]
) -> None:
    old = make(USERS, hashes={"lists/test/seed": "aa" * 32}, kinds=("seed",))
    new = make(USERS + 0.1, hashes={"lists/test/bookdb": "aa" * 32}, kinds=("bookdb",))
    code, out, err = compare(old, new)
    assert (code, err) == (0, "")
    assert f"ndcg_10 of fine_tuned, bookdb lists, {N_USERS} users" in out


def test_reasons_for_a_refusal_are_one_line(
    make: Make, compare: Callable[..., tuple[int, str, str]]
) -> None:
    runs = [make(USERS), make(None, status="FAILED"), make(USERS), make(np.append(USERS, 0.5))]
    refused = {
        "zz {0}": "no run id starts with 'zz'; `reranker ui` lists the runs",
        "% {0}": "'%' is not a run id",
        "{0}": "1 run given; a comparison needs two or more",
        "{0} {0}": "run {0} is listed twice",
        "{0} {1}": "run {1} (FAILED) has no per_user.parquet: it did not reach its evaluation",
        "{0} {2} --metric map": "run {0} has no per-user 'map'; choose one of n_candidates, ",
        "{0} {2} --scorer bm25": "run {0} has no scorer 'bm25'; choose one of random, fine_tuned",
        "{0} {3}": "ranked for different users: 0 ",
    }
    for args, words in refused.items():
        code, out, err = compare(*args.format(*runs).split())
        assert (code, out) == (2, ""), args
        assert words.format(*runs) in err
        assert err.count("\n") == 1


def test_an_ambiguous_prefix_is_refused() -> None:
    runs = [SimpleNamespace(info=SimpleNamespace(run_id=run_id)) for run_id in ("ab1", "ab2")]
    client: Any = SimpleNamespace(
        search_experiments=lambda: [], search_runs=lambda *args, **kwargs: runs
    )
    with pytest.raises(
        ComparisonError,
        match=r"several run ids start with 'ab' \(ab1, ab2, …\); use more digits",
    ):
        find(client, ["ab", "cd"])


def test_a_missing_store_is_not_created(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main.main(["compare", "a", "b", "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db"])
    assert (code, "no runs yet" in capsys.readouterr().err, list(tmp_path.iterdir())) == (
        2,
        True,
        [],
    )


def test_a_run_logs_the_hash_of_each_list_kind(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    cfg = EvalConfig(list_kinds=["uniform", "popularity"], n_candidates=15)
    test = EvalSet.from_lists(Corpus(tables, contexts), cfg, cache, split="test")
    logged: dict[str, str] = {}

    class Log:
        hash = staticmethod(logged.__setitem__)
        record = table = staticmethod(lambda *args: None)

    RunLog.candidate_lists(Log, test)
    kinds = ("popularity", "uniform")
    assert logged == {f"lists/test/{kind}": test.digest_of_kind(kind) for kind in kinds}


# The end of a sweep


@pytest.fixture
def multirun(
    opened: tuple[MlflowClient, str, TrackingConfig], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """The config that Hydra passes to the callback; a sweep is open during the test."""
    monkeypatch.delenv(PARENT, raising=False)
    hydra = {
        "overrides": {"task": []},
        "sweeper": {"params": {}},
        "runtime": {"choices": {"experiments": "none"}},
    }
    config = OmegaConf.create({"tracking": OmegaConf.structured(opened[2]), "hydra": hydra})
    sweep.MlflowSweep().on_multirun_start(config)
    yield config
    sweep.close_sweep("KILLED")  # also after a failed test


def parent(opened: tuple[MlflowClient, str, TrackingConfig]) -> tuple[Run, Path]:
    """Return the sweep's run and the folder of its artifacts."""
    client, experiment_id, _ = opened
    [run] = client.search_runs([experiment_id], "attributes.run_name = 'sweep'")
    return run, Path(str(run.info.artifact_uri).removeprefix("file://"))


GRID = [
    (ratio, rate, seed) for ratio in ("3", "5") for rate in ("1e-4", "1e-5") for seed in ("0", "1")
]


def test_a_sweep_ends_with_its_children_compared_on_its_own_run(
    make: Make, opened: Any, multirun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for ratio, rate, seed in GRID:
        params = {"sampling.neg_ratio": ratio, "trainer.learning_rate": rate, "trainer.seed": seed}
        gain = 0.1 * (ratio == "5") + 0.02 * (rate == "1e-5")
        make(USERS + gain + 0.01 * int(seed), params, dev=(0.4 + gain,))
    make(None, {"trainer.seed": "9"}, status="FAILED")
    sweep.MlflowSweep().on_multirun_end(multirun)
    run, folder = parent(opened)
    assert run.info.status == "FAILED"
    table = pd.read_parquet(folder / "comparison.parquet")
    assert table["n_seeds"].tolist() == [2] * 4
    assert table["difference"].tolist()[1:] == pytest.approx([0.02, 0.1, 0.12])
    assert table["p_holm"].tolist()[1:] == pytest.approx([3e-4] * 3)
    assert set(table["interval_over"].dropna()) == {"users and seeds"}
    best = "sampling.neg_ratio=5 trainer.learning_rate=1e-5"
    assert (
        run.data.tags["comparison"]
        == f"ndcg_10 of fine_tuned on uniform lists; best on dev: {best}"
    )
    out = capsys.readouterr().out
    assert f"The dev lists select 4, {best}" in out and "4 is better than 1: +0.1200" in out
    html = (folder / "compare.html").read_text()
    assert best in html and html.count("<svg") == 5  # differences, two keys, two costs


def test_children_on_different_lists_leave_the_sweep_finished_with_a_reason_per_kind(
    make: Make, opened: Any, multirun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    hashes = [LISTS | {"lists/test/popularity": digest * 32} for digest in ("11", "22")]
    for ratio, own in zip("35", hashes, strict=True):
        make(USERS, {"sampling.neg_ratio": ratio}, hashes=own, kinds=("uniform", "popularity"))
    sweep.MlflowSweep().on_multirun_end(multirun)
    run, folder = parent(opened)
    assert (run.info.status, "uniform lists" in run.data.tags["comparison"]) == ("FINISHED", True)
    reason = run.data.tags["comparison.popularity"]
    assert reason.startswith("none: runs ") and "11" * 32 in reason and "22" * 32 in reason
    assert "no comparison on popularity lists: runs " in capsys.readouterr().out
    assert set(pd.read_parquet(folder / "comparison.parquet")["kind"]) == {"uniform"}


def test_a_sweep_without_a_common_list_kind_still_finishes(
    make: Make, opened: Any, multirun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for digest in ("11", "22"):
        make(USERS, {"eval.seed": digest}, hashes={"lists/test": digest * 32})
    sweep.MlflowSweep().on_multirun_end(multirun)
    run, folder = parent(opened)
    assert run.info.status == "FINISHED" and run.data.tags["best_child"]
    assert run.data.tags["comparison"].startswith("none: runs ")
    assert "the sweep's runs are not compared: runs " in capsys.readouterr().err
    assert not (folder / "compare.html").exists()


def test_a_sweep_over_seeds_shows_their_standard_deviation(
    make: Make, multirun: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed, gain in (("0", 0.0), ("1", 0.02)):
        make(USERS + gain, {"trainer.seed": seed})
    sweep.MlflowSweep().on_multirun_end(multirun)
    out = capsys.readouterr().out
    assert f"Over 2 seeds: {USERS.mean() + 0.01:.4f} [" in out
    assert f"standard deviation of the seeds {0.02 / np.sqrt(2):.4f}." in out


def test_one_finished_child_is_not_compared(make: Make, opened: Any, multirun: Any) -> None:
    make(USERS)
    sweep.MlflowSweep().on_multirun_end(multirun)
    run, _ = parent(opened)
    assert not [tag for tag in run.data.tags if tag.startswith("comparison")]
