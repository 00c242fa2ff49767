"""Inputs of a run as MLflow describes them."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from mlflow.data.dataset import Dataset

MAX_DIGEST = 36  # MLflow refuses a longer digest of a dataset


def dataset(source: pd.DataFrame | Path, name: str, digest: str) -> Dataset:
    """MLflow's description of an input: a frame's schema or a file's place, under the digest's first 36 digits."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.pandas_dataset import from_pandas
    from mlflow.data.sources import LocalArtifactDatasetSource  # type: ignore[attr-defined]  # made at import

    if isinstance(source, Path):
        place = LocalArtifactDatasetSource(str(source))
        return MetaDataset(place, name=name, digest=digest[:MAX_DIGEST])  # type: ignore[abstract]  # it is not
    with warnings.catch_warnings():  # a schema here is a description; nothing is served by it
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer", UserWarning)
        return from_pandas(source, name=name, digest=digest[:MAX_DIGEST])
