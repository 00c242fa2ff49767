"""Find the teacher model of a run in the MLflow store or in a folder."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.config import TEACHERS, ModelConfig
from reranker.model import resolve, trained_attention
from reranker.serving.bundle import MANIFEST, model_config
from reranker.serving.registry import download

if TYPE_CHECKING:
    from reranker.data import Tables

URI = re.compile(r"[a-z][a-z0-9+.-]*:/")


def find_teacher(name: str | None, *, max_length: int) -> ModelConfig | None:
    """Return the configuration that loads a teacher, or None if the name is not of a model.

    Every file of the teacher is verified. The activation is always the identity, also for a teacher
    that is served with another one: distillation uses differences of logits.

    Args:
        name: A model URI (`models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/RUN/reranker`), the folder
            of a bundle or of its weights, or any folder of weights. None and the baselines of
            TEACHERS have no weights.
        max_length: The maximum length in tokens for weights outside a bundle. A bundle has its own.

    Raises:
        ModelError: The model does not exist, is incomplete, or is not safe to load.

    Example:
        >>> find_teacher("models:/book-reranker@champion", max_length=256).activation
        'identity'
    """
    if name is None or name in TEACHERS:
        return None
    is_uri = URI.match(name)
    found = model_config(download(name)) if is_uri else _in_folder(Path(name), max_length)
    resolve(found)
    return replace(found, activation="identity")


def _in_folder(folder: Path, max_length: int) -> ModelConfig:
    for bundle in (folder, folder.parent if folder.name == "weights" else folder):
        if (bundle / MANIFEST).is_file():
            return model_config(bundle)
    plain = ModelConfig(name="teacher", source="path", path=str(folder), max_length=max_length)
    return replace(plain, attention=trained_attention(resolve(plain).folder) or plain.attention)


def teacher_warnings(teacher: ModelConfig | None, tables: Tables) -> list[str]:
    """Return a warning if the teacher was trained on other tables than this run's, else [].

    The tables differ if any `data.*` key differs: the seed of the splits, but also the template of
    the texts. Weights outside a bundle have no record of their data, so there is no warning.
    """
    if teacher is None:
        return []
    manifest = Path(str(teacher.path)).parent / MANIFEST
    if not manifest.is_file():
        return []
    if json.loads(manifest.read_text()).get("tables") == tables.digest:
        return []
    return [
        f"the teacher in {manifest.parent} was trained with other data.* than this run's: its "
        "training users may include this run's test users, and its texts may have another format. "
        "Train the teacher with the same data.*, or assume that the student may have learned test "
        "answers from it"
    ]
