"""Finds the teacher that a run names, in the MLflow store or in a folder, before the run does any work."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from reranker.config import TEACHERS, ModelConfig
from reranker.model import resolve, trained_attention

URI = re.compile(r"[a-z][a-z0-9+.-]*:/")


def find_teacher(name: str | None, *, max_length: int) -> ModelConfig | None:
    """How a teacher's weights are loaded, with every file checked; None where no model is named.

    It scores with logits, whatever it is served with: a student learns differences, which a sigmoid flattens.

    Args:
        name: A model URI (`models:/NAME@ALIAS`, `models:/NAME/3`, `runs:/RUN/reranker`), the folder of a bundle or of
            its weights, or any folder of weights. A baseline of TEACHERS has no weights.
        max_length: Of weights that lie in no bundle, which says theirs.

    Raises:
        ModelError: No such model, or not whole weights that a run saved or that are safe to load.
    """
    if name is None or name in TEACHERS:
        return None
    found = _in_store(name) if URI.match(name) else _in_folder(Path(name), max_length)
    resolve(found)
    return replace(found, activation="identity")


def _in_store(uri: str) -> ModelConfig:
    from reranker.tracking.bundle import model_config
    from reranker.tracking.registry import download

    return model_config(download(uri))


def _in_folder(folder: Path, max_length: int) -> ModelConfig:
    from reranker.tracking.bundle import MANIFEST, model_config

    for bundle in (folder, folder.parent if folder.name == "weights" else folder):
        if (bundle / MANIFEST).is_file():
            return model_config(bundle)
    plain = ModelConfig(name="teacher", source="path", path=str(folder), max_length=max_length)
    return replace(plain, attention=trained_attention(resolve(plain).folder) or plain.attention)
