"""Fine-tuning: an encoder and pairs in, the encoder at its best dev checkpoint out."""

from reranker.trainer.fit import fit
from reranker.trainer.record import History
from reranker.trainer.teacher import Taught, score_pairs

__all__ = ["History", "Taught", "fit", "score_pairs"]
