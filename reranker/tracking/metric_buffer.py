"""Metric points on their way to MLflow, where those of a training wait while the store does not answer."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reranker.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

MAX_BATCH = 1000  # MLflow refuses more metrics in one call
REST = 10  # times as long as a failed attempt took (its client tries for minutes) the store is then left alone


class MetricBuffer:
    """The metric points of one run, each logged once, in the order in which they were given."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._waiting: list[Metric] = []
        self._not_before = 0.0

    def log(self, points: Sequence[Metric]) -> None:
        """Log points, after those that wait.

        Raises:
            MlflowException: The store does not take them; those that wait go on waiting.
        """
        self._send(self._waiting)
        self._send(list(points))

    def log_or_buffer(self, points: Sequence[Metric]) -> None:
        """Log points, or keep them for a later call and say so on stderr: an outage must not end a training."""
        from mlflow.exceptions import MlflowException

        self._waiting += points
        begin = time.monotonic()
        if begin < self._not_before:
            return
        try:
            self._send(self._waiting)
        except MlflowException as error:
            now = time.monotonic()
            self._not_before = now + REST * (now - begin)
            reason = redact(str(error)).split("\n")[0]
            waits = f"{len(self._waiting)} metric points wait, and the training goes on"
            print(f"warning: MLflow takes no metrics ({reason}); {waits}", file=sys.stderr)

    def _send(self, points: list[Metric]) -> None:
        """Log points, and take each from the list once it is logged."""
        while points:
            self._client.log_batch(self._run_id, metrics=points[:MAX_BATCH])
            del points[:MAX_BATCH]
