"""Write a model as a plain cross-encoder folder, without the catalogue of its bundle."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.serving.model_lookup import find_model


def save_model(place: str, folder: Path, *, tracking_uri: str | None = None) -> Path:
    """Write a model to a new folder in the format of sentence-transformers; return the folder.

    The folder holds safetensors, the tokenizer, and the configuration with activation and length.
    It appears only when it is complete.

    Args:
        place: A model URI, the folder of a bundle, or any folder of weights.
        folder: Must not exist, or be empty.
        tracking_uri: The MLflow store of the URI; None uses the configured one, or else the
            project's own.

    Raises:
        ModelError: The model does not exist or is not safe to load, or the folder has files.

    Example:
        >>> save_model("models:/book-reranker@champion", Path("my-reranker"))
        >>> CrossEncoder("my-reranker").predict([("Likes: Dune.", "Title: Emma")])
    """
    from reranker.model import load

    target = folder.expanduser()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ModelError(f"{target} exists and is not an empty folder. Name a new folder.")
    found = find_model(place, max_length=ModelConfig.max_length, tracking_uri=tracking_uri)
    target.parent.mkdir(parents=True, exist_ok=True)
    temp = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        load(found, device="cpu").save(temp / "model")
        if target.exists():
            target.rmdir()
        os.replace(temp / "model", target)
    finally:
        shutil.rmtree(temp, ignore_errors=True)
    return target
