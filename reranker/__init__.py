"""Rerank books for a reader: `from reranker import Reranker`. Importing this module alone loads nothing heavy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reranker.serving.reranker import Reranker

    __version__: str

__all__ = ["Reranker", "__version__"]


def __getattr__(name: str) -> Any:
    """`Reranker` and `__version__`, looked up on first use."""
    if name == "Reranker":
        from reranker.serving.reranker import Reranker

        return Reranker
    if name == "__version__":
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("reranker")
        except (
            PackageNotFoundError
        ) as error:  # a served model brings this folder along without installing it
            raise AttributeError(
                "reranker is not installed here, so it has no version; pip install it"
            ) from error
    raise AttributeError(f"module 'reranker' has no attribute {name!r}")
