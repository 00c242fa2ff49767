"""The bundle that a run registers: a folder of weights, catalogue and context settings, written, checked and read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from reranker.cache import digest_file
from reranker.config import VARIANTS, DataConfig, ModelConfig
from reranker.data.contexts import ContextBuilder
from reranker.data.numeric_features import Match
from reranker.data.retrieval.ease import Ease
from reranker.data.tables import Tables
from reranker.errors import ModelError
from reranker.model import openvino_scorer

if TYPE_CHECKING:
    from reranker.model import Encoder

FORMAT = 4  # of the bundle folder; raise it when older readers would misread it
TEMPLATE_1 = "Likes: {titles}. Genres: {genres}"  # of every context, when a bundle of format 1 did not name it
MANIFEST = "bundle.json"
EASE = "ease.safetensors"
# Data only: nothing here can run code when it is read. (.model: a sentencepiece vocabulary)
SUFFIXES = {".json", ".model", ".parquet", ".safetensors", ".txt"}
BOOK_COLUMNS = ["book_id", "title", "series", "authors", "genres", "book_text"]
VARIANT_FILES = {
    f"weights/openvino_{v}/{name}"
    for v in VARIANTS
    for name in (*openvino_scorer.FILES, openvino_scorer.MANIFEST)
}
Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]


class Bundle(NamedTuple):
    """A bundle in memory: what its model scores with, and the catalogue and the contexts that it was trained on."""

    score: Score
    contexts: ContextBuilder
    books: pd.DataFrame
    editions: pd.DataFrame
    match: Match | None


def write_bundle(
    folder: Path,
    encoder: Encoder,
    tables: Tables,
    data_cfg: DataConfig,
    model_cfg: ModelConfig,
    *,
    match: Match | None = None,
) -> Path:
    """The folder, new, with all that serving needs: `weights/`, `books.parquet`, `editions.parquet`, `bundle.json`.

    Where texts show ratings, also `ease.safetensors`. bundle.json is written last: it holds the context settings and
    pins every other file by its SHA-256. Book descriptions stay out but for what the book texts show; ratings and users
    stay out altogether.

    Args:
        match: What put numbers before the texts that the encoder was trained on.

    Raises:
        FileExistsError: The folder is there already.
        ModelError: The encoder saved a file of a kind that a bundle refuses.
    """
    folder.mkdir(parents=True)
    encoder.save(folder / "weights")
    tables.books[BOOK_COLUMNS].to_parquet(folder / "books.parquet", index=False)
    tables.editions.to_parquet(folder / "editions.parquet", index=False)
    if match is not None and match.ease is not None:
        match.ease.save(folder / EASE)
    manifest = {
        "format": FORMAT,
        "model": {
            name: getattr(model_cfg, name)
            for name in ("name", "max_length", "activation", "attention")
        },
        "contexts": {
            "n_titles": data_cfg.context_titles,
            "n_genres": data_cfg.context_genres,
            "n_authors": data_cfg.context_authors,
            "positive_rating": tables.positive_rating,
            "template": data_cfg.context_template,
        },
        "shows_match": data_cfg.shows_match,
        "tables": tables.digest,
        "files": {name: digest_file(folder / name) for name in _files(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return folder


def read_bundle(folder: Path, *, device: str, variant: str | None) -> Bundle:
    """What a bundle holds, once every file has the bytes that its manifest names.

    Args:
        device: Where the model scores, as torch names it.
        variant: int8 or bf16, on the CPU; None scores with the weights.

    Raises:
        ModelError: The folder is not a bundle, lacks or adds a file, a file has not the SHA-256 it is pinned to,
            or the variant is not there or not for these weights.
    """
    manifest = _verify(folder)
    books = pd.read_parquet(folder / "books.parquet")
    contexts = ContextBuilder(books, **{"template": TEMPLATE_1, **manifest["contexts"]})
    score = _scorer(folder / "weights", manifest["model"], device, variant)
    editions = pd.read_parquet(folder / "editions.parquet")
    return Bundle(score, contexts, books, editions, _match(folder, manifest, books))


def model_config(folder: Path) -> ModelConfig:
    """How a bundle's weights are loaded, once every file has the bytes that its manifest names.

    Raises:
        ModelError: The folder is not a whole bundle.
    """
    return ModelConfig(source="path", path=str(folder / "weights"), **_verify(folder)["model"])


def _files(folder: Path) -> list[str]:
    """The files of a bundle but its manifest and its variants'; a kind that could hold code is an error.

    A variant comes after the manifest, and has one of its own that is checked where it is loaded.
    """
    found = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if not f.is_dir()}
    names = sorted(found - VARIANT_FILES)
    for name in names:
        if Path(name).suffix not in SUFFIXES:
            raise ModelError(
                f"{folder / name}: a bundle holds only {', '.join(sorted(SUFFIXES))}; remove this file."
            )
    return [name for name in names if name != MANIFEST]


def _verify(folder: Path) -> dict[str, Any]:
    """The manifest of a bundle, once every file is there and has the bytes that it names."""
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(
            f"{folder}: no {MANIFEST} here. Give a folder that write_bundle wrote, or load a model URI."
        )
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(
            f"{path}: not JSON ({error}). Download or register the model again."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") not in range(1, FORMAT + 1):
        raise ModelError(
            f"{path}: not a bundle of a format up to {FORMAT}; use the version of this package that wrote it."
        )
    if strange := sorted(set(_files(folder)) ^ set(manifest["files"])):
        state = "is missing" if strange[0] in manifest["files"] else "does not belong here"
        raise ModelError(
            f"{folder / strange[0]} {state}: {MANIFEST} names the files. Download or register again."
        )
    for name, sha256 in manifest["files"].items():
        if (found := digest_file(folder / name)) != sha256:
            raise ModelError(
                f"{folder / name}: SHA-256 {found[:12]}… is not the pinned {sha256[:12]}…; the file is damaged or was "
                "changed. Download or register the model again."
            )
    return manifest


def _match(folder: Path, manifest: Mapping[str, Any], books: pd.DataFrame) -> Match | None:
    ease = Ease.read(folder / EASE, n_books=len(books)) if EASE in manifest["files"] else None
    names = bool(manifest.get("shows_match"))
    return Match(books, names=names, ease=ease) if names or ease is not None else None


def _scorer(weights: Path, settings: Mapping[str, Any], device: str, variant: str | None) -> Score:
    from reranker.model import load, load_exported

    if variant is None:
        return load(ModelConfig(source="path", path=str(weights), **settings), device=device).score
    if device != "cpu":
        raise ModelError(
            f"variant={variant} scores on the CPU, but device={device!r}; leave one of them out."
        )
    return load_exported(weights, variant).score
