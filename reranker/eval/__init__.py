"""Candidate lists, baselines, per-user metrics, and comparisons of them."""

from reranker.eval.agreement import compare_rankings
from reranker.eval.baselines import Baselines
from reranker.eval.checks import check_contexts
from reranker.eval.eval_set import EvalSet, build_sets
from reranker.eval.evaluate import Evaluation, evaluate
from reranker.eval.fusion import add_fused_scores
from reranker.eval.lists import (
    CandidateLists,
    build_lists,
    choose_users,
    digest_lists,
    digest_of_kind,
)
from reranker.eval.scoring import mean_ndcg_10

__all__ = [
    "Baselines",
    "CandidateLists",
    "EvalSet",
    "Evaluation",
    "add_fused_scores",
    "build_lists",
    "build_sets",
    "check_contexts",
    "choose_users",
    "compare_rankings",
    "digest_lists",
    "digest_of_kind",
    "evaluate",
    "mean_ndcg_10",
]
