"""A diverged or collapsed training stops; the message has the step and a remedy."""

from __future__ import annotations

import math

import pytest

from reranker.config import TrainerConfig
from reranker.errors import TrainingError
from reranker.trainer.health_checks import HealthChecks


@pytest.mark.parametrize(
    ("loss", "norm", "what"), [(math.nan, 1, "loss is nan"), (1, math.inf, "norm is inf")]
)
def test_a_loss_or_gradient_that_is_not_finite_is_an_error(
    loss: float, norm: float, what: str
) -> None:
    with pytest.raises(
        TrainingError,
        match=rf"step 7: the .*{what}, so training has diverged. Lower trainer.learning",
    ):
        HealthChecks(TrainerConfig()).check_step(7, loss, norm)


def test_scores_without_spread_in_three_consecutive_logs_are_an_error() -> None:
    checks = HealthChecks(TrainerConfig())
    ignored = math.nan  # a single pair has no spread
    for spread in (0.0, 0.0, 0.5, 0.0, ignored, 0.0, ignored):
        checks.check_spread(1, spread)
    with pytest.raises(TrainingError, match="gives all candidates of a user the same score"):
        checks.check_spread(1, 0.0)


def test_stop_below_start_needs_two_evaluations_below_the_start() -> None:
    checks = HealthChecks(TrainerConfig(stop_below_start=True))
    checks.check_dev(1, 1, best=0.1, start=0.2)
    checks.check_dev(2, 2, best=0.2, start=0.2)
    with pytest.raises(
        TrainingError, match=r"best NDCG@10 on the dev lists is 0\.1000, below 0\.2000"
    ):
        checks.check_dev(2, 2, best=0.1, start=0.2)
    HealthChecks(TrainerConfig()).check_dev(2, 2, best=0.1, start=0.2)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_evaluation_that_is_not_finite_is_an_error(value: float) -> None:
    with pytest.raises(
        TrainingError, match=rf"the evaluation after step 7: NDCG@10 on the dev lists is {value}"
    ):
        HealthChecks(TrainerConfig()).check_evaluation(7, value)
