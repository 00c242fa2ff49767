"""Frozen lists, baselines, per-user metrics, and the account of them."""

from reranker.eval.agreement import agree
from reranker.eval.baselines import Questions, once_per_text, score_baselines
from reranker.eval.checks import check_contexts
from reranker.eval.evaluate import Evaluation, evaluate
from reranker.eval.fusion import choose_fusions, fuse_lists
from reranker.eval.lists import Lists, build_lists, hash_kind, name_lists
from reranker.eval.scoring import dev_scorer, mean_ndcg_10, score_lists, score_lists_once
from reranker.eval.slices import truncated_rows

__all__ = [
    "Evaluation",
    "Lists",
    "Questions",
    "agree",
    "build_lists",
    "check_contexts",
    "choose_fusions",
    "dev_scorer",
    "evaluate",
    "fuse_lists",
    "hash_kind",
    "mean_ndcg_10",
    "name_lists",
    "once_per_text",
    "score_baselines",
    "score_lists",
    "score_lists_once",
    "truncated_rows",
]
