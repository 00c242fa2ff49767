"""Refinement of existing pairs: limits per user and per positive, independent of row order."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.config import SamplingConfig
from reranker.sampling.refining import refine
from tests.helpers.pair_tables import pairs_frame

KEYS = ["user_id", "user_ctx", "book_text"]


def kept(pairs: pd.DataFrame, **limits: object) -> pd.DataFrame:
    mask, _ = refine(pairs, SamplingConfig(**limits))  # type: ignore[arg-type]
    return pairs[mask]


@given(
    n_positives=st.integers(1, 6),
    neg_ratio=st.integers(0, 4),
    own_contexts=st.booleans(),
    least=st.integers(1, 4),
    more=st.integers(0, 3) | st.none(),
    negatives=st.integers(1, 4) | st.none(),
    seed=st.integers(0, 5),
)
@settings(max_examples=40, deadline=None)
def test_limits_hold_and_the_order_of_rows_does_not_matter(
    n_positives: int,
    neg_ratio: int,
    own_contexts: bool,
    least: int,
    more: int | None,
    negatives: int | None,
    seed: int,
) -> None:
    pairs = pairs_frame(6, n_positives=n_positives, neg_ratio=neg_ratio, own_contexts=own_contexts)
    most = None if more is None else least + more
    limits = {
        "min_positives": least,
        "max_positives": most,
        "negatives_per_positive": negatives,
        "seed": seed,
    }
    found = kept(pairs, **limits)
    before = pairs[pairs["label"] == 1].groupby("user_id").size()
    enough = before[before >= least].clip(upper=most)
    by_user = found.groupby("user_id")["label"].sum()
    assert by_user.to_dict() == enough.to_dict()
    by_context = found.groupby(KEYS[:2])["label"].agg(["sum", "size"])
    if negatives is not None:
        assert (by_context["size"] - by_context["sum"] <= negatives * by_context["sum"]).all()
    shuffled = pairs.sample(frac=1, random_state=3)
    again = kept(shuffled, **limits)
    assert again.sort_index().equals(found)


def test_null_keeps_the_ratio_of_negatives() -> None:
    pairs = pairs_frame(10, n_positives=4, neg_ratio=3)
    found = kept(pairs, min_positives=1, max_positives=2)
    ratio = (pairs["label"] == 0).sum() / (pairs["label"] == 1).sum()
    n = found["label"].value_counts()
    assert n[0] / n[1] == pytest.approx(ratio, rel=0.1)


def test_every_dropped_row_is_counted() -> None:
    few = pairs_frame(9, n_positives=2)
    pairs = pd.concat([pairs_frame(5, n_positives=4), few[few["user_id"] > "u004"]])
    cfg = SamplingConfig(min_positives=3, max_positives=3, negatives_per_positive=1)
    mask, counts = refine(pairs, cfg)
    dropped = counts["positives_dropped_by_refinement"] + counts["negatives_dropped_by_refinement"]
    assert dropped == int((~mask).sum()) > 0
    assert counts["users_dropped_few_positives"] == 4


def test_seeds_choose_other_pairs() -> None:
    pairs = pairs_frame(10, n_positives=6)
    choices = [kept(pairs, max_positives=2, seed=seed).index for seed in (0, 1)]
    assert not choices[0].equals(choices[1])
    assert np.isin(choices[0], pairs.index).all()
