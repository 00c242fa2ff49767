"""Finished runs of the store, read back and compared user by user where they ranked the same lists."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow.parquet as pq

from reranker.errors import ComparisonError
from reranker.eval import paired_comparison as statistics
from reranker.eval.paired_comparison import Measured
from reranker.redaction import redact
from reranker.reports.comparison.configurations import (
    Configuration,
    configurations,
    differ_in_seeds_alone,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PER_USER = "per_user.parquet"
HASH = "hash."  # begins the tags of what decides a result
DEV = "dev/ndcg_10"
_KEYS = ("scorer", "kind", "user_id")  # of a row of per_user.parquet; the other columns are values


@dataclass(frozen=True)
class LoggedRun:
    """What a comparison needs of a run.

    Attributes:
        hashes: `lists/test` -> digest, and so on.
        dev_ndcg_10: Of its best step on the dev lists; NaN without one.
        train_s, pairs_per_s: What its training took; NaN where it was not logged.
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
        """The list kind that its figures without a kind are of: the first of its `eval.list_kinds`."""
        given = self.params.get("eval.list_kinds")
        return given.split(",")[0] if given else str(self.per_user["kind"].iloc[0])


@dataclass(frozen=True)
class Comparison:
    """Runs against a reference, which is the first.

    Attributes:
        metric, scorer: What is compared.
        configurations: Their runs; runs that differ in seeds alone are one.
        table: kind, then rows as of `reranker.eval.compare.compare`, with `p_holm` over all of them.
        together: kind, n_seeds, mean, low, high, seed_std of all runs, where they differ in seeds alone; else empty.
        effects: kind, then rows as of `main_effects`; empty where fewer than two keys vary.
        runs: A run in a list kind: kind, run_id, name, configuration, mean, dev_ndcg_10, train_s, pairs_per_s.
        refused: List kind -> why it is not compared.
        best: The name of the configuration that the dev lists choose; None where they differ between the runs.
    """

    metric: str
    scorer: str
    configurations: list[Configuration]
    table: pd.DataFrame
    together: pd.DataFrame
    effects: pd.DataFrame
    runs: pd.DataFrame
    refused: dict[str, str]
    best: str | None


def find(client: MlflowClient, run_ids: Sequence[str]) -> list[Run]:
    """The runs of all experiments whose ids begin so, in the order given.

    Raises:
        ComparisonError: Fewer than two, one given twice, a beginning that no run or several have, or a store that
            does not answer.
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
        raise ComparisonError(f"run {twice[0]} is given twice; give each run once.")
    return runs


def _find(client: MlflowClient, experiments: list[str], beginning: str) -> Run:
    if not (beginning.isascii() and beginning.isalnum()):
        raise ComparisonError(
            f"{beginning!r} is not a run id; give the hexadecimal id of a run, or its beginning."
        )
    found = client.search_runs(
        experiments, f"attributes.run_id LIKE '{beginning.lower()}%'", max_results=3
    )
    if len(found) == 1:
        return found[0]
    if not found:
        raise ComparisonError(
            f"no run's id begins with {beginning!r}; `reranker ui` lists the runs of the store."
        )
    some = ", ".join(run.info.run_id for run in found)
    raise ComparisonError(
        f"several runs' ids begin with {beginning!r} ({some}, …); give more digits."
    )


def load(client: MlflowClient, run: Run, *, metric: str, scorer: str) -> LoggedRun:
    """What the store has of a run, with its per-user values of one metric and scorer.

    Raises:
        ComparisonError: It kept no per-user values, or none of this metric or scorer; what it has is named.
    """
    run_id, metrics = run.info.run_id, run.data.metrics
    if PER_USER not in {file.path for file in client.list_artifacts(run_id)}:
        raise ComparisonError(
            f"run {run_id} ({run.info.status}) has no {PER_USER}: it did not reach its evaluation. "
            "Compare runs that did."
        )
    with tempfile.TemporaryDirectory(prefix="reranker-compare-") as folder:
        per_user = _read(
            Path(client.download_artifacts(run_id, PER_USER, folder)), run_id, metric, scorer
        )
    dev = (
        [point.value for point in client.get_metric_history(run_id, DEV)] if DEV in metrics else []
    )
    return LoggedRun(
        run_id,
        str(run.info.run_name),
        dict(run.data.params),
        {
            key.removeprefix(HASH): value
            for key, value in run.data.tags.items()
            if key.startswith(HASH)
        },
        max(dev, default=float("nan")),
        metrics.get("time/train_s", float("nan")),
        metrics.get("train/pairs_per_s", float("nan")),
        per_user,
    )


def _read(path: Path, run_id: str, metric: str, scorer: str) -> pd.DataFrame:
    known = [name for name in pq.read_schema(path).names if name not in _KEYS]
    if metric not in known:
        raise ComparisonError(
            f"run {run_id} has no per-user {metric!r}; choose one of {', '.join(known)}."
        )
    rows = pd.read_parquet(path, columns=[*_KEYS, metric])
    scorers = rows["scorer"].unique()
    if scorer not in scorers:
        raise ComparisonError(
            f"run {run_id} has no scorer {scorer!r}; choose one of {', '.join(scorers)}."
        )
    return rows.loc[rows["scorer"] == scorer, ["kind", "user_id", metric]]


def compare(
    runs: Sequence[LoggedRun], kinds: Iterable[str], *, metric: str, scorer: str
) -> Comparison:
    """The runs compared in each list kind in which all of them ranked the same lists.

    All comparisons, over configurations and list kinds, are one family for Holm's correction.

    Raises:
        ComparisonError: There is no such kind; each one's reason is given.
    """
    params = {run.run_id: run.params for run in runs}
    found = configurations(params)
    aligned, refused = _aligned(runs, kinds, metric)
    if not aligned:
        raise ComparisonError("\n".join(refused.values()))
    measured = {kind: [_measured(c, values) for c in found] for kind, values in aligned.items()}
    one = differ_in_seeds_alone(params)
    several = len(found[0].settings) > 1 and not one
    settings = [c.settings for c in found]
    return Comparison(
        metric,
        scorer,
        found,
        statistics.adjust(_stacked({kind: statistics.compare(m) for kind, m in measured.items()})),
        _stacked({kind: _together(m) for kind, m in measured.items() if one}),
        _stacked(
            {kind: statistics.main_effects(m, settings) for kind, m in measured.items() if several}
        ),
        _stacked({kind: _runs(runs, found, values) for kind, values in aligned.items()}),
        refused,
        _best(runs, found),
    )


def _aligned(
    runs: Sequence[LoggedRun], kinds: Iterable[str], metric: str
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """List kind -> values of users by run; list kind -> why there are none."""
    aligned, refused = {}, {}
    for kind in kinds:
        try:
            _check_lists(runs, kind)
            aligned[kind] = statistics.align(
                {run.run_id: _values(run, kind, metric) for run in runs}
            )
        except ComparisonError as error:
            refused[kind] = str(error)
    return aligned, refused


def _values(run: LoggedRun, kind: str, metric: str) -> pd.Series:
    values: pd.Series = run.per_user[run.per_user["kind"] == kind].set_index("user_id")[metric]
    return values


def _check_lists(runs: Sequence[LoggedRun], kind: str) -> None:
    """Refuse runs that ranked different lists of this kind; a run without a hash of its own has that of all kinds."""
    for run in runs:
        if not (run.per_user["kind"] == kind).any():
            has = ", ".join(run.per_user["kind"].unique())
            raise ComparisonError(f"run {run.run_id} ranked no {kind} lists; it has {has}.")
    each = f"lists/test/{kind}"
    key = each if all(each in run.hashes for run in runs) else "lists/test"
    for run in runs:
        if key not in run.hashes:
            raise ComparisonError(
                f"run {run.run_id} has no tag {HASH}{key}, so nobody can say which lists it ranked."
            )
    for before, after in pairwise(runs):
        if before.hashes[key] != after.hashes[key]:
            raise ComparisonError(
                f"runs {before.run_id} and {after.run_id} ranked different {kind} lists: {HASH}{key} is "
                f"{before.hashes[key]} in the first and {after.hashes[key]} in the second. Their numbers answer "
                "different questions; compare runs with the same data.* and eval.* (kinds, n_candidates, "
                "max_positives, max_users, seed), or make one of them again with the other's."
            )


def _measured(configuration: Configuration, values: pd.DataFrame) -> Measured:
    return Measured(
        configuration.name, configuration.seeds, values[list(configuration.run_ids)].to_numpy().T
    )


def _together(measured: Sequence[Measured]) -> pd.DataFrame:
    seeds = tuple(seed for m in measured for seed in m.seeds)
    values = pd.concat([pd.DataFrame(m.values) for m in measured]).to_numpy()
    columns = ["n_seeds", "mean", "low", "high", "seed_std"]
    return statistics.compare([Measured("all seeds", seeds, values)])[columns]


def _stacked(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The frames of all list kinds, each row with its kind; an empty frame where there is none."""
    rows = [frame.assign(kind=kind)[["kind", *frame.columns]] for kind, frame in frames.items()]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _runs(
    runs: Sequence[LoggedRun], found: Sequence[Configuration], values: pd.DataFrame
) -> pd.DataFrame:
    names = {run_id: c.name for c in found for run_id in c.run_ids}
    rows = [
        {
            "run_id": run.run_id,
            "name": run.name,
            "configuration": names[run.run_id],
            "mean": values[run.run_id].mean(),
            "dev_ndcg_10": run.dev_ndcg_10,
            "train_s": run.train_s,
            "pairs_per_s": run.pairs_per_s,
        }
        for run in runs
    ]
    return pd.DataFrame(rows)


def _best(runs: Sequence[LoggedRun], found: Sequence[Configuration]) -> str | None:
    """The configuration with the highest mean over its runs of the dev lists' NDCG@10."""
    hashes = {run.hashes.get("lists/dev") for run in runs}
    dev = {run.run_id: run.dev_ndcg_10 for run in runs}
    means = {c.name: sum(dev[run_id] for run_id in c.run_ids) / len(c.run_ids) for c in found}
    known = {name: mean for name, mean in means.items() if mean == mean}
    return (
        max(known, key=lambda name: known[name], default=None)
        if len(hashes) == 1 and None not in hashes
        else None
    )
