"""A model of the store, exported: calibrated on its run's train pairs, judged on its dev lists, kept beside it."""

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

from reranker import config
from reranker.cache import Cache
from reranker.config import Config
from reranker.errors import ModelError
from reranker.model.openvino_scorer import FILES, MANIFEST, Manifest, folder_name, runtime
from reranker.redaction import redact
from reranker.serving import registry
from reranker.serving.bundle import model_config
from reranker.tracking import store

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from reranker.data import Contexts, Tables
    from reranker.model.openvino_export import Agreement, Pair, Scorer


@dataclass(frozen=True)
class Source:
    """A logged model: its id, the run that it came from, where its bundle lies in it, and that bundle, here."""

    model_id: str
    run_id: str
    artifact_path: str
    bundle: Path


def export_model(
    name: str,
    variant: str,
    *,
    tracking_uri: str | None = None,
    n_calibration: int,
    force: bool = False,
) -> Manifest:
    """Export a variant of a logged model into the store, beside its weights, and return its manifest.

    The run's own configuration says which train pairs calibrate int8 and which dev lists judge the variant; the cache
    gives both where the run's machine is this one, and they are made again where it is not.

    Args:
        name: A run's id, or any MLflow model URI.
        variant: int8 or bf16.
        tracking_uri: The MLflow store; without it the one that is configured, else the project's own.
        n_calibration: Train pairs, spread evenly over the pairs file.
        force: Write the variant although its ranking is not within the tolerance.

    Raises:
        ModelError: No such model, its data are not those of its run any more, or `export` refuses.
        ConfigError: The run's configuration does not fit this version.
    """
    import mlflow

    from reranker.model.openvino_export import export

    folder_name(variant)
    runtime("nncf")  # before anything is downloaded
    store.point_mlflow_at(tracking_uri or store.default_uri())
    client = mlflow.MlflowClient()
    source = _find(client, name)
    cfg = config.from_yaml(client_text(client, source.run_id))
    calibration, compare = _material(client, source, cfg, n_calibration)
    with tempfile.TemporaryDirectory(prefix="reranker-export-") as temp:
        weights = Path(temp) / "weights"
        shutil.copytree(source.bundle / "weights", weights)
        settings = model_config(source.bundle)
        settings.path = str(weights)
        manifest = export(settings, variant, calibration, compare, force=force)
        _upload(client, source, weights / folder_name(variant))
    return manifest


def client_text(client: MlflowClient, run_id: str) -> str:
    """The artifact `config.yaml` of a run."""
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory(prefix="reranker-config-") as temp:
        try:
            return Path(client.download_artifacts(run_id, "config.yaml", temp)).read_text(
                encoding="utf-8"
            )
        except (MlflowException, OSError) as error:
            raise ModelError(
                f"run {run_id} has no config.yaml, so its data are unknown; train again."
            ) from error


def _find(client: MlflowClient, name: str) -> Source:
    from mlflow.exceptions import MlflowException
    from mlflow.models import Model

    uri = name
    if re.fullmatch("[0-9a-f]{32}", name):
        try:
            outputs = client.get_run(name).outputs
        except MlflowException as error:
            raise ModelError(
                f"there is no run {name} in {redact(str(client.tracking_uri))}."
            ) from error
        if outputs is None or not outputs.model_outputs:
            raise ModelError(
                f"run {name} logged no model; give a run that FINISHED, or a model URI."
            )
        uri = f"models:/{outputs.model_outputs[-1].model_id}"
    bundle = registry.download(uri)
    model = Model.load(uri)
    path = model.flavors["python_function"]["artifacts"]["bundle"]["path"]
    if model.model_id is None or model.run_id is None:
        raise ModelError(
            f"{uri}: its run is unknown, so are its dev lists. Give a model that `python main.py` logged."
        )
    return Source(model.model_id, model.run_id, path, bundle)


def _material(
    client: MlflowClient, source: Source, cfg: Config, n_calibration: int
) -> tuple[list[Pair], Callable[[Scorer, Scorer], Agreement]]:
    """Train pairs, and the judge on the dev lists; both must be what the run had."""
    from reranker import data, eval

    cache = Cache(cfg.cache_dir)
    tables = data.load_tables(cfg.data, cache)
    contexts = data.build_contexts(tables, cfg.data, ease_books=cfg.eval.ease_books)
    dev = eval.build_lists(tables, cfg.eval, "dev", cache)
    tags = client.get_run(source.run_id).data.tags
    for name, found in (("tables", tables.digest), ("lists/dev", dev.digest)):
        if (expected := tags.get(f"hash.{name}")) != found:
            raise ModelError(
                f"{name} of {cfg.data.name} are not those of run {source.run_id} (hash {found[:12]}…, the run's "
                f"{str(expected)[:12]}…). Restore its raw data, or train again."
            )
    compare = partial(
        eval.compare_rankings,
        tables=tables,
        contexts=contexts,
        lists=dev,
        kind=cfg.eval.list_kinds[0],
    )
    return _calibration(cfg, tables, contexts, cache, n_calibration), compare


def _calibration(
    cfg: Config, tables: Tables, contexts: Contexts, cache: Cache, n: int
) -> list[Pair]:
    """n pairs of train users, evenly spread over the pairs file, which is sorted by user."""
    import pandas as pd

    from reranker import sampling

    pairs = sampling.build_pairs(tables, contexts, cfg.sampling, cfg.engine, cache)
    frame = pd.read_parquet(pairs.path, columns=["user_ctx", "book_text"])
    rows = np.linspace(0, len(frame) - 1, min(n, len(frame))).astype(int)
    picked = frame.iloc[rows].astype(str)
    return list(zip(picked["user_ctx"], picked["book_text"], strict=True))


def _upload(client: MlflowClient, source: Source, folder: Path) -> None:
    """Add a variant to the logged model; its manifest comes last, so that half a variant is none."""
    place = f"{source.artifact_path}/weights/{folder.name}"
    for name in (*FILES, MANIFEST):
        client.log_model_artifact(source.model_id, str(folder / name), place)
