"""Registered models: tags, the alias, requirements, and MLflow's own loading."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
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
from reranker.config import ROOT, TrackingConfig
from reranker.errors import ModelError
from reranker.model.openvino_scorer import FILES, MANIFEST
from reranker.serving import registry, variants
from reranker.serving.registry import Registered, register_bundle
from reranker.serving.reranker import Reranker
from reranker.serving.variants import LoggedModel
from tests.helpers.bundles import REQUEST


@pytest.fixture(scope="module")
def store_cfg(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingConfig]:
    """Yield the config of a new store, and reset MLflow's tracking URI at the end."""
    import mlflow

    from reranker.tracking.store import open_store

    cfg = TrackingConfig(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")
    _, experiment = open_store(cfg)
    mlflow.set_experiment(experiment_id=experiment)
    yield cfg
    mlflow.set_tracking_uri(None)


@pytest.fixture(scope="module")
def register(bundle: Path, store_cfg: TrackingConfig) -> Callable[..., Registered]:
    """Return a function that registers the bundle in a new run."""
    import mlflow

    def register(
        dev_ndcg_10: float, dev_lists: str, name: str | None = "book-reranker", **kwargs: Any
    ) -> Registered:
        cfg = dataclasses.replace(store_cfg, registered_model=name)
        with mlflow.start_run():
            return register_bundle(
                bundle, cfg, dev_ndcg_10=dev_ndcg_10, dev_lists=dev_lists, **kwargs
            )

    return register


@pytest.fixture(scope="module")
def registered(register: Callable[..., Registered]) -> Registered:
    return register(0.5, "lists a", metrics={"test/ndcg_10": 0.25}, tags={"data": "demo"})


@pytest.mark.slow
def test_a_version_has_its_dev_value_as_a_tag_and_the_model_its_metrics(
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
def test_loading_by_alias_by_version_and_from_a_folder_gives_the_same_ranking(
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
def test_a_model_loaded_by_mlflow_ranks_as_the_reranker(registered: Registered) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered.uri)
    [ranked] = model.predict([REQUEST])
    expected = Reranker.load(registered.uri).rerank(None, **REQUEST)
    assert [r.model_dump() for r in ranked] == [dataclasses.asdict(r) for r in expected]


@pytest.mark.slow
def test_model_config_selects_the_variant(registered: Registered) -> None:
    """This model has no variant, so that the error shows which one was looked for."""
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
def test_an_invalid_request_gives_status_400_and_names_the_field(
    registered: Registered, change: dict[str, Any], message: str
) -> None:
    import mlflow

    model = mlflow.pyfunc.load_model(registered.uri)
    with pytest.raises(mlflow.MlflowException, match=message) as caught:
        model.predict([REQUEST, REQUEST | change])
    assert caught.value.get_http_status_code() == 400


SERVE = """
import json, sys, tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
import mlflow
model = mlflow.pyfunc.load_model(sys.argv[1])
ranked = model.predict([json.loads(sys.argv[2])])[0]
import reranker
owners = packages_distributions()
modules = {m.partition(".")[0] for m in list(sys.modules)}
used = {d.lower().replace("_", "-") for m in modules for d in owners.get(m, [])}
print(json.dumps([[r.model_dump() for r in ranked], reranker.__file__, sorted(used)]))
"""


@pytest.mark.slow
def test_a_registered_model_runs_where_the_project_is_not_installed(
    registered: Registered, store_cfg: TrackingConfig, tmp_path: Path
) -> None:
    """-S skips the .pth file of the editable install; PYTHONPATH adds the other packages."""
    env = os.environ | {
        "PYTHONPATH": sysconfig.get_path("purelib"),
        "MLFLOW_TRACKING_URI": store_cfg.uri,
    }
    command = [sys.executable, "-S", "-c", SERVE, registered.uri, json.dumps(REQUEST)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env)
    assert done.returncode == 0, done.stderr
    ranked, package, used = json.loads(done.stdout.splitlines()[-1])
    assert ranked == [
        dataclasses.asdict(r) for r in Reranker.load(registered.uri).rerank(None, **REQUEST)
    ]
    assert Path(package).parts[-3:] == ("code", "reranker", "__init__.py")
    indirect = {"boto3", "jinja2", "urllib3"}  # other packages import them
    assert direct_dependencies() & set(used) - set(registry.REQUIREMENTS) - indirect == set()


def direct_dependencies() -> set[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = (re.split(r"[\[<>=]", line)[0] for line in project["dependencies"])
    return {name.lower().replace("_", "-") for name in names}


@pytest.mark.slow
def test_requirements_are_pinned_without_local_build_labels() -> None:
    pins = dict(line.split("==") for line in registry.pinned(registry.REQUIREMENTS))
    assert pins["torch"] == importlib.metadata.version("torch").partition("+")[0]
    assert not [v for v in pins.values() if "+" in v]


@pytest.mark.slow
def test_a_model_with_a_variant_requires_openvino(
    register: Callable[..., Registered], tmp_path: Path
) -> None:
    import mlflow

    if importlib.util.find_spec("openvino") is None:
        pytest.skip("the extra is not installed: pip install -e '.[export]'")
    logged = register(0.5, "lists a", "with-variant")
    before = requirements(logged.uri)
    assert not [line for line in before if line.startswith("openvino")]
    folder = tmp_path / "openvino_int8"
    folder.mkdir()
    for name in (*FILES, MANIFEST):
        (folder / name).write_text(name)
    model = LoggedModel(logged.model_id, "run", "artifacts/bundle", tmp_path)
    variants._upload_variant(mlflow.MlflowClient(), model, folder)
    pin = f"openvino=={importlib.metadata.version('openvino')}"
    assert sorted(requirements(logged.uri)) == sorted([*before, pin])
    files = Path(mlflow.artifacts.download_artifacts(logged.uri))
    assert pin in (files / "conda.yaml").read_text()
    uploaded = files / "artifacts/bundle/weights/openvino_int8"
    assert {f.name for f in uploaded.iterdir()} == {*FILES, MANIFEST}


def requirements(uri: str) -> list[str]:
    import mlflow

    folder = Path(mlflow.artifacts.download_artifacts(uri))
    return (folder / "requirements.txt").read_text().splitlines()


@pytest.mark.slow
def test_the_alias_moves_to_the_best_version_on_the_same_lists_and_to_the_latest_on_others(
    register: Callable[..., Registered],
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
            "version 3 was champion, but was measured on other dev lists",
        ),
    ]
    for version, (dev_ndcg_10, dev_lists, moved, reason) in enumerate(steps, start=1):
        found = register(dev_ndcg_10, dev_lists, "several-versions")
        assert (found.version, found.uri) == (version, f"models:/several-versions/{version}")
        assert (found.alias_moved, found.reason) == (moved, reason)


@pytest.mark.slow
def test_without_a_registered_name_the_model_is_logged_and_loads(
    register: Callable[..., Registered],
) -> None:
    logged = register(0.5, "lists a", None)
    assert (logged.version, logged.alias_moved) == (None, False)
    assert logged.reason == "tracking.registered_model is null"
    assert len(Reranker.load(logged.uri).rerank("Likes: It.", [10, 20])) == 2


@pytest.mark.slow
def test_a_value_that_is_not_finite_is_an_error(register: Callable[..., Registered]) -> None:
    with pytest.raises(ModelError, match="dev_ndcg_10=nan: no dev user has a positive"):
        register(float("nan"), "lists a")


@pytest.mark.slow
def test_registering_outside_a_run_is_an_error(bundle: Path, store_cfg: TrackingConfig) -> None:
    with pytest.raises(ModelError, match=r"no MLflow run is active.*mlflow\.start_run\(\)"):
        register_bundle(bundle, store_cfg, dev_ndcg_10=0.5, dev_lists="lists a")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "models:/book-reranker@best",
            r"alias best not found.*The store has models:/book-reranker@champion",
        ),
        (
            "models:/no-such/1",
            r"models:/no-such/1: not in the MLflow store sqlite:.*no-such not found",
        ),
        ("models:/book-reranker/99", r"version=99\) not found"),
        ("nowhere", r"nowhere: not in the MLflow store"),
    ],
)
def test_a_missing_model_is_an_error_that_names_the_store_and_its_models(
    registered: Registered, uri: str, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        Reranker.load(uri)


@pytest.mark.slow
def test_the_command_line_reranks_with_the_champion(
    registered: Registered, store_cfg: TrackingConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["--history=11,40", "--candidate-ids=20,30", "--format=json"]
    assert main.main(["rerank", *args, "--tracking-uri", store_cfg.uri]) == 0
    expected = Reranker.load(registered.uri).rerank(None, [20, 30], history=[11, 40])
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"ranked": [dataclasses.asdict(r) for r in expected]}


@pytest.mark.slow
def test_a_model_without_a_bundle_is_an_error(store_cfg: TrackingConfig, tmp_path: Path) -> None:
    from mlflow.models import Model

    Model(flavors={"python_function": {"loader_module": "os"}}).save(tmp_path / "MLmodel")
    with pytest.raises(ModelError, match="this model contains no bundle"):
        Reranker.load(str(tmp_path), tracking_uri=store_cfg.uri)


@pytest.mark.slow
def test_a_missing_store_is_an_error_and_is_not_created(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    code = "from reranker import Reranker; Reranker.load('models:/a@b', tracking_uri={!r})"
    command = [sys.executable, "-c", code.format(f"sqlite:///{path}")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert f"ModelError: models:/a@b: there is no MLflow store at {path}." in done.stderr
    assert list(tmp_path.iterdir()) == []
