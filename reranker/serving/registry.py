"""MLflow's registry: a bundle goes in as the next version, the alias follows the best, and the bundle comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
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

PACKAGE = Path(__file__).resolve().parent.parent
# The direct dependencies that a process imports to load and score (a test watches); pinned to what trained.
REQUIREMENTS = (
    *(
        "mlflow",
        "torch",
        "transformers",
        "sentence-transformers",
        "huggingface-hub",
        "safetensors",
        "scikit-learn",
    ),
    *(
        "scipy",
        "bm25s",
        "httpx2",
        "numpy",
        "pandas",
        "pyarrow",
        "pydantic",
        "hydra-core",
        "omegaconf",
        "filelock",
        "rich",
    ),
)
# Made up, for it is stored with the model: no reader's data.
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
    """Where a logged model is: `version` is None when it was logged without being registered."""

    version: int | None
    uri: str  # to give to Reranker.load
    model_id: str
    alias_moved: bool
    reason: str  # why the alias moved or stayed


def pip_requirements() -> list[str]:
    """`package==version` as installed, without the local build label (`2.13.0+cpu` is on no index)."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


def register(
    bundle: Path,
    cfg: TrackingConfig,
    *,
    dev_ndcg_10: float,
    dev_lists: str,
    metrics: Mapping[str, float] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Registered:
    """The bundle, logged to the active run as a model that runs from source, and registered as the next version.

    `cfg.alias` moves to the new version unless the version that holds it did better on the same dev lists. Parallel
    jobs on one SQLite store take turns; on another store two jobs that end together may both compare with the
    version before them.

    Args:
        bundle: A folder of `write_bundle`.
        cfg: With `registered_model` null the model is logged and not registered.
        dev_ndcg_10: The figure that versions are compared by; kept as a tag of the version.
        dev_lists: Hash of the list rows it was measured on (`eval.digest_of_kind`); figures on others are not compared.
        metrics: Further figures, linked to the model as well as to the run.
        tags: Further tags of the version.

    Raises:
        ModelError: No run is active, or dev_ndcg_10 is not finite.
    """
    import mlflow

    run = mlflow.active_run()
    if run is None:
        raise ModelError(
            "a model is registered from inside its run: call register within mlflow.start_run()."
        )
    if not math.isfinite(dev_ndcg_10):
        raise ModelError(
            f"dev_ndcg_10={dev_ndcg_10}: no dev user has a positive; raise eval.max_dev_users."
        )
    logged = mlflow.pyfunc.log_model(
        name="reranker",
        python_model=str(Path(__file__).with_name("mlflow_model.py")),
        artifacts={"bundle": str(bundle)},
        code_paths=[str(PACKAGE)],
        model_config={"variant": None},  # the keys that whoever loads or serves the model may set
        input_example=EXAMPLE,
        pip_requirements=pip_requirements(),
    )
    if metrics:
        mlflow.log_metrics(dict(metrics), model_id=logged.model_id)
    if cfg.registered_model is None:
        return Registered(
            None, logged.model_uri, logged.model_id, False, "tracking.registered_model is null"
        )
    own = {
        "dev_ndcg_10": repr(float(dev_ndcg_10)),
        "dev_lists": dev_lists,
        "run_id": run.info.run_id,
    }
    with _lock(mlflow.get_registry_uri()):
        new = mlflow.register_model(
            logged.model_uri, cfg.registered_model, tags={**(tags or {}), **own}
        )
        moved, reason = _compare(mlflow.MlflowClient(), cfg.registered_model, cfg.alias, own)
        if moved:
            mlflow.MlflowClient().set_registered_model_alias(
                cfg.registered_model, cfg.alias, str(new.version)
            )
    return Registered(
        int(new.version),
        f"models:/{cfg.registered_model}/{new.version}",
        logged.model_id,
        moved,
        reason,
    )


def _compare(
    client: MlflowClient, name: str, alias: str, own: Mapping[str, str]
) -> tuple[bool, str]:
    """Whether the alias moves to the version with tags `own`, and why."""
    holder = client.get_registered_model(name).aliases.get(alias)
    if holder is None:
        return True, f"no version was {alias} before"
    theirs = client.get_model_version(name, holder).tags
    if theirs.get("dev_lists") != own["dev_lists"]:
        return (
            True,
            f"version {holder}, {alias} before, was measured on other dev lists; the latest wins",
        )
    before, now = float(theirs["dev_ndcg_10"]), float(own["dev_ndcg_10"])
    if before <= now:
        return True, f"dev ndcg_10 {now:.4f} is at least version {holder}'s {before:.4f}"
    return (
        False,
        f"dev ndcg_10 {now:.4f} is below version {holder}'s {before:.4f}, which stays {alias}",
    )


def _lock(uri: str) -> AbstractContextManager[object]:
    """A lock beside a SQLite store; other stores have no place for one."""
    file = store.database(uri)
    return FileLock(file.with_name(".registry.lock")) if file else nullcontext()


def download(uri: str, tracking_uri: str | None = None) -> Path:
    """The local folder of the bundle inside the model that `uri` names; code that came with the model is not run.

    Raises:
        ModelError: No such store, model, version or alias, or not a model that `register` wrote.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    if tracking_uri is not None or not mlflow.tracking.is_tracking_uri_set():
        store.point_mlflow_at(tracking_uri or store.default_uri())
    place = redact(mlflow.get_registry_uri())
    _check_exists(uri, mlflow.get_registry_uri())
    try:
        folder = Path(mlflow.artifacts.download_artifacts(uri))
        flavor = mlflow.models.Model.load(str(folder)).flavors.get("python_function", {})
    except MlflowException as error:
        missing = error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
        known = f" {_known_models(mlflow.MlflowClient())}" if missing else ""
        raise ModelError(
            f"{uri}: not in the MLflow store {place} ({redact(error.message)}).{known}"
        ) from error
    bundle = folder / flavor.get("artifacts", {}).get("bundle", {}).get("path", "..")
    if not bundle.resolve().is_relative_to(folder.resolve()):
        raise ModelError(
            f"{uri}: this model holds no bundle. Give one that a run of `python main.py` registered."
        )
    return bundle


def _check_exists(uri: str, store_uri: str) -> None:
    file = store.database(store_uri)
    if file is None:
        return
    if not file.exists():  # MLflow would make an empty one
        raise ModelError(
            f"{uri}: there is no MLflow store at {file}. Run `python main.py`, or give a tracking URI."
        )
    with store.init_lock(store_uri):  # a first run may be setting it up right now
        pass


def _known_models(client: MlflowClient) -> str:
    names = [
        f"models:/{model.name}@{alias}"
        for model in client.search_registered_models(max_results=20)
        for alias in model.aliases
    ]
    return (
        f"It has {', '.join(names)}."
        if names
        else "It has no model with an alias; `python main.py` registers one."
    )
