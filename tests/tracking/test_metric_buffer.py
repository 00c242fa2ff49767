"""Metric points reach the store once and in order, also after it was away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from reranker.tracking import metric_buffer as points_module
from reranker.tracking.metric_buffer import MetricBuffer
from reranker.tracking.run_log import RunLog
from tests.helpers.tracked import config

pytestmark = pytest.mark.slow


class Store:
    """A client whose store is away while `is_away`."""

    def __init__(self) -> None:
        self.is_away, self.n_asked = False, 0
        self.kept: list[tuple[str, float, int]] = []

    def log_batch(self, run_id: str, metrics: list[Metric]) -> None:
        self.n_asked += 1
        if self.is_away:
            raise MlflowException("API request failed\nwith a long trace")
        self.kept += [(m.key, m.value, m.step) for m in metrics]


def points(*steps: int) -> list[Metric]:
    return [Metric("train/loss", 0.5, 0, step) for step in steps]


def test_a_training_goes_on_while_the_store_is_away_and_its_points_follow_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store: Any = Store()
    log = RunLog(store, "run", config(), run_dir=tmp_path, environment={})
    for step, store.is_away in ((1, False), (2, True), (3, True), (4, False), (5, False)):
        log.points._not_before = 0.0
        log.training_metrics({"loss": step / 10}, step)
    assert store.kept == [("train/loss", step / 10, step) for step in (1, 2, 3, 4, 5)]
    assert log.result["metrics"] == {"train/loss": 0.5}
    told = capsys.readouterr().err.splitlines()
    wanted = "warning: MLflow takes no metrics (API request failed); {} metric points wait, and the training goes on"
    assert told == [wanted.format(1), wanted.format(2)]


def test_what_waits_comes_before_what_is_logged_after_the_training() -> None:
    store: Any = Store()
    made = MetricBuffer(store, "run")
    store.is_away = True
    made.log_or_buffer(points(1, 2))
    with pytest.raises(MlflowException):
        made.log(points(3))  # outside of a training an outage is an error
    store.is_away = False
    made.log(points(4))
    assert [step for _, _, step in store.kept] == [1, 2, 4]


def test_a_store_that_is_away_costs_a_training_a_tenth_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every attempt takes 5 s, every step 1 s."""
    store: Any = Store()
    store.is_away = True
    clock = [100.0]
    monkeypatch.setattr(points_module.time, "monotonic", lambda: clock[0])
    attempt = store.log_batch

    def slow(run_id: str, metrics: list[Metric]) -> None:
        clock[0] += 5
        attempt(run_id, metrics)

    store.log_batch = slow
    made = MetricBuffer(store, "run")
    for step in range(100):
        clock[0] += 1
        made.log_or_buffer(points(step))
    assert store.n_asked == 2  # 5 s, then 50 steps of rest, each


def test_more_points_than_one_call_takes_go_in_several() -> None:
    store: Any = Store()
    MetricBuffer(store, "run").log(points(*range(2500)))
    assert (store.n_asked, len(store.kept)) == (3, 2500)
