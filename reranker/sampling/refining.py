"""Refine pairs that exist already: choose positives per user, and negatives for each positive."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reranker.config import SamplingConfig
from reranker.data.draws import BoolArray, bits, text_keys


def refine(pairs: pd.DataFrame, cfg: SamplingConfig) -> tuple[BoolArray, dict[str, int]]:
    """Return which pairs refinement keeps, and the counts of what it drops.

    A user with fewer positives than `min_positives` is dropped. Another user keeps at most
    `max_positives` positives, and with each of them `negatives_per_positive` negatives of the
    same context (null: as many per positive as the context has). The choice is a hash of the seed,
    the user and the texts, so it does not depend on the order of the rows.

    Args:
        pairs: user_id, user_ctx, book_text (texts or categoricals of texts), label (0 or 1).

    Returns:
        (n_pairs,) mask of the pairs to keep, and counts by reason.

    Example:
        >>> kept, counts = refine(pairs, SamplingConfig(min_positives=3, max_positives=3))
        >>> pairs[kept]["label"].mean()
        0.25
    """
    codes = pd.DataFrame(
        {name: pairs[name].astype("category").cat.codes for name in ("user_id", "user_ctx")}
    )
    clock = _clock(pairs, cfg.seed)
    is_positive = pairs["label"].to_numpy() > 0
    n_positives = codes["user_id"].map(codes["user_id"][is_positive].value_counts()).fillna(0)
    enough = (n_positives >= cfg.min_positives).to_numpy()
    place = _rank(clock, codes[["user_id"]], is_positive)
    most = np.inf if cfg.max_positives is None else cfg.max_positives
    positives = is_positive & enough & (place < most)
    context = codes.groupby(["user_id", "user_ctx"]).ngroup().to_numpy()
    n = [np.bincount(context, weights=mask) for mask in (positives, is_positive, ~is_positive)]
    n_kept, n_before, n_negatives = (counts[context] for counts in n)
    per_positive = cfg.negatives_per_positive
    with np.errstate(invalid="ignore"):
        share = np.nan_to_num(n_kept / n_before)
    limit = np.ceil(n_negatives * share) if per_positive is None else n_kept * per_positive
    negatives = ~is_positive & (_rank(clock, pd.DataFrame({"c": context}), ~is_positive) < limit)
    counts = {
        "users_dropped_few_positives": codes["user_id"][~enough].nunique(),
        "positives_dropped_by_refinement": int((is_positive & ~positives).sum()),
        "negatives_dropped_by_refinement": int((~is_positive & ~negatives).sum()),
    }
    return positives | negatives, counts


def _clock(pairs: pd.DataFrame, seed: int) -> np.ndarray:
    """Return (n_pairs,) random bits of the seed, the user and the two texts."""
    keys = []
    for name in ("user_id", "user_ctx", "book_text"):
        values = pairs[name].astype("category")
        keys.append(text_keys(values.cat.categories)[values.cat.codes])
    return bits(seed, "refine", *keys)


def _rank(clock: np.ndarray, groups: pd.DataFrame, among: BoolArray) -> np.ndarray:
    """Return the place of each row by its clock, from 0, among the rows of its group."""
    rows = groups[among].assign(clock=clock[among])
    place = np.full(len(groups), np.inf)
    place[among] = rows.groupby(list(groups.columns))["clock"].rank(method="first") - 1
    return place
