"""Train and use rerankers of books: `from reranker import Reranker, compose, run`.

Importing this module loads no large libraries.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reranker.api import RunResult, run
    from reranker.config import compose
    from reranker.serving.reranker import Reranker

    __version__: str

__all__ = ["Reranker", "RunResult", "__version__", "compose", "run"]

# Public name -> its module.
_PLACES = {
    "Reranker": "reranker.serving.reranker",
    "RunResult": "reranker.api",
    "compose": "reranker.config",
    "run": "reranker.api",
}


def __getattr__(name: str) -> Any:
    """Import a public name or look up `__version__` on first use."""
    if name in _PLACES:
        return getattr(import_module(_PLACES[name]), name)
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
