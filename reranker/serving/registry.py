"""Register bundles in MLflow, move the alias to the best version and download bundles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from reranker.config import TrackingConfig
from reranker.errors import ModelError
from reranker.redaction import redact
from reranker.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.models.model import ModelInfo

PACKAGE = Path(__file__).resolve().parent.parent
# Direct dependencies that are imported to load a bundle and score with it; a test compares them
# with the modules of a served model.
REQUIREMENTS = (
    "bm25s",
    "filelock",
    "httpx2",
    "huggingface-hub",
    "hydra-core",
    "mlflow",
    "numpy",
    "omegaconf",
    "pandas",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "rich",
    "safetensors",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "tokenizers",
    "torch",
    "transformers",
)
# Invented, because MLflow stores it with the model: no data of a user.
EXAMPLE = [
    {
        "user_ctx": "Likes: A Study in Scarlet by Arthur Conan Doyle. Genres: mystery",
        "candidates": [
            {"text": "Title: The Sign of Four | Authors: Arthur Conan Doyle | Genres: mystery"},
            {"text": "Title: Peter Pan | Authors: J. M. Barrie | Genres: fantasy"},
        ],
    }
]


@dataclass(frozen=True)
class Registered:
    """A logged model and its version in the registry.

    Attributes:
        version: None if the model was not registered.
        uri: The URI for `Reranker.load`, or the folder of a bundle that was not logged.
        model_id: MLflow's id of the logged model; None if it was not logged.
        alias_moved: Whether the alias points to this version now.
        reason: Why the alias moved or did not move.
    """

    version: int | None
    uri: str
    model_id: str | None
    alias_moved: bool
    reason: str


def pinned(packages: Iterable[str]) -> list[str]:
    """Return `package==version` for the installed version of each package.

    The local build label is removed, because no package index has `2.13.0+cpu`.
    """
    return [f"{name}=={version(name).split('+')[0]}" for name in packages]


def register_bundle(
    bundle: Path,
    cfg: TrackingConfig,
    *,
    dev_ndcg_10: float,
    dev_lists: str,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Registered:
    """Log a bundle to the active run as a model and register it as the next version.

    The model runs from source: it contains no pickle. `cfg.alias` moves to the new version unless
    the version that has the alias scored higher on the same dev lists. On a SQLite store a lock
    makes parallel jobs register one after another. On other stores two jobs that end at the same
    time may both compare themselves with the same earlier version.

    Args:
        bundle: A folder of `write_bundle`.
        cfg: If `registered_model` is null, the model is logged and not registered.
        dev_ndcg_10: The value by which versions are compared; stored as a tag of the version.
        dev_lists: Digest of the dev lists on which it was measured. Values of different lists are
            not compared.
        metrics: Additional metrics, logged to the run and linked to the model.
        tags: Additional tags of the version.

    Raises:
        ModelError: No run is active, or dev_ndcg_10 is not finite.
    """
    import mlflow

    run = mlflow.active_run()
    if run is None:
        raise ModelError(
            "no MLflow run is active, and a model is logged to a run: call register_bundle within "
            "mlflow.start_run()."
        )
    if not math.isfinite(dev_ndcg_10):
        raise ModelError(
            f"dev_ndcg_10={dev_ndcg_10}: no dev user has a positive; raise eval.max_dev_users."
        )
    logged = _log_model(bundle)
    if metrics:
        mlflow.log_metrics(dict(metrics), model_id=logged.model_id)
    if cfg.registered_model is None:
        reason = "tracking.registered_model is null"
        return Registered(None, logged.model_uri, logged.model_id, False, reason)
    own = {
        "dev_ndcg_10": repr(float(dev_ndcg_10)),
        "dev_lists": dev_lists,
        "run_id": run.info.run_id,
    }
    return _register_version(logged, cfg.registered_model, cfg.alias, tags={**(tags or {}), **own})


def _log_model(bundle: Path) -> ModelInfo:
    import mlflow

    return mlflow.pyfunc.log_model(
        name="reranker",
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(PACKAGE)],
        model_config={"variant": None},  # the keys that can be set when the model is loaded
        input_example=EXAMPLE,
        pip_requirements=pinned(REQUIREMENTS),
    )


def _register_version(
    logged: ModelInfo, name: str, alias: str, *, tags: dict[str, str]
) -> Registered:
    import mlflow

    client = mlflow.MlflowClient()
    with _lock(mlflow.get_registry_uri()):
        new = mlflow.register_model(logged.model_uri, name, tags=tags)
        moves, reason = _choose_alias(client, name, alias, tags=tags)
        if moves:
            client.set_registered_model_alias(name, alias, str(new.version))
    uri = f"models:/{name}/{new.version}"
    return Registered(int(new.version), uri, logged.model_id, moves, reason)


def _choose_alias(
    client: MlflowClient, name: str, alias: str, *, tags: Mapping[str, str]
) -> tuple[bool, str]:
    """Return whether the alias moves to the version with these tags, and the reason."""
    holder = client.get_registered_model(name).aliases.get(alias)
    if holder is None:
        return True, f"no version was {alias} before"
    earlier = client.get_model_version(name, holder).tags
    if earlier.get("dev_lists") != tags["dev_lists"]:
        return True, f"version {holder} was {alias}, but was measured on other dev lists"
    before, now = float(earlier["dev_ndcg_10"]), float(tags["dev_ndcg_10"])
    if before <= now:
        return True, f"dev ndcg_10 {now:.4f} is at least version {holder}'s {before:.4f}"
    return (
        False,
        f"dev ndcg_10 {now:.4f} is below version {holder}'s {before:.4f}, which stays {alias}",
    )


def _lock(uri: str) -> AbstractContextManager[object]:
    """Return a file lock next to a SQLite store; for other stores, a context without a lock."""
    file = store.sqlite_file(uri)
    return FileLock(file.with_name(".registry.lock")) if file else nullcontext()


def add_requirements(model_id: str, packages: Iterable[str]) -> None:
    """Add packages, pinned to the installed versions, to the requirements of a logged model."""
    from mlflow.models import update_model_requirements

    with store.without_info("mlflow.models.model"):
        update_model_requirements(f"models:/{model_id}", "add", pinned(packages))


def download(uri: str, tracking_uri: str | None = None) -> Path:
    """Return a local folder with the bundle of a model; the model's own code is not run.

    Raises:
        ModelError: The store, model, version or alias does not exist, or `register_bundle` did not
            write the model.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if tracking_uri is not None or not mlflow.tracking.is_tracking_uri_set():
        store.point_mlflow_at(tracking_uri or store.default_uri())
    registry_uri = mlflow.get_registry_uri()
    _check_exists(uri, registry_uri)
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
        flavor = mlflow.models.Model.load(str(folder)).flavors.get("python_function", {})
    except MlflowException as error:
        missing = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        known = f" {_known_models(mlflow.MlflowClient())}" if missing else ""
        reason = redact(error.message)
        raise ModelError(
            f"{uri}: not in the MLflow store {redact(registry_uri)} ({reason}).{known}"
        ) from error
    bundle = folder / flavor.get("artifacts", {}).get("bundle", {}).get("path", "..")
    if not bundle.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{uri}: this model contains no bundle. Give a model that a run of `python main.py` "
            "registered."
        )
    return bundle


def _check_exists(uri: str, store_uri: str) -> None:
    file = store.sqlite_file(store_uri)
    if file is None:
        return
    if not file.exists():  # MLflow would create an empty store
        raise ModelError(
            f"{uri}: there is no MLflow store at {file}. Run `python main.py`, or give a tracking "
            "URI."
        )
    with store.init_lock(store_uri):  # another process may be creating the store
        pass


def _known_models(client: MlflowClient) -> str:
    names = [
        f"models:/{model.name}@{alias}"
        for model in client.search_registered_models(max_results=20)
        for alias in model.aliases
    ]
    if names:
        return f"The store has {', '.join(names)}."
    return "The store has no model with an alias; `python main.py` registers one."
