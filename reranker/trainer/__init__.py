"""Fine-tuning: an encoder and pairs in, the encoder at its best dev checkpoint out."""

from reranker.trainer.fit import History, fit

__all__ = ["History", "fit"]
