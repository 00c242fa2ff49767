"""Frozen lists, baselines, per-user metrics, and the account of them."""

from reranker.eval.baselines import Questions, once_per_text, score_baselines
from reranker.eval.evaluate import Evaluation, dev_scorer, evaluate, mean_ndcg_10, score_lists
from reranker.eval.first_stage import depth_curve, summarise_first_stage
from reranker.eval.fusion import choose_fusions, fuse_lists
from reranker.eval.lists import Lists, build_lists, hash_kind, name_lists

__all__ = [
    "Evaluation",
    "Lists",
    "Questions",
    "build_lists",
    "choose_fusions",
    "depth_curve",
    "dev_scorer",
    "evaluate",
    "fuse_lists",
    "hash_kind",
    "mean_ndcg_10",
    "name_lists",
    "once_per_text",
    "score_baselines",
    "score_lists",
    "summarise_first_stage",
]
