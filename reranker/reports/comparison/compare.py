"""Compare runs user by user in each list kind in which they ranked the same lists."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pandas as pd

from reranker.errors import ComparisonError
from reranker.eval import paired_comparison
from reranker.eval.paired_comparison import Measured
from reranker.reports.comparison.configurations import (
    Configuration,
    configurations,
    differ_only_in_seeds,
)
from reranker.reports.comparison.runs import HASH, LoggedRun


@dataclass(frozen=True)
class Comparison:
    """Runs compared with a reference, which is the first configuration.

    Attributes:
        metric, scorer: What is compared.
        configurations: Their runs; runs that differ only in seeds are one configuration.
        table: kind, then the columns of `paired_comparison.compare`, with `p_holm` over all rows.
        together: kind, n_seeds, mean, low, high, seed_std of all runs if they differ only in
            seeds; otherwise empty.
        effects: kind, then the columns of `main_effects`; empty if fewer than two keys vary.
        runs: A row per run and list kind: kind, run_id, name, configuration, mean, dev_ndcg_10,
            train_s, pairs_per_s.
        refused: List kind -> the reason why it is not compared.
        best: The configuration with the best dev value; None if the runs have different dev lists.
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


def compare(
    runs: Sequence[LoggedRun], kinds: Iterable[str], *, metric: str, scorer: str
) -> Comparison:
    """Compare runs in each list kind in which all of them ranked the same lists.

    Holm's correction is over all comparisons, of all configurations and list kinds.

    Args:
        runs: The first one's configuration is the reference.
        kinds: List kinds.
        metric: Name of the metric in `per_user` of each run.
        scorer: The scorer of these values.

    Raises:
        ComparisonError: No list kind can be compared; the message has the reason of each.

    Example:
        >>> runs = [load(client, run, metric="ndcg_10", scorer="fine_tuned") for run in found]
        >>> compare(runs, ["uniform"], metric="ndcg_10", scorer="fine_tuned").table
    """
    params = {run.run_id: run.params for run in runs}
    found = configurations(params)
    aligned, refused = _aligned(runs, kinds, metric)
    if not aligned:
        raise ComparisonError("\n".join(refused.values()))
    measured = {kind: [_measured(c, values) for c in found] for kind, values in aligned.items()}
    only_seeds = differ_only_in_seeds(params)
    several_keys = len(found[0].settings) > 1 and not only_seeds
    compared = {kind: paired_comparison.compare(m) for kind, m in measured.items()}
    together = {kind: _together(m) for kind, m in measured.items()} if only_seeds else {}
    settings = [c.settings for c in found]
    effects = {
        kind: paired_comparison.main_effects(m, settings)
        for kind, m in measured.items()
        if several_keys
    }
    return Comparison(
        metric,
        scorer,
        found,
        paired_comparison.adjust(_stacked(compared)),
        _stacked(together),
        _stacked(effects),
        _stacked({kind: _run_rows(runs, found, values) for kind, values in aligned.items()}),
        refused,
        _best(runs, found),
    )


def _aligned(
    runs: Sequence[LoggedRun], kinds: Iterable[str], metric: str
) -> tuple[dict[str, pd.DataFrame], dict[str, str]]:
    """Return the per-user values by run of each list kind, and why other kinds have none."""
    aligned, refused = {}, {}
    for kind in kinds:
        try:
            _check_lists(runs, kind)
            values = {run.run_id: _values(run, kind, metric) for run in runs}
            aligned[kind] = paired_comparison.align(values)
        except ComparisonError as error:
            refused[kind] = str(error)
    return aligned, refused


def _values(run: LoggedRun, kind: str, metric: str) -> pd.Series:
    values: pd.Series = run.per_user[run.per_user["kind"] == kind].set_index("user_id")[metric]
    return values


def _check_lists(runs: Sequence[LoggedRun], kind: str) -> None:
    """Raise unless all runs ranked the same lists of this kind.

    Early runs have no hash of each kind; then the hashes of all test lists must be equal.
    """
    for run in runs:
        if not (run.per_user["kind"] == kind).any():
            has = ", ".join(run.per_user["kind"].unique())
            raise ComparisonError(f"run {run.run_id} ranked no {kind} lists; it has {has}.")
    each = f"lists/test/{kind}"
    key = each if all(each in run.hashes for run in runs) else "lists/test"
    for run in runs:
        if key not in run.hashes:
            raise ComparisonError(
                f"run {run.run_id} has no tag {HASH}{key}, so the lists it ranked are unknown."
            )
    for one, other in pairwise(runs):
        if one.hashes[key] != other.hashes[key]:
            raise ComparisonError(
                f"runs {one.run_id} and {other.run_id} ranked different {kind} lists: {HASH}{key} "
                f"is {one.hashes[key]} in the first and {other.hashes[key]} in the second, so "
                "their metrics are not comparable. Compare runs with the same data.* and eval.* "
                "(list_kinds, n_candidates, max_positives, max_users, seed), or repeat one of them "
                "with the settings of the other."
            )


def _measured(configuration: Configuration, values: pd.DataFrame) -> Measured:
    own = values[list(configuration.run_ids)].to_numpy().T
    return Measured(configuration.name, configuration.seeds, own)


def _together(measured: Sequence[Measured]) -> pd.DataFrame:
    seeds = tuple(seed for m in measured for seed in m.seeds)
    values = pd.concat([pd.DataFrame(m.values) for m in measured]).to_numpy()
    columns = ["n_seeds", "mean", "low", "high", "seed_std"]
    return paired_comparison.compare([Measured("all seeds", seeds, values)])[columns]


def _stacked(frames: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Concatenate the frames of all list kinds, with a column `kind`."""
    rows = [frame.assign(kind=kind)[["kind", *frame.columns]] for kind, frame in frames.items()]
    return pd.concat(rows, ignore_index=True) if rows else pd.DataFrame()


def _run_rows(
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
    """Return the configuration with the highest mean dev NDCG@10 over its runs."""
    hashes = {run.hashes.get("lists/dev") for run in runs}
    if len(hashes) > 1 or None in hashes:
        return None
    dev = {run.run_id: run.dev_ndcg_10 for run in runs}
    means = {c.name: sum(dev[run_id] for run_id in c.run_ids) / len(c.run_ids) for c in found}
    known = {name: mean for name, mean in means.items() if mean == mean}
    return max(known, key=lambda name: known[name], default=None)
