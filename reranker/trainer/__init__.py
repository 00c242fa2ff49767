"""Fine-tuning: an encoder and pairs in, the encoder at its best dev checkpoint out."""

from reranker.trainer.callbacks import Event
from reranker.trainer.distillation import DistilledPairs, attach_scores, score_pairs
from reranker.trainer.distributed import is_worker
from reranker.trainer.fit import fit
from reranker.trainer.history import History
from reranker.trainer.worker import follow, lead

__all__ = [
    "DistilledPairs",
    "Event",
    "History",
    "attach_scores",
    "fit",
    "follow",
    "is_worker",
    "lead",
    "score_pairs",
]
