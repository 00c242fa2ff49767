"""Run the stages of the pipeline: tables, pairs, training and evaluation."""

from reranker.pipeline.run import run

__all__ = ["run"]
