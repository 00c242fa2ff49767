"""Results in; MLflow runs, sweeps and plots out."""

import os

# MLflow reads this when it is imported: no usage events leave this machine unless somebody asks for it.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every few small files

from reranker.tracking.lifecycle import start
from reranker.tracking.metered import Metered
from reranker.tracking.report import report
from reranker.tracking.run import RunLog
from reranker.tracking.store import default_uri, open_store
from reranker.tracking.teacher import doubts, find_teacher

__all__ = ["Metered", "RunLog", "default_uri", "doubts", "find_teacher", "open_store", "report", "start"]
