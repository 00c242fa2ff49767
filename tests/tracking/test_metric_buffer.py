"""Every metric point is logged once and in order, also after an outage of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from reranker.tracking import metric_buffer
from reranker.tracking.metric_buffer import MetricBuffer
from reranker.tracking.run_log import RunLog
from tests.helpers.tracked import config

pytestmark = pytest.mark.slow


class FakeClient:
    """A client whose store is unavailable while `fails` is set."""

    def __init__(self) -> None:
        self.fails, self.n_calls = False, 0
        self.logged: list[tuple[str, float, int]] = []

    def log_batch(self, run_id: str, metrics: list[Metric]) -> None:
        self.n_calls += 1
        if self.fails:
            raise MlflowException("API request failed\nwith a long trace")
        self.logged += [(m.key, m.value, m.step) for m in metrics]


def points(*steps: int) -> list[Metric]:
    return [Metric("train/loss", 0.5, 0, step) for step in steps]


def test_a_training_continues_during_an_outage_and_its_points_are_logged_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    client: Any = FakeClient()
    log = RunLog(client, "run", config(), run_dir=tmp_path, environment={})
    for step, client.fails in ((1, False), (2, True), (3, True), (4, False), (5, False)):
        log.points._not_before = 0.0
        log.training_metrics({"loss": step / 10}, step)
    assert client.logged == [("train/loss", step / 10, step) for step in (1, 2, 3, 4, 5)]
    assert log.result["metrics"] == {"train/loss": 0.5}
    assert capsys.readouterr().err.splitlines() == [
        f"warning: MLflow is unavailable (API request failed); {n} metric points are buffered and "
        "the training continues"
        for n in (1, 2)
    ]


def test_buffered_points_are_logged_before_points_that_follow_the_training() -> None:
    client: Any = FakeClient()
    buffer = MetricBuffer(client, "run")
    client.fails = True
    buffer.log_or_buffer(points(1, 2))
    with pytest.raises(MlflowException):
        buffer.log(points(3))  # outside a training an outage is an error
    client.fails = False
    buffer.log(points(4))
    assert [step for _, _, step in client.logged] == [1, 2, 4]


def test_an_outage_costs_a_training_at_most_a_tenth_of_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every attempt takes 5 s, every step 1 s."""
    client: Any = FakeClient()
    client.fails = True
    clock = [100.0]
    monkeypatch.setattr(metric_buffer.time, "monotonic", lambda: clock[0])
    attempt = client.log_batch

    def slow(run_id: str, metrics: list[Metric]) -> None:
        clock[0] += 5
        attempt(run_id, metrics)

    client.log_batch = slow
    buffer = MetricBuffer(client, "run")
    for step in range(100):
        clock[0] += 1
        buffer.log_or_buffer(points(step))
    assert client.n_calls == 2  # each takes 5 s, and 50 steps without a call follow


def test_more_points_than_mlflow_accepts_in_one_call_are_sent_in_batches() -> None:
    client: Any = FakeClient()
    MetricBuffer(client, "run").log(points(*range(2500)))
    assert (client.n_calls, len(client.logged)) == (3, 2500)
