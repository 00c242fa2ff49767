"""The corpus of a run: its tables and every user's context."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data.contexts import Contexts, build_contexts
from reranker.data.retrieval.ease import EASE_BOOKS
from reranker.data.tables import Tables, load_tables


@dataclass(frozen=True)
class Corpus:
    """The tables of a data source, and the user contexts built from them."""

    tables: Tables
    contexts: Contexts

    @property
    def digest(self) -> str:
        """SHA-256 of the tables; see `Contexts.cache_key` for what else contexts depend on."""
        return self.tables.digest

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of rows read, written and dropped, by reason."""
        return self.tables.counts

    @property
    def path(self) -> Path:
        """The folder of the tables' parquet files."""
        return self.tables.path

    @property
    def hit(self) -> bool:
        """Whether the tables came from the cache."""
        return self.tables.hit


def load(cfg: DataConfig, cache: Cache, *, ease_books: int = EASE_BOOKS) -> Corpus:
    """Load the tables of a source and build every user's context.

    Args:
        ease_books: The number of most rated books that the text feature `ease` ranks; a run
            passes `cfg.eval.ease_books`.

    Raises:
        DataError: For the reasons given in `load_tables`.

    Example:
        >>> corpus = load(cfg.data, Cache(cfg.cache_dir))
        >>> corpus.contexts.text[0]
        'Likes: Dune by Frank Herbert; Emma by Jane Austen. Genres: classics, romance'
    """
    tables = load_tables(cfg, cache)
    return Corpus(tables, build_contexts(tables, cfg, ease_books=ease_books))
