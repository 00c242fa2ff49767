"""Fine-tune a cross-encoder on training pairs, optionally with the scores of a teacher."""

from reranker.trainer.callbacks import Event
from reranker.trainer.distillation import BaselineTeacher, DistilledPairs, ModelTeacher, Teacher
from reranker.trainer.distributed import is_worker
from reranker.trainer.fit import fit
from reranker.trainer.history import History
from reranker.trainer.worker import run_worker

__all__ = [
    "BaselineTeacher",
    "DistilledPairs",
    "Event",
    "History",
    "ModelTeacher",
    "Teacher",
    "fit",
    "is_worker",
    "run_worker",
]
