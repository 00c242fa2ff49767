"""Model configurations for tests, and texts to score with them."""

from __future__ import annotations

from pathlib import Path

from reranker.config import ModelConfig
from reranker.model.bi_encoder import PACKAGE, SHA256
from tests.helpers import hub

TINY = ModelConfig(name="tiny", source="random", max_length=64)
WHEEL = ModelConfig(name="wheel", source="wheel", package=PACKAGE, sha256=SHA256)
QUERIES = [
    "Liked: Dune. Genres: science fiction.",
    "Liked: Emma.",
    "Liked: Ubik, Solaris.",
    "",
] * 20
CANDIDATES = [f"Book {i}: " + "a story of the sea. " * (i % 9) for i in range(80)]


def at(path: Path, **changes: object) -> ModelConfig:
    """Return the configuration of the weights in a folder."""
    return ModelConfig(name="local", source="path", path=str(path), **changes)


def on_hub(repository: hub.Repository) -> ModelConfig:
    """Return the configuration of a hub id and revision."""
    return ModelConfig(name="hub", source="hub", hub_id=repository[0], revision=repository[1])
