"""Writes, verifies and reads a bundle: a folder with a model's weights, catalogue and settings."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from reranker.cache import digest_file
from reranker.config import VARIANTS, ModelConfig
from reranker.data.contexts import ContextBuilder
from reranker.data.corpus import Corpus
from reranker.data.numeric_features import NumericFeatures
from reranker.data.retrieval.ease import Ease
from reranker.errors import ModelError
from reranker.model import openvino_scorer

if TYPE_CHECKING:
    from reranker.model import Encoder

FORMAT = 5  # of the bundle folder; raise it when older versions of the package would misread it
# The template of all contexts in bundles of format 1, which do not store one.
TEMPLATE_1 = "Likes: {titles}. Genres: {genres}"
MANIFEST = "bundle.json"
EASE = "ease.safetensors"
# Only data: reading these files cannot run code. (.model is a sentencepiece vocabulary.)
SUFFIXES = {".json", ".model", ".parquet", ".safetensors", ".txt"}
BOOK_COLUMNS = ["book_id", "title", "series", "authors", "genres", "book_text"]
N_READERS = "n_readers"  # a further column of books.parquet, with the text feature `readers`
MODEL_SETTINGS = ("name", "max_length", "activation", "attention")
VARIANT_FILES = {
    f"weights/openvino_{v}/{name}"
    for v in VARIANTS
    for name in (*openvino_scorer.FILES, openvino_scorer.MANIFEST)
}
Score = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory: the model's scoring function, its catalogue, and what renders texts.

    Attributes:
        score: Queries and candidates, (n_pairs,) texts each -> (n_pairs,) scores.
        contexts: Renders the context of a history.
        books: The catalogue: BOOK_COLUMNS by book code.
        editions: book_id -> book, the code of the edition in `books`.
        numeric_features: What prepends numeric features to texts of the catalogue, if any.
    """

    score: Score
    contexts: ContextBuilder
    books: pd.DataFrame
    editions: pd.DataFrame
    numeric_features: NumericFeatures | None


def write_bundle(folder: Path, encoder: Encoder, corpus: Corpus, *, model_cfg: ModelConfig) -> Path:
    """Write all that serving needs to a new folder, and return it.

    The folder holds `weights/`, `books.parquet`, `editions.parquet`, `bundle.json`, and with the
    text feature `ease` also `ease.safetensors`. `bundle.json` is written last: it holds the
    settings of contexts and texts, and pins every other file by its SHA-256. Book descriptions are
    left out, except where a book's text contains its description. No user and no rating is stored.

    Args:
        corpus: What the encoder was trained on.
        model_cfg: How the encoder was loaded.

    Raises:
        FileExistsError: The folder exists.
        ModelError: The encoder saved a file of a kind that a bundle may not contain.

    Example:
        >>> write_bundle(Path("outputs/bundle"), encoder, corpus, model_cfg=cfg.model)
    """
    tables, contexts = corpus.tables, corpus.contexts
    features = contexts.numeric_features
    folder.mkdir(parents=True)
    encoder.save(folder / "weights")
    books = tables.books[BOOK_COLUMNS]
    if features is not None and features.n_readers is not None:
        books = books.assign(**{N_READERS: features.n_readers})
    books.to_parquet(folder / "books.parquet", index=False)
    tables.editions.to_parquet(folder / "editions.parquet", index=False)
    if features is not None and features.ease is not None:
        features.ease.save(folder / EASE)
    manifest = {
        "format": FORMAT,
        "model": {name: getattr(model_cfg, name) for name in MODEL_SETTINGS},
        "contexts": contexts.builder.settings(),
        "text_features": [] if features is None else list(features.names),
        "tables": tables.digest,
        "files": {name: digest_file(folder / name) for name in _files(folder)},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1))
    return folder


def read_bundle(folder: Path, *, device: str, variant: str | None) -> Bundle:
    """Read a bundle after checking that every file has the SHA-256 in the manifest.

    Bundles of formats 1 to 4 are read too, and score as they did.

    Args:
        device: Where the model scores, a device of torch.
        variant: int8 or bf16, on the CPU; None scores with the weights.

    Raises:
        ModelError: The folder is not a bundle, a file is missing, unexpected or changed, or the
            variant is missing or was exported from other weights.
    """
    manifest = _verify(folder)
    books = pd.read_parquet(folder / "books.parquet")
    return Bundle(
        score=_scorer(folder / "weights", manifest["model"], device, variant),
        contexts=ContextBuilder(books, **{"template": TEMPLATE_1, **manifest["contexts"]}),
        books=books,
        editions=pd.read_parquet(folder / "editions.parquet"),
        numeric_features=_numeric_features(folder, manifest, books),
    )


def model_config(folder: Path) -> ModelConfig:
    """Return how to load a bundle's weights, after checking every file as `read_bundle` does.

    Raises:
        ModelError: The folder is not a complete bundle.
    """
    return ModelConfig(source="path", path=str(folder / "weights"), **_verify(folder)["model"])


def _files(folder: Path) -> list[str]:
    """Return the files of a bundle, without its manifest and the files of its variants.

    A variant is exported after the manifest was written. Its own manifest is checked when the
    variant is loaded.

    Raises:
        ModelError: A file is of a kind that could contain code.
    """
    found = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if not f.is_dir()}
    names = sorted(found - VARIANT_FILES)
    for name in names:
        if Path(name).suffix not in SUFFIXES:
            raise ModelError(
                f"{folder / name}: a bundle holds only {', '.join(sorted(SUFFIXES))}; remove this "
                "file."
            )
    return [name for name in names if name != MANIFEST]


def _verify(folder: Path) -> dict[str, Any]:
    """Return the manifest of a bundle after checking that all files are there and unchanged."""
    manifest = _manifest(folder / MANIFEST)
    if differing := sorted(set(_files(folder)) ^ set(manifest["files"])):
        state = "is missing" if differing[0] in manifest["files"] else "does not belong here"
        raise ModelError(
            f"{folder / differing[0]} {state}: {MANIFEST} names the files. Download or register "
            "again."
        )
    for name, sha256 in manifest["files"].items():
        if (found := digest_file(folder / name)) != sha256:
            raise ModelError(
                f"{folder / name}: SHA-256 {found[:12]}… is not the pinned {sha256[:12]}…; the "
                "file is damaged or was changed. Download or register the model again."
            )
    return manifest


def _manifest(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ModelError(
            f"{path.parent}: no {MANIFEST} here. Give a folder that write_bundle wrote, or load a "
            "model URI."
        )
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise ModelError(
            f"{path}: not JSON ({error}). Download or register the model again."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") not in range(1, FORMAT + 1):
        raise ModelError(
            f"{path}: not a bundle of a format up to {FORMAT}; use the version of this package "
            "that wrote it."
        )
    return manifest


def _numeric_features(
    folder: Path, manifest: Mapping[str, Any], books: pd.DataFrame
) -> NumericFeatures | None:
    has_ease = EASE in manifest["files"]
    names = manifest.get("text_features", _old_text_features(manifest, has_ease=has_ease))
    if not names:
        return None
    ease = Ease.read(folder / EASE, n_books=len(books)) if has_ease else None
    n_readers = books[N_READERS].to_numpy() if N_READERS in books else None
    return NumericFeatures(books, names, ease=ease, n_readers=n_readers)


def _old_text_features(manifest: Mapping[str, Any], *, has_ease: bool) -> list[str]:
    """Return the text features of a bundle of format 1 to 4.

    If its texts show `readers`, that feature is already part of its `book_text`.
    """
    overlap = ["authors", "genres"] if manifest.get("shows_match") else []
    return ["ease", *overlap] if has_ease else overlap


def _scorer(weights: Path, settings: Mapping[str, Any], device: str, variant: str | None) -> Score:
    from reranker.model import load, load_exported

    if variant is None:
        return load(ModelConfig(source="path", path=str(weights), **settings), device=device).score
    if device != "cpu":
        raise ModelError(
            f"variant={variant} scores on the CPU, but device={device!r}; leave one of them out."
        )
    return load_exported(weights, variant).score
