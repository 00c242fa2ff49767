"""Put a model's lift over the best baseline, and shortcut checks, into words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reranker.reports.page import number, signed
from reranker.reports.scorers import find_list_kind, find_scorer, scorer_name

CHECKS = {
    "shuffled_contexts": "With another user's context",
    "blank_context": "With an empty context",
}


@dataclass(frozen=True)
class Verdict:
    """A sentence that compares a model with the best baseline; outcome is beats, loses or open."""

    text: str
    outcome: str


def verdict(lift: Mapping[str, Any], key: str, n_users: int) -> Verdict:
    """Return whether a model beats, loses to or does not differ from the best baseline.

    Args:
        lift: model, over, lift, low, high of one list kind; low and high are NaN if there is no
            interval.
        key: The list kind.
        n_users: Users with a value.
    """
    value, low, high = (float(lift[end]) for end in ("lift", "low", "high"))
    model = f"On {find_list_kind(key).title} {find_scorer(lift['model']).full_name}"
    baseline = f"the best baseline, {scorer_name(lift['over'])}"
    end = f"NDCG@10 (95 % over {n_users:,} users)."
    if math.isnan(low):
        difference = f"differs from {baseline}, by {signed(value, 3)} NDCG@10"
        text = f"{model} {difference}; an interval needs at least two users with a positive."
        return Verdict(text, "open")
    if low > 0:
        interval = f"{value:.3f} [{low:.3f}, {high:.3f}]"
        return Verdict(f"{model} beats {baseline}, by {interval} {end}", "beats")
    if high < 0:
        interval = f"{-value:.3f} [{-high:.3f}, {-low:.3f}]"
        return Verdict(f"{model} loses to {baseline}, by {interval} {end}", "loses")
    interval = f"{signed(value, 3)} [{signed(low, 3)}, {signed(high, 3)}]"
    return Verdict(
        f"{model} does not differ significantly from {baseline}: {interval} {end}", "open"
    )


def check(row: Mapping[str, Any]) -> str:
    """Return the result of a shortcut check in one sentence: does the ranking use the context?"""
    gap, low, high = (float(row[end]) for end in ("gap", "low", "high"))
    start = CHECKS.get(row["check"], str(row["check"]).replace("_", " "))
    change = f"from {number(row['own_value'], 3)} to {number(row['value'], 3)}"
    size = f"a gap of {signed(gap, 3)} [{signed(low, 3)}, {signed(high, 3)}]"
    if low > 0:
        return f"{start} NDCG@10 falls {change}, {size}: the ranking uses the context."
    if high < 0:
        return f"{start} NDCG@10 rises {change}, {size}: the user's own context is harmful."
    return f"{start} NDCG@10 goes {change}, {size}: no evidence that the ranking uses the context."
