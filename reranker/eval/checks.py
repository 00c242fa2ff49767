"""Whether a score is what it should be: of this reader, spread out, a probability."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.special import expit

from reranker.config import EvalConfig
from reranker.data.draws import FloatArray, IntArray, bits
from reranker.eval import metrics, statistics
from reranker.eval.baselines import Questions

if TYPE_CHECKING:
    from reranker.eval.scoring import Scorer

N_BINS = 10
MIN_STD = 1e-6  # about 16 steps of float32 at 1: below it the order of candidates is rounding
MIN_SPREAD = 0.01  # of the spread before training
MAX_TIES = 0.5
COLUMNS = ["kind", "check", "metric", "value", "own_value", "gap", "low", "high"]


def check_contexts(
    scorer: Scorer, questions: Questions, own: FloatArray, cfg: EvalConfig
) -> pd.DataFrame:
    """What is left of a scorer when it does not see the reader's own context: the personalisation gap.

    `shuffled_contexts`: every user gets the context of another user of the lists, all of them that of a different one.
    `blank_context`: the context is the empty string, so that only the candidate is left. A scorer that ranks by what
    everybody likes has a gap of 0 in both. CandidateLists of the headline kind, of at most cfg.max_check_users users, chosen
    and dealt by a hash of their ids; what is compared is of the same users. One user alone has no other to take a
    context from, so there the first check has no row.

    Args:
        scorer: Gives the scores of contexts and book texts.
        own: (n_rows,) its scores of all lists, with the own contexts.

    Returns:
        kind, check, metric ("ndcg_10"), value, own_value, gap (own_value - value), low, high (95 %, paired over
        users).
    """
    kind = cfg.list_kinds[0]
    users = _checked_users(questions, kind, cfg.max_check_users)
    if not len(users):
        return pd.DataFrame(columns=COLUMNS)
    keep = ((questions.rows["kind"] == kind) & questions.rows["user"].isin(users)).to_numpy()
    rows = questions.rows[keep]
    books, contexts, book = questions.tables.books, questions.contexts, rows["book"].to_numpy()
    distinct, row = np.unique(
        book, return_inverse=True
    )  # with one context for all, a book has one score
    blank = contexts.candidates_without_context(books, distinct).to_pylist()
    values = {"blank_context": np.asarray(scorer([""] * len(blank), blank))[row]}
    if len(users) > 1:
        order = np.argsort(users)
        donor = np.roll(users, 1)[order][np.searchsorted(users[order], rows["user"])]
        dealt = [contexts.text[user] for user in donor.tolist()]
        values["shuffled_contexts"] = scorer(
            dealt, contexts.candidates(books, donor, book).to_pylist()
        )
    own_ndcg = _ndcg_10(rows, np.asarray(own)[keep])
    found = {name: _gap(own_ndcg, _ndcg_10(rows, score), cfg) for name, score in values.items()}
    return pd.DataFrame([{"kind": kind, "check": name, **gap} for name, gap in found.items()])[
        COLUMNS
    ]


def _checked_users(questions: Questions, kind: str, n: int) -> IntArray:
    """The first n users of the kind with a positive, in the order of a hash of their ids."""
    rows = questions.rows
    users = np.unique(rows["user"][(rows["kind"] == kind) & (rows["label"] > 0)])
    keys = questions.tables.users["key"].to_numpy()[users]
    order = np.argsort(bits(questions.seed, "checked contexts", keys), kind="stable")
    chosen: IntArray = users[order[:n]]
    return chosen


def _ndcg_10(rows: pd.DataFrame, score: FloatArray) -> FloatArray:
    return metrics.ndcg(
        metrics.rank(rows["user"].to_numpy(), rows["label"].to_numpy(), score), k=10
    )


def _gap(own: FloatArray, checked: FloatArray, cfg: EvalConfig) -> dict[str, object]:
    gap, low, high = statistics.paired_lift(
        own, checked, n_resamples=cfg.n_bootstrap, seed=cfg.seed
    )
    value, own_value = float(checked.mean()), float(own.mean())
    return {
        "metric": "ndcg_10",
        "value": value,
        "own_value": own_value,
        "gap": gap,
        "low": low,
        "high": high,
    }


def find_score_problems(scores: FloatArray, before: FloatArray | None = None) -> list[str]:
    """A sentence for each thing that is wrong with a scorer's scores of one list kind: collapse, saturation.

    Args:
        scores: (n_rows,) compared as float32; that they are finite is checked where they are made and ranked.
        before: (n_rows,) scores of the same rows before training, where there are.
    """
    found = []
    std = float(np.std(scores))
    if std < MIN_STD:
        found.append(
            f"collapse: the scores have a standard deviation of {std:.1e}; they tell no candidate from another"
        )
    elif before is not None and std < MIN_SPREAD * float(np.std(before)):
        share = std / float(np.std(before))
        found.append(
            f"collapse: the scores have {share:.2%} of the spread that they had before training"
        )
    ties = tie_fraction(scores)
    if ties > MAX_TIES:
        found.append(f"saturation: {ties:.0%} of the scores are equal to another one")
    return found


def tie_fraction(scores: FloatArray) -> float:
    """The share of scores that another one equals as float32, users aside."""
    _, counts = np.unique(np.asarray(scores, dtype=np.float32), return_counts=True)
    return float(counts[counts > 1].sum() / counts.sum())


def describe_scores(scores: Mapping[str, FloatArray]) -> pd.DataFrame:
    """A row for each scorer: scorer, mean, std, min, max, unique_fraction (distinct float32 values per row)."""
    return pd.DataFrame(
        {
            "scorer": name,
            "mean": float(np.mean(values)),
            "std": float(np.std(values)),
            "min": float(np.min(values)),
            "max": float(np.max(values)),
            "unique_fraction": len(np.unique(values.astype(np.float32))) / len(values),
        }
        for name, values in scores.items()
    )


def calibrate(label: IntArray, scores: FloatArray, activation: str) -> pd.DataFrame:
    """The calibration curve: rows in 10 bins of equal counts by their probability, lowest first.

    CandidateLists have another share of positives than training pairs, and a ranking loss asks for no probability; where the
    curve leaves the diagonal, scores are good for ranking alone.

    Args:
        activation: Of the scores: `identity`, logits whose sigmoid is the probability; `sigmoid`, the probability.

    Returns:
        bin (1..10), mean_probability, positive_fraction, n_rows; fewer bins where there are fewer rows.
    """
    probability = np.asarray(scores, dtype=np.float64) if activation == "sigmoid" else expit(scores)
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, N_BINS) if len(part)]
    return pd.DataFrame(
        {
            "bin": i + 1,
            "mean_probability": float(np.mean(probability[part])),
            "positive_fraction": float(np.mean(label[part] > 0)),
            "n_rows": len(part),
        }
        for i, part in enumerate(parts)
    )
