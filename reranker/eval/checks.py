"""Checks of scores: personalisation, spread, and calibration."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from reranker.config import EvalConfig
from reranker.data.draws import FloatArray, IntArray, bits
from reranker.eval import metrics, statistics
from reranker.eval.eval_set import EvalSet
from reranker.eval.scoring import Scorer
from reranker.model import activations

N_BINS = 10
# About 16 steps of float32 at 1. Below it the order of candidates is rounding error.
MIN_STD = 1e-6
MIN_SPREAD = 0.01  # as a fraction of the spread before training
MAX_TIES = 0.5
COLUMNS = ["kind", "check", "metric", "value", "own_value", "gap", "low", "high"]


def check_contexts(scorer: Scorer, eval_set: EvalSet, own: FloatArray) -> pd.DataFrame:
    """Return how much NDCG@10 a scorer loses without the user's own context.

    This is the personalisation gap. `shuffled_contexts` gives every user the context of another
    user. `blank_context` gives the empty string, so that only the candidate is left. A scorer
    that ranks by what is liked in general has a gap of 0 in both. The check uses lists of the
    headline kind of at most `eval.max_check_users` users, chosen and shuffled by a hash of their
    ids. With one user there is no other context, so the first check has no row.

    Args:
        scorer: Contexts and book texts -> scores.
        eval_set: The test lists.
        own: (n_rows,) scores of all rows with the users' own contexts.

    Returns:
        kind, check, metric ("ndcg_10"), value, own_value, gap (own_value - value), low, high
        (95 %, paired over users).
    """
    cfg, kind = eval_set.cfg, eval_set.cfg.list_kinds[0]
    users = _checked_users(eval_set, kind)
    if not len(users):
        return pd.DataFrame(columns=COLUMNS)
    keep = ((eval_set.rows["kind"] == kind) & eval_set.rows["user"].isin(users)).to_numpy()
    rows = eval_set.rows[keep]
    values = {"blank_context": _score_blank(scorer, eval_set, rows)}
    if len(users) > 1:
        values["shuffled_contexts"] = _score_shuffled(scorer, eval_set, rows, users=users)
    own_ndcg = _ndcg_10(rows, np.asarray(own)[keep])
    found = {name: _gap(own_ndcg, _ndcg_10(rows, score), cfg) for name, score in values.items()}
    checks = [{"kind": kind, "check": name, **gap} for name, gap in found.items()]
    return pd.DataFrame(checks)[COLUMNS]


def _score_blank(scorer: Scorer, eval_set: EvalSet, rows: pd.DataFrame) -> FloatArray:
    """Return scores without a context. A book then has one score for all users."""
    distinct, row = np.unique(rows["book"].to_numpy(), return_inverse=True)
    texts = eval_set.contexts.candidates_without_context(
        eval_set.tables.books, distinct
    ).to_pylist()
    return np.asarray(scorer([""] * len(texts), texts))[row]


def _score_shuffled(
    scorer: Scorer, eval_set: EvalSet, rows: pd.DataFrame, *, users: IntArray
) -> FloatArray:
    """Return scores with the context of the next user in the order of `users`."""
    order = np.argsort(users)
    donor = np.roll(users, 1)[order][np.searchsorted(users[order], rows["user"])]
    contexts = [eval_set.contexts.text[user] for user in donor.tolist()]
    book = rows["book"].to_numpy()
    candidates = eval_set.contexts.candidates(eval_set.tables.books, donor, book)
    return scorer(contexts, candidates.to_pylist())


def _checked_users(eval_set: EvalSet, kind: str) -> IntArray:
    """Return the first users of the kind with a positive, in the order of a hash of their ids."""
    rows, cfg = eval_set.rows, eval_set.cfg
    users = np.unique(rows["user"][(rows["kind"] == kind) & (rows["label"] > 0)])
    keys = eval_set.tables.users["key"].to_numpy()[users]
    order = np.argsort(bits(cfg.seed, "checked contexts", keys), kind="stable")
    chosen: IntArray = users[order[: cfg.max_check_users]]
    return chosen


def _ndcg_10(rows: pd.DataFrame, score: FloatArray) -> FloatArray:
    ranking = metrics.rank(rows["user"].to_numpy(), rows["label"].to_numpy(), score)
    return metrics.ndcg(ranking, k=10)


def _gap(own: FloatArray, checked: FloatArray, cfg: EvalConfig) -> dict[str, object]:
    gap, low, high = statistics.paired_lift(
        own, checked, n_resamples=cfg.n_bootstrap, seed=cfg.seed
    )
    values = {"value": float(checked.mean()), "own_value": float(own.mean())}
    return {"metric": "ndcg_10", **values, "gap": gap, "low": low, "high": high}


def find_score_problems(scores: FloatArray, untrained: FloatArray | None = None) -> list[str]:
    """Return a sentence for each problem of a scorer's scores: collapse, saturation.

    Args:
        scores: (n_rows,) of one list kind, compared as float32. They are finite; that is checked
            where they are made and where they are ranked.
        untrained: (n_rows,) scores of the same rows before training, if there are any.
    """
    found = []
    std = float(np.std(scores))
    if std < MIN_STD:
        found.append(
            f"collapse: the scores have a standard deviation of {std:.1e}; "
            "they do not separate candidates"
        )
    elif untrained is not None and std < MIN_SPREAD * float(np.std(untrained)):
        share = std / float(np.std(untrained))
        found.append(
            f"collapse: the scores have {share:.2%} of the spread that they had before training"
        )
    ties = tie_fraction(scores)
    if ties > MAX_TIES:
        found.append(f"saturation: {ties:.0%} of the scores are equal to another one")
    return found


def tie_fraction(scores: FloatArray) -> float:
    """Return the fraction of scores that equal another one as float32, over all users."""
    _, counts = np.unique(np.asarray(scores, dtype=np.float32), return_counts=True)
    return float(counts[counts > 1].sum() / counts.sum())


def describe_scores(scores: Mapping[str, FloatArray]) -> pd.DataFrame:
    """Return a row per scorer: scorer, mean, std, min, max, unique_fraction.

    unique_fraction is the number of distinct float32 values divided by the number of rows.
    """
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
    """Return the calibration curve: 10 bins of equal counts, in ascending probability.

    Candidate lists have another fraction of positives than training pairs, and a ranking loss
    does not train probabilities. Where the curve leaves the diagonal, use scores for ranking only.

    Args:
        activation: `model.activation`, which gave the scores. It decides what probability a score
            represents, see `activations.probability`.

    Returns:
        bin (1..10), mean_probability, positive_fraction, n_rows. There are fewer bins than 10 if
        there are fewer rows.
    """
    probability = activations.probability(activation, scores)
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
