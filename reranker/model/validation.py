"""Checks of a scorer's input and output: equal lengths, finite logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ModelError


def check_pairs(queries: Sequence[str], candidates: Sequence[str]) -> None:
    """Raise unless queries and candidates have the same length.

    Raises:
        ValueError: The two lengths differ.
    """
    if len(queries) != len(candidates):
        raise ValueError(
            f"{len(queries)} queries and {len(candidates)} candidates; a pair needs one of each."
        )


def check_finite(logits: npt.NDArray[Any], scores: str, remedy: str) -> None:
    """Raise if any logit is NaN or infinite.

    Args:
        logits: (n_pairs,) values before the activation, because a sigmoid maps infinity to 1.
        scores: The name of the scores in the message.
        remedy: The last sentence of the message, which says what to do.

    Raises:
        ModelError: A logit is NaN or infinite.
    """
    bad = np.flatnonzero(~np.isfinite(logits))
    if len(bad):
        raise ModelError(
            f"{len(bad)} of {len(logits)} {scores} are NaN or infinite "
            f"(first: pair {bad[0]}). {remedy}"
        )
