"""Find models in the MLflow store or in folders: the start of a training, and its teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.config import MODEL_URI, TEACHERS, ModelConfig
from reranker.model import resolve, trained_attention
from reranker.serving.bundle import MANIFEST, MODEL_SETTINGS, model_config
from reranker.serving.registry import download

if TYPE_CHECKING:
    from reranker.data import Tables


def find_model(place: str, *, max_length: int, tracking_uri: str | None = None) -> ModelConfig:
    """Return the configuration that loads the model at a place, after checking every file.

    Args:
        place: A model URI (`models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/RUN/reranker`), the
            folder of a bundle or of its weights, or any folder of weights.
        max_length: The maximum length in tokens for weights outside a bundle. A bundle has its own.
        tracking_uri: The MLflow store of a URI; None uses the configured one, or else the
            project's own.

    Raises:
        ModelError: The model does not exist, is incomplete, or is not safe to load.

    Example:
        >>> find_model("models:/book-reranker@champion", max_length=256).path
        '/tmp/tmpab12/reranker/artifacts/bundle/weights'
    """
    is_uri = MODEL_URI.match(place)
    found = (
        model_config(download(place, tracking_uri))
        if is_uri
        else _in_folder(Path(place), max_length)
    )
    resolve(found)
    return found


def find_teacher(name: str | None, *, max_length: int) -> ModelConfig | None:
    """Return the configuration that loads a teacher, or None if the name is not of a model.

    The activation is always the identity, also for a teacher that is served with another one:
    distillation uses differences of logits.

    Args:
        name: A place as in `find_model`. None and the baselines of TEACHERS have no weights.
        max_length: As in `find_model`.

    Raises:
        ModelError: As in `find_model`.

    Example:
        >>> find_teacher("models:/book-reranker@champion", max_length=256).activation
        'identity'
    """
    if name is None or name in TEACHERS:
        return None
    return replace(find_model(name, max_length=max_length), activation="identity")


def start_model(cfg: ModelConfig) -> ModelConfig:
    """Return the configuration with a registered model's own folder and settings in it.

    With `model.source=registered`, name, max_length, activation and attention are those of the
    model at `model.uri`. Any other configuration is returned unchanged.

    Raises:
        ModelError: As in `find_model`.
    """
    if cfg.source != "registered":
        return cfg
    found = find_model(str(cfg.uri), max_length=cfg.max_length)
    own = {name: getattr(found, name) for name in MODEL_SETTINGS}
    return replace(cfg, source="path", path=found.path, **own)


def _in_folder(folder: Path, max_length: int) -> ModelConfig:
    for bundle in (folder, folder.parent if folder.name == "weights" else folder):
        if (bundle / MANIFEST).is_file():
            return model_config(bundle)
    plain = ModelConfig(name="path", source="path", path=str(folder), max_length=max_length)
    return replace(plain, attention=trained_attention(resolve(plain).folder) or plain.attention)


def data_warnings(model: ModelConfig | None, tables: Tables, *, role: str) -> list[str]:
    """Return a warning if a model was trained on other tables than this run's, else [].

    The tables differ if any `data.*` key differs: the seed of the splits, but also the template of
    the texts. Weights outside a bundle have no record of their data, so there is no warning.

    Args:
        role: What the run uses the model for: `teacher` or `model`.
    """
    if model is None:
        return []
    manifest = Path(str(model.path)).parent / MANIFEST
    if not manifest.is_file():
        return []
    if json.loads(manifest.read_text()).get("tables") == tables.digest:
        return []
    return [
        f"the {role} in {manifest.parent} was trained with other data.* than this run's: its "
        "training users may include this run's test users, and its texts may have another format. "
        f"Train the {role} with the same data.*, or assume that it may have seen test answers"
    ]
