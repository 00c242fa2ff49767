"""Frozen lists, baselines, per-user metrics, and the account of them."""

from reranker.eval.baselines import Questions, score_baselines
from reranker.eval.checks import check_contexts
from reranker.eval.evaluate import Evaluation, dev_scorer, evaluate, mean_ndcg_10, score_lists
from reranker.eval.lists import Lists, build_lists, hash_kind
from reranker.eval.slices import truncated_rows

__all__ = [
    "Evaluation",
    "Lists",
    "Questions",
    "build_lists",
    "check_contexts",
    "dev_scorer",
    "evaluate",
    "hash_kind",
    "mean_ndcg_10",
    "score_baselines",
    "score_lists",
    "truncated_rows",
]
