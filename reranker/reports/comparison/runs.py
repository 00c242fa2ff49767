"""Read finished runs from the store: params, hashes, costs and per-user values."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq

from reranker.errors import ComparisonError
from reranker.redaction import redact
from reranker.reports.comparison.old_names import rename_hash, rename_params, rename_rows

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PER_USER = "per_user.parquet"
HASH = "hash."  # prefix of the tags with digests
DEV = "dev/ndcg_10"
_KEYS = ("scorer", "kind", "user_id")  # of a row of PER_USER; the other columns are metrics


@dataclass(frozen=True)
class LoggedRun:
    """The parts of a run that a comparison needs, under today's names.

    Attributes:
        run_id: Its id in MLflow.
        name: Its name in MLflow.
        params: The params that it logged.
        hashes: `lists/test` -> digest, and so on.
        dev_ndcg_10: The best value on the dev lists; NaN if there is none.
        train_s: Seconds of training; NaN if not logged.
        pairs_per_s: Throughput of training; NaN if not logged.
        per_user: kind, user_id and the metric, of one scorer.
    """

    run_id: str
    name: str
    params: dict[str, str]
    hashes: dict[str, str]
    dev_ndcg_10: float
    train_s: float
    pairs_per_s: float
    per_user: pd.DataFrame

    @property
    def headline(self) -> str:
        """The headline list kind: the first of its `eval.list_kinds`."""
        kinds = self.params.get("eval.list_kinds")
        return kinds.split(",")[0] if kinds else str(self.per_user["kind"].iloc[0])


def find(client: MlflowClient, run_ids: Sequence[str]) -> list[Run]:
    """Return the runs whose ids start with these prefixes, in any experiment, in the same order.

    Raises:
        ComparisonError: Fewer than two prefixes, two for the same run, one that matches no run or
            several, or a store that does not answer.
    """
    from mlflow.exceptions import MlflowException

    if len(run_ids) < 2:
        raise ComparisonError(f"{len(run_ids)} run given; a comparison needs two or more.")
    try:
        experiments = [e.experiment_id for e in client.search_experiments()]
        runs = [_find(client, experiments, run_id) for run_id in run_ids]
    except MlflowException as error:
        raise ComparisonError(f"the MLflow store does not answer: {redact(str(error))}") from error
    ids = [run.info.run_id for run in runs]
    if twice := [run_id for run_id in ids if ids.count(run_id) > 1]:
        raise ComparisonError(f"run {twice[0]} is listed twice; list each run once.")
    return runs


def _find(client: MlflowClient, experiments: list[str], prefix: str) -> Run:
    if not (prefix.isascii() and prefix.isalnum()):
        raise ComparisonError(
            f"{prefix!r} is not a run id; use the hexadecimal id of a run, or a prefix of it."
        )
    where = f"attributes.run_id LIKE '{prefix.lower()}%'"
    found = client.search_runs(experiments, where, max_results=3)
    if len(found) == 1:
        return found[0]
    if not found:
        raise ComparisonError(
            f"no run id starts with {prefix!r}; `reranker ui` lists the runs of the store."
        )
    some = ", ".join(run.info.run_id for run in found)
    raise ComparisonError(f"several run ids start with {prefix!r} ({some}, …); use more digits.")


def load(client: MlflowClient, run: Run, *, metric: str, scorer: str) -> LoggedRun:
    """Return a run's params, hashes and costs, and its per-user values of one metric and scorer.

    Raises:
        ComparisonError: The run has no per-user values, or none of this metric or scorer; the
            message lists those it has.
    """
    run_id, metrics = run.info.run_id, run.data.metrics
    if PER_USER not in {file.path for file in client.list_artifacts(run_id)}:
        raise ComparisonError(
            f"run {run_id} ({run.info.status}) has no {PER_USER}: it did not reach its evaluation. "
            "Compare runs that did."
        )
    with tempfile.TemporaryDirectory(prefix="reranker-compare-") as folder:
        path = Path(client.download_artifacts(run_id, PER_USER, folder))
        per_user = _read(path, run_id, metric=metric, scorer=scorer)
    has_dev = DEV in metrics
    dev = [point.value for point in client.get_metric_history(run_id, DEV)] if has_dev else []
    hashes = {k.removeprefix(HASH): v for k, v in run.data.tags.items() if k.startswith(HASH)}
    return LoggedRun(
        run_id,
        str(run.info.run_name),
        rename_params(run.data.params),
        {rename_hash(name): value for name, value in hashes.items()},
        max(dev, default=float("nan")),
        metrics.get("time/train_s", float("nan")),
        metrics.get("train/pairs_per_s", float("nan")),
        per_user,
    )


def _read(path: Path, run_id: str, *, metric: str, scorer: str) -> pd.DataFrame:
    known = [name for name in pq.read_schema(path).names if name not in _KEYS]
    if metric not in known:
        raise ComparisonError(
            f"run {run_id} has no per-user {metric!r}; choose one of {', '.join(known)}."
        )
    rows = rename_rows(pd.read_parquet(path, columns=[*_KEYS, metric]))
    scorers = rows["scorer"].unique()
    if scorer not in scorers:
        raise ComparisonError(
            f"run {run_id} has no scorer {scorer!r}; choose one of {', '.join(scorers)}."
        )
    return rows.loc[rows["scorer"] == scorer, ["kind", "user_id", metric]]
