"""The corpus of a run: its tables together with every user's context."""

from __future__ import annotations

from dataclasses import dataclass

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data.contexts import Contexts, build_contexts
from reranker.data.tables import Tables, load_tables


@dataclass(frozen=True)
class Corpus:
    """Tables and the user contexts made of them."""

    tables: Tables
    contexts: Contexts

    @property
    def digest(self) -> str:
        """SHA-256 of the tables; contexts depend on nothing else."""
        return self.tables.digest

    @property
    def counts(self) -> dict[str, int]:
        """Rows in, out and dropped, by reason."""
        return self.tables.counts

    @property
    def hit(self) -> bool:
        """Whether the tables came from the cache."""
        return self.tables.hit


def load(cfg: DataConfig, cache: Cache) -> Corpus:
    """Load the tables of a source and build every user's context.

    Raises:
        DataError: As `load_tables`.

    Example:
        >>> corpus = load(cfg.data, Cache(cfg.cache_dir))
        >>> corpus.contexts.text[0]
        'Favourite books: ...'
    """
    tables = load_tables(cfg, cache)
    return Corpus(tables, build_contexts(tables, cfg))
