"""Convert the UCSD Book Graph as published into the raw tables."""

from reranker.data.sources.ucsd.convert import VERSION, convert, files

__all__ = ["VERSION", "convert", "files"]
