"""Rerank books for a user: `from reranker import Reranker`.

Importing this module loads no large libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reranker.serving.reranker import Reranker

    __version__: str

__all__ = ["Reranker", "__version__"]


def __getattr__(name: str) -> Any:
    """Import `Reranker` or look up `__version__` on first use."""
    if name == "Reranker":
        from reranker.serving.reranker import Reranker

        return Reranker
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("reranker")
        except PackageNotFoundError as error:
            # A served model contains this folder without installing it.
            raise AttributeError(
                "reranker is not installed, so it has no version; install it with pip"
            ) from error
    raise AttributeError(f"module 'reranker' has no attribute {name!r}")
