"""Frozen lists, baselines, per-user metrics, and the account of them."""

from reranker.eval.agreement import agree
from reranker.eval.baselines import Questions, score_baselines
from reranker.eval.evaluate import Evaluation, dev_scorer, evaluate, mean_ndcg_10, score_lists
from reranker.eval.lists import Lists, build_lists, hash_kind

__all__ = [
    "Evaluation",
    "Lists",
    "Questions",
    "agree",
    "build_lists",
    "dev_scorer",
    "evaluate",
    "hash_kind",
    "mean_ndcg_10",
    "score_baselines",
    "score_lists",
]
