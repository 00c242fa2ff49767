"""Send metric points to MLflow, and buffer those of a training while the store is unavailable."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from reranker.redaction import redact

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

MAX_BATCH = 1000  # MLflow rejects more metrics in one call
# After a failed attempt the buffer waits this many times as long as the attempt took. The client
# retries for minutes, so that without a pause an outage would stop the training.
PAUSE_FACTOR = 10


class MetricBuffer:
    """Logs the metric points of one run, each once and in the order of the calls."""

    def __init__(self, client: MlflowClient, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._buffered: list[Metric] = []
        self._not_before = 0.0

    def log(self, points: Sequence[Metric]) -> None:
        """Log the buffered points and then these.

        Raises:
            MlflowException: The store is unavailable; the buffered points stay buffered.
        """
        self._send(self._buffered)
        self._send(list(points))

    def log_or_buffer(self, points: Sequence[Metric]) -> None:
        """Log points; while the store is unavailable, buffer them and print a warning to stderr.

        An outage of the store must not end a training.
        """
        from mlflow.exceptions import MlflowException

        self._buffered += points
        begin = time.monotonic()
        if begin < self._not_before:
            return
        try:
            self._send(self._buffered)
        except MlflowException as error:
            now = time.monotonic()
            self._not_before = now + PAUSE_FACTOR * (now - begin)
            reason = redact(str(error)).split("\n")[0]
            print(
                f"warning: MLflow is unavailable ({reason}); {len(self._buffered)} metric points "
                "are buffered and the training continues",
                file=sys.stderr,
            )

    def _send(self, points: list[Metric]) -> None:
        """Log points in batches and remove each batch from the list after it is logged."""
        while points:
            self._client.log_batch(self._run_id, metrics=points[:MAX_BATCH])
            del points[:MAX_BATCH]
