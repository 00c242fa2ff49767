"""A training that cannot come right is stopped, with the step and what to change."""

from __future__ import annotations

import math

import pytest

from reranker.config import TrainerConfig
from reranker.errors import TrainingError
from reranker.trainer.health_checks import Sentinels


@pytest.mark.parametrize(
    ("loss", "norm", "what"), [(math.nan, 1, "loss is nan"), (1, math.inf, "norm is inf")]
)
def test_a_number_that_is_not_finite_stops(loss: float, norm: float, what: str) -> None:
    with pytest.raises(
        TrainingError,
        match=rf"step 7: the .*{what}, so training has diverged. Lower trainer.learning",
    ):
        Sentinels(TrainerConfig()).check_step(7, loss, norm)


def test_scores_without_spread_in_three_logs_in_a_row_stop() -> None:
    sentinels = Sentinels(TrainerConfig())
    for spread in (
        0.0,
        0.0,
        0.5,
        0.0,
        math.nan,
        0.0,
        math.nan,
    ):  # a single pair has no spread: neither good nor bad
        sentinels.check_spread(1, spread)
    with pytest.raises(TrainingError, match="gives every candidate of a user one score"):
        sentinels.check_spread(1, 0.0)


def test_dev_lists_below_the_start_stop_from_the_second_evaluation_on_where_asked() -> None:
    asked = Sentinels(TrainerConfig(stop_below_start=True))
    asked.check_dev(1, 1, best=0.1, start=0.2)
    asked.check_dev(2, 2, best=0.2, start=0.2)
    with pytest.raises(
        TrainingError, match=r"best NDCG@10 on the dev lists is 0\.1000, below the 0\.2000"
    ):
        asked.check_dev(2, 2, best=0.1, start=0.2)
    Sentinels(TrainerConfig()).check_dev(2, 2, best=0.1, start=0.2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_evaluation_that_is_no_number_stops(value: float) -> None:
    with pytest.raises(
        TrainingError, match=rf"the evaluation after step 7: NDCG@10 on the dev lists is {value}"
    ):
        Sentinels(TrainerConfig()).check_evaluation(7, value)
