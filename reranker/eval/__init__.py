"""Frozen lists, baselines, per-user metrics, and the account of them."""

from reranker.eval.agreement import compare_rankings
from reranker.eval.baselines import Questions, memoised, score_baselines
from reranker.eval.checks import check_contexts
from reranker.eval.evaluate import Evaluation, evaluate
from reranker.eval.fusion import choose_fusions, fuse_lists
from reranker.eval.lists import CandidateLists, build_lists, digest_of_kind, with_ids
from reranker.eval.scoring import dev_scorer, mean_ndcg_10, score_lists, score_lists_once
from reranker.eval.slices import truncated_rows

__all__ = [
    "CandidateLists",
    "Evaluation",
    "Questions",
    "build_lists",
    "check_contexts",
    "choose_fusions",
    "compare_rankings",
    "dev_scorer",
    "digest_of_kind",
    "evaluate",
    "fuse_lists",
    "mean_ndcg_10",
    "memoised",
    "score_baselines",
    "score_lists",
    "score_lists_once",
    "truncated_rows",
    "with_ids",
]
