"""Describe the inputs of a run as MLflow datasets."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mlflow.data.dataset import Dataset

MAX_DIGEST = 36  # MLflow rejects a longer dataset digest


def dataset(source: pd.DataFrame | Path, name: str, digest: str) -> Dataset:
    """Return an MLflow dataset: a frame with its schema, or a file with its path.

    Args:
        source: A frame, or the path of a file, which is not read.
        name: The dataset's name in the run.
        digest: Hex digest of the content; MLflow gets its first 36 digits.
    """
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.pandas_dataset import from_pandas

    # The class is created when the module is imported, so mypy does not see it.
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]

    short = digest[:MAX_DIGEST]
    if isinstance(source, Path):
        path = LocalArtifactDatasetSource(str(source))
        return MetaDataset(path, name=name, digest=short)  # type: ignore[abstract]
    with warnings.catch_warnings():  # the schema documents the frame; no model is served with it
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer", UserWarning)
        return from_pandas(source, name=name, digest=short)
