"""Fine-tuning: an encoder and pairs in, the encoder at its best dev checkpoint out."""

from reranker.trainer.callbacks import Event
from reranker.trainer.fit import fit
from reranker.trainer.follow import follow, lead
from reranker.trainer.processes import follows
from reranker.trainer.record import History
from reranker.trainer.teacher import Taught, keep_scores, score_pairs

__all__ = ["Event", "History", "Taught", "fit", "follow", "follows", "keep_scores", "lead", "score_pairs"]
