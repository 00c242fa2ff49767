"""Models in the registry: what a version says, which one is champion, and how MLflow serves it."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from reranker.cli import main
from reranker.config import TrackingConfig
from reranker.errors import ModelError
from reranker.serving import registry
from reranker.serving.registry import Registered, register
from reranker.serving.reranker import Reranker
from tests.helpers.bundles import REQUEST


@pytest.fixture(scope="module")
def store_cfg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingConfig]:
    """A fresh store, and MLflow's own setting as it was afterwards."""
    import mlflow

    from reranker.tracking.store import open_store

    cfg = TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")
    _, experiment = open_store(cfg)
    mlflow.set_experiment(experiment_id=experiment)
    yield cfg
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def put(bundle: Path, store_cfg: TrackingConfig) -> Callable[..., Registered]:
    """`put(dev_ndcg_10, dev_lists)` registers the bundle from a run of its own."""
    import mlflow

    def put(
        dev_ndcg_10: float, dev_lists: str, name: str | None = "book-reranker", **kwargs: Any
    ) -> Registered:
        with mlflow.start_run():
            cfg = dataclasses.replace(store_cfg, registered_model=name)
            return register(bundle, cfg, dev_ndcg_10=dev_ndcg_10, dev_lists=dev_lists, **kwargs)

    return put


@pytest.fixture(scope="module")
def registered(put: Callable[..., Registered]) -> Registered:
    return put(0.5, "lists a", metrics={"test/ndcg_10": 0.25}, tags={"data": "demo"})


@pytest.mark.slow
def test_a_version_says_what_it_was_chosen_by_and_the_model_what_it_measured(
    registered: Registered,
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    tags = client.get_model_version("book-reranker", str(registered.version)).tags
    model = client.get_logged_model(registered.model_id)
    assert tags == {
        "dev_ndcg_10": "0.5",
        "dev_lists": "lists a",
        "data": "demo",
        "run_id": model.source_run_id,
    }
    assert {m.key: m.value for m in model.metrics} == {"test/ndcg_10": 0.25}


@pytest.mark.slow
def test_a_registered_model_loads_by_alias_by_version_and_from_its_folder_alike(
    registered: Registered, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.setattr(
        mlflow.pyfunc, "load_model", lambda *a, **k: pytest.fail("this would run the model's code")
    )
    expected = Reranker.from_folder(bundle).rerank("Likes: It.", [10, 20, 30, 40])
    for uri in ("models:/book-reranker@champion", registered.uri, f"models:/{registered.model_id}"):
        assert Reranker.load(uri).rerank("Likes: It.", [10, 20, 30, 40]) == expected


@pytest.mark.slow
def test_mlflows_own_loading_predicts_as_the_reranker(registered: Registered) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered.uri)
    [ranked] = model.predict([REQUEST])
    expected = Reranker.load(registered.uri).rerank(None, **REQUEST)
    assert [r.model_dump() for r in ranked] == [dataclasses.asdict(r) for r in expected]


@pytest.mark.slow
def test_whoever_loads_the_model_in_mlflow_may_name_a_variant(registered: Registered) -> None:
    """This model has none, which the error says; without the extra it says that."""
    import mlflow

    with pytest.raises(ModelError, match=r"openvino_int8 is not there|openvino is not installed"):
        mlflow.pyfunc.load_model(registered.uri, model_config={"variant": "int8"})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": []}, r"inputs\[1\]: candidates is empty"),
        ({"user_ctx": "a"}, r"inputs\[1\]: user_ctx, history: give exactly one"),
        ({"candidates": [{"book_id": "20"}]}, "book_id"),
        ({"history": ["10"]}, "history"),
        ({"extra": 1}, "extra"),
    ],
)
def test_the_served_model_answers_a_bad_request_with_400_and_the_field(
    registered: Registered, change: dict[str, Any], message: str
) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered.uri)
    with pytest.raises(mlflow.MlflowException, match=message) as caught:
        model.predict([REQUEST, REQUEST | change])
    assert caught.value.get_http_status_code() == 400


ELSEWHERE = """
import json, sys, tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
ranked = model.predict([json.loads(sys.argv[2])])[0]
import reranker
owners = packages_distributions()
used = {d.lower().replace("_", "-") for m in list(sys.modules) for d in owners.get(m.partition(".")[0], [])}
print(json.dumps([[r.model_dump() for r in ranked], reranker.__file__, sorted(used)]))
"""


@pytest.mark.slow
def test_a_registered_model_runs_where_the_project_is_not_installed(
    registered: Registered, store_cfg: TrackingConfig, tmp_path: Path
) -> None:
    """-S and PYTHONPATH give the libraries without the .pth files that make an editable install importable."""
    env = os.environ | {
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "MLFLOW_TRACKING_URI": store_cfg.uri,
    }
    command = [sys.executable, "-S", "-c", ELSEWHERE, registered.uri, json.dumps(REQUEST)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    ranked, package, used = json.loads(done.stdout.splitlines()[-1])
    assert ranked == [
        dataclasses.asdict(r) for r in Reranker.load(registered.uri).rerank(None, **REQUEST)
    ]
    assert Path(package).parts[-3:] == ("code", "reranker", "__init__.py")
    with open(Path(__file__).parents[2] / "pyproject.toml", "rb") as file:
        direct = {
            re.split(r"[\[<>=]", d)[0].replace("_", "-")
            for d in tomllib.load(file)["project"]["dependencies"]
        }
    by_others = {
        "boto3",
        "jinja2",
    }  # of the requirements' own, where they are installed; serving uses neither
    assert direct & set(used) - set(registry.REQUIREMENTS) - by_others == set()


@pytest.mark.slow
def test_requirements_are_pins_that_an_index_can_serve() -> None:
    pins = dict(line.split("==") for line in registry.pip_requirements())
    assert pins["torch"] == importlib.metadata.version("torch").partition("+")[0]
    assert not [v for v in pins.values() if "+" in v]


@pytest.mark.slow
def test_the_alias_follows_the_best_on_the_same_lists_and_the_latest_on_others(
    put: Callable[..., Registered],
) -> None:
    steps = [
        (0.5, "lists a", True, "no version was champion before"),
        (
            0.4,
            "lists a",
            False,
            "dev ndcg_10 0.4000 is below version 1's 0.5000, which stays champion",
        ),
        (0.5, "lists a", True, "dev ndcg_10 0.5000 is at least version 1's 0.5000"),
        (
            0.1,
            "lists b",
            True,
            "version 3, champion before, was measured on other dev lists; the latest wins",
        ),
    ]
    for version, (dev_ndcg_10, dev_lists, moved, reason) in enumerate(steps, start=1):
        got = put(dev_ndcg_10, dev_lists, "by-turns")
        assert (got.version, got.uri) == (version, f"models:/by-turns/{version}")
        assert (got.alias_moved, got.reason) == (moved, reason)


@pytest.mark.slow
def test_without_a_registered_name_the_model_is_logged_and_loads(
    put: Callable[..., Registered],
) -> None:
    got = put(0.5, "lists a", None)
    assert (got.version, got.alias_moved, got.reason) == (
        None,
        False,
        "tracking.registered_model is null",
    )
    assert len(Reranker.load(got.uri).rerank("Likes: It.", [10, 20])) == 2


@pytest.mark.slow
def test_a_figure_that_is_not_finite_is_not_registered(put: Callable[..., Registered]) -> None:
    with pytest.raises(ModelError, match="dev_ndcg_10=nan: no dev user has a positive"):
        put(float("nan"), "lists a")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "models:/book-reranker@best",
            r"alias best not found.*It has models:/book-reranker@champion",
        ),
        (
            "models:/no-such/1",
            r"models:/no-such/1: not in the MLflow store sqlite:.*no-such not found",
        ),
        ("models:/book-reranker/99", r"version=99\) not found"),
        ("nowhere", r"nowhere: not in the MLflow store"),
    ],
)
def test_a_model_that_is_not_there_is_named_with_the_store_and_what_it_has(
    registered: Registered, uri: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Reranker.load(uri)


@pytest.mark.slow
def test_the_command_line_reranks_with_the_champion(
    registered: Registered, store_cfg: TrackingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [
        "--history",
        "11,40",
        "--candidate-ids",
        "20,30",
        "--format",
        "json",
        "--tracking-uri",
        store_cfg.uri,
    ]
    assert main.main(["rerank", *args]) == 0
    expected = Reranker.load(registered.uri).rerank(None, [20, 30], history=[11, 40])
    assert json.loads(capsys.readouterr().out) == {
        "ranked": [dataclasses.asdict(r) for r in expected]
    }


@pytest.mark.slow
def test_a_model_of_another_kind_is_refused(store_cfg: TrackingConfig, tmp_path: Path) -> None:
    from mlflow.models import Model

    Model(flavors={"python_function": {"loader_module": "os"}}).save(tmp_path / "MLmodel")
    with pytest.raises(ModelError, match="this model holds no bundle"):
        Reranker.load(str(tmp_path), tracking_uri=store_cfg.uri)


@pytest.mark.slow
def test_a_missing_store_is_named_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    code = f"from reranker import Reranker; Reranker.load('models:/a@b', tracking_uri='sqlite:///{path}')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"ModelError: models:/a@b: there is no MLflow store at {path}." in done.stderr
    assert list(tmp_path.iterdir()) == []
