"""What every scorer does around its forwards: refuse unequal sides and scores that are not finite, show a bar."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ModelError


def check_pairs(queries: Sequence[str], candidates: Sequence[str]) -> None:
    """Nothing; a pair has one query and one candidate.

    Raises:
        ValueError: The two lengths differ.
    """
    if len(queries) != len(candidates):
        raise ValueError(
            f"{len(queries)} queries beside {len(candidates)} candidates; a pair has one of each."
        )


def check_finite(logits: npt.NDArray[Any], scores: str, remedy: str) -> None:
    """Nothing; a score that is no number would rank somewhere.

    Args:
        logits: (n_pairs,) before the activation, for a sigmoid makes a harmless 1 of infinity.
        scores: What the message calls them.
        remedy: The message's end: what to do.

    Raises:
        ModelError: A logit is NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(logits))
    if len(bad):
        raise ModelError(
            f"{len(bad)} of {len(logits)} {scores} are NaN or infinite (first: pair {bad[0]}). {remedy}"
        )
