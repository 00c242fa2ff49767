"""Fine-tuning: an encoder and pairs in, the encoder at its best dev checkpoint out."""

from reranker.trainer.callbacks import Event
from reranker.trainer.distillation import Taught, keep_scores, score_pairs
from reranker.trainer.distributed import follows
from reranker.trainer.fit import fit
from reranker.trainer.history import History
from reranker.trainer.worker import follow, lead

__all__ = [
    "Event",
    "History",
    "Taught",
    "fit",
    "follow",
    "follows",
    "keep_scores",
    "lead",
    "score_pairs",
]
