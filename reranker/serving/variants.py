"""Export a logged model as int8 or bf16 and store the variant with the model."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from reranker import config, data, eval, sampling
from reranker.cache import Cache
from reranker.config import Config
from reranker.errors import ModelError
from reranker.model.openvino_export import Agreement, Pair, Scorer, export
from reranker.model.openvino_scorer import FILES, MANIFEST, Manifest, folder_name, runtime
from reranker.redaction import redact
from reranker.serving import registry
from reranker.serving.bundle import model_config
from reranker.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from reranker.data import Corpus

RUN_ID = re.compile("[0-9a-f]{32}")
REQUIREMENTS = ("openvino",)  # what scoring with a variant imports in addition


@dataclass(frozen=True)
class LoggedModel:
    """A model in the MLflow store and its local bundle.

    Attributes:
        model_id: MLflow's id of the model.
        run_id: The run that logged it.
        artifact_path: The bundle's path inside the model.
        bundle: A local folder with the bundle.
    """

    model_id: str
    run_id: str
    artifact_path: str
    bundle: Path


def export_logged_model(
    name: str,
    variant: str,
    *,
    tracking_uri: str | None = None,
    n_calibration: int,
    force: bool = False,
) -> Manifest:
    """Export a variant of a logged model, store it with the model and return its manifest.

    Training pairs of the model's run calibrate int8, and the run's dev lists measure how the
    variant ranks. Both come from the cache, or are computed again from the run's configuration.

    Args:
        name: A run id or any MLflow model URI.
        variant: int8 or bf16.
        tracking_uri: The MLflow store; by default the configured one, else the project's own.
        n_calibration: Number of training pairs, evenly spaced over the file of pairs.
        force: Store the variant even if its ranking differs by more than the tolerance.

    Raises:
        ModelError: The model does not exist, its data have changed since its run, or the export
            fails.
        ConfigError: The run's configuration is not valid for this version.
    """
    import mlflow

    folder_name(variant)
    runtime("nncf")  # fail before anything is downloaded
    store.point_mlflow_at(tracking_uri or store.default_uri())
    client = mlflow.MlflowClient()
    model = _find_model(client, name)
    cfg = run_config(client, model.run_id)
    calibration, compare = _load_run_data(client, model, cfg, n_calibration=n_calibration)
    with tempfile.TemporaryDirectory(prefix="reranker-export-") as temp:
        weights = Path(temp) / "weights"
        shutil.copytree(model.bundle / "weights", weights)
        settings = model_config(model.bundle)
        settings.path = str(weights)
        manifest = export(settings, variant, calibration, compare, force=force)
        _upload_variant(client, model, weights / folder_name(variant))
    return manifest


def run_config(client: MlflowClient, run_id: str) -> Config:
    """Return the configuration of a run, from its artifact `config.yaml`.

    Raises:
        ModelError: The run has no such artifact.
        ConfigError: The configuration is not valid for this version.
    """
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="reranker-config-") as temp:
        try:
            path = client.download_artifacts(run_id, "config.yaml", temp)
            text = Path(path).read_text(encoding="utf-8")
        except (MlflowException, OSError) as error:
            raise ModelError(
                f"run {run_id} has no config.yaml, so its data are unknown; train again."
            ) from error
    return config.from_yaml(text)


def _find_model(client: MlflowClient, name: str) -> LoggedModel:
    from mlflow.models import Model

    uri = _model_of_run(client, name) if RUN_ID.fullmatch(name) else name
    bundle = registry.download(uri)
    model = Model.load(uri)
    path = model.flavors["python_function"]["artifacts"]["bundle"]["path"]
    if model.model_id is None or model.run_id is None:
        raise ModelError(
            f"{uri}: its run is unknown, so are its dev lists. Give a model that `python main.py` "
            "logged."
        )
    return LoggedModel(model.model_id, model.run_id, path, bundle)


def _model_of_run(client: MlflowClient, run_id: str) -> str:
    from mlflow.exceptions import MlflowException

    try:
        outputs = client.get_run(run_id).outputs
    except MlflowException as error:
        raise ModelError(
            f"there is no run {run_id} in {redact(str(client.tracking_uri))}."
        ) from error
    if outputs is None or not outputs.model_outputs:
        raise ModelError(f"run {run_id} logged no model; give a run that FINISHED, or a model URI.")
    return f"models:/{outputs.model_outputs[-1].model_id}"


def _load_run_data(
    client: MlflowClient, model: LoggedModel, cfg: Config, *, n_calibration: int
) -> tuple[list[Pair], Callable[[Scorer, Scorer], Agreement]]:
    """Return calibration pairs and the comparison on the dev lists; raise if the data changed."""
    cache = Cache(cfg.cache_dir)
    corpus = data.load(cfg.data, cache, ease_books=cfg.eval.ease_books)
    dev = eval.EvalSet.from_lists(corpus, cfg.eval, cache, split="dev")
    tags = client.get_run(model.run_id).data.tags
    for name, found in (("tables", corpus.digest), ("lists/dev", dev.lists.digest)):
        if (expected := tags.get(f"hash.{name}")) != found:
            raise ModelError(
                f"{name} of {cfg.data.name} are not those of run {model.run_id} (hash "
                f"{found[:12]}…, the run's {str(expected)[:12]}…). Restore its raw data, or train "
                "again."
            )
    compare = partial(eval.compare_rankings, eval_set=dev)
    return _calibration_pairs(cfg, corpus, cache, n_calibration), compare


def _calibration_pairs(cfg: Config, corpus: Corpus, cache: Cache, n: int) -> list[Pair]:
    """Return n training pairs, evenly spaced over the file of pairs, which is sorted by user."""
    pairs = sampling.build_pairs(corpus, cfg.sampling, cfg.engine, cache)
    frame = pd.read_parquet(pairs.path, columns=["user_ctx", "book_text"])
    rows = np.linspace(0, len(frame) - 1, min(n, len(frame))).astype(int)
    picked = frame.iloc[rows].astype(str)
    return list(zip(picked["user_ctx"], picked["book_text"], strict=True))


def _upload_variant(client: MlflowClient, model: LoggedModel, folder: Path) -> None:
    """Add a variant and its requirements to the logged model.

    The manifest is uploaded last: without it an incomplete variant is not loaded.
    """
    registry.add_requirements(model.model_id, REQUIREMENTS)
    target = f"{model.artifact_path}/weights/{folder.name}"
    for name in (*FILES, MANIFEST):
        client.log_model_artifact(model.model_id, str(folder / name), target)
