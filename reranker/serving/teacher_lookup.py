"""Finds the teacher that a run names, in the MLflow store or in a folder, before the run does any work."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.config import TEACHERS, ModelConfig
from reranker.model import resolve, trained_attention

if TYPE_CHECKING:
    from reranker.data import Tables

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
    from reranker.serving.bundle import model_config
    from reranker.serving.registry import download

    return model_config(download(uri))


def _in_folder(folder: Path, max_length: int) -> ModelConfig:
    from reranker.serving.bundle import MANIFEST, model_config

    for bundle in (folder, folder.parent if folder.name == "weights" else folder):
        if (bundle / MANIFEST).is_file():
            return model_config(bundle)
    plain = ModelConfig(name="teacher", source="path", path=str(folder), max_length=max_length)
    return replace(plain, attention=trained_attention(resolve(plain).folder) or plain.attention)


def teacher_warnings(teacher: ModelConfig | None, tables: Tables) -> list[str]:
    """What speaks against a teacher, as sentences: a bundle trained on other tables may know this run's test answers.

    Other tables are other `data.*`: another seed of the splits, but another template too. Weights that lie in no bundle
    say nothing of their data.
    """
    from reranker.serving.bundle import MANIFEST

    manifest = None if teacher is None else Path(str(teacher.path)).parent / MANIFEST
    if (
        manifest is None
        or not manifest.is_file()
        or json.loads(manifest.read_text()).get("tables") == tables.digest
    ):
        return []
    return [
        f"the teacher in {manifest.parent} was trained with other data.* than this run's: readers that this run tests "
        "may be among those it learnt from, and texts others than it has seen. Give it the same data.*, or read the "
        "results as those of a student that may have been told answers"
    ]
