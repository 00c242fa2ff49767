"""Log runs to MLflow and to `result.json`."""

import os

# MLflow reads these when it is imported. Telemetry is off unless the user turns it on.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Without this MLflow shows a progress bar even for a few small files.
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

from reranker.tracking.lifecycle import start
from reranker.tracking.run_log import RunLog
from reranker.tracking.store import default_uri, open_store

__all__ = ["RunLog", "default_uri", "open_store", "start"]
