"""Compare trained models with a reference on the same users: differences, tests, power."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.errors import ComparisonError
from reranker.eval import statistics
from reranker.eval.statistics import FloatArray

N_RESAMPLES = 2000  # as eval.n_bootstrap
# p-values go down to 1e-4, so that Holm's correction over a sweep of 500 can still reject.
N_PERMUTATIONS = 9_999
SEED = 0


@dataclass(frozen=True)
class Measured:
    """One configuration's values of a metric in one list kind.

    Attributes:
        name: Name of the configuration.
        seeds: (n_seeds,) seeds of its runs. If they are equal in two configurations, the runs are
            paired.
        values: (n_seeds, n_users) with the same users in the same order in all configurations;
            NaN for a user without positives.
    """

    name: str
    seeds: tuple[str, ...]
    values: FloatArray

    @property
    def user_means(self) -> FloatArray:
        """Return (n_users,) means over the seeds."""
        means: FloatArray = self.values.mean(axis=0)
        return means


def align(per_user: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Return a column of values per run and a row per user, in ascending order of user_id.

    Args:
        per_user: Run -> values indexed by user_id, in any order.

    Raises:
        ComparisonError: The users of a run differ from those of the first run.
    """
    (first, users), *others = ((run, set(values.index)) for run, values in per_user.items())
    for run, theirs in others:
        if users != theirs:
            only = [
                f"{len(a - b)} only in {r}"
                for r, a, b in ((first, users, theirs), (run, theirs, users))
            ]
            example = min(users ^ theirs)
            raise ComparisonError(
                f"runs {first} and {run} ranked for different users: {' and '.join(only)} "
                f"(first: user_id={example!r}). A difference needs the same users; compare runs "
                "with the same data and eval.max_users."
            )
    return pd.DataFrame(dict(per_user)).sort_index()


def compare(measured: Sequence[Measured], *, seed: int = SEED) -> pd.DataFrame:
    """Compare each configuration with the first, the reference; return a row per configuration.

    Columns:
        configuration, n_seeds, n_users: Users with a value.
        mean, low, high: The metric's mean over users and seeds, with its 95 % interval.
        seed_std: Standard deviation of the seeds' means; NaN with one seed.
        difference, difference_low, difference_high: Difference to the reference, with its 95 %
            bootstrap interval, paired by user.
        interval_over: What that interval covers: "users and seeds" if both have the same seeds,
            which are then paired too; otherwise "users".
        p: From the paired permutation test on each user's mean over seeds.
        effect_size, n_wins, n_ties, n_losses: From the same means.
        minimal_detectable: The difference that this number of users detects with 80 % power at 5 %.
        n_users_needed: Users needed to detect the observed difference with that power; infinite if
            it is 0.

    In the reference's own row everything from `difference` on is missing. All random draws start
    from `seed`.
    """
    reference = measured[0]
    return pd.DataFrame(
        [
            _own(m, seed) | (_against(m, reference, seed) if m is not reference else {})
            for m in measured
        ],
        columns=COLUMNS,
    )


COLUMNS = [
    *("configuration", "n_seeds", "n_users", "mean", "low", "high", "seed_std"),
    *("difference", "difference_low", "difference_high", "interval_over", "p", "effect_size"),
    *("n_wins", "n_ties", "n_losses", "minimal_detectable", "n_users_needed"),
]


def _own(measured: Measured, seed: int) -> dict[str, object]:
    users = measured.user_means
    mean, low, high = _interval(measured.values, seed)
    n_seeds = len(measured.seeds)
    spread = float(np.nanmean(measured.values, axis=1).std(ddof=1)) if n_seeds > 1 else float("nan")
    return {
        "configuration": measured.name,
        "n_seeds": n_seeds,
        "n_users": int((~np.isnan(users)).sum()),
        "mean": mean,
        "low": low,
        "high": high,
        "seed_std": spread,
    }


def _against(ours: Measured, reference: Measured, seed: int) -> dict[str, object]:
    paired = len(ours.seeds) > 1 and ours.seeds == reference.seeds
    our_users, their_users = ours.user_means, reference.user_means
    differences = our_users - their_users
    mean, low, high = _interval(
        ours.values - reference.values if paired else differences[None], seed
    )
    wins, ties, losses = statistics.wins_ties_losses(our_users, their_users)
    return {
        "difference": mean,
        "difference_low": low,
        "difference_high": high,
        "interval_over": "users and seeds" if paired else "users",
        "p": statistics.paired_permutation(
            our_users, their_users, n_permutations=N_PERMUTATIONS, seed=seed
        ),
        "effect_size": statistics.effect_size(our_users, their_users),
        "n_wins": wins,
        "n_ties": ties,
        "n_losses": losses,
        "minimal_detectable": statistics.minimal_detectable_difference(differences),
        "n_users_needed": statistics.users_needed(differences, mean),
    }


def _interval(values: FloatArray, seed: int) -> tuple[float, float, float]:
    """Return the mean and interval of (n_seeds, n_users) values, over users and seeds."""
    return statistics.over_seeds(values, n_resamples=N_RESAMPLES, seed=seed)


def adjust(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with `p_holm` after `p`; all its comparisons are one family."""
    out = table.copy()
    tested = out["p"].notna()
    out.insert(out.columns.get_loc("p") + 1, "p_holm", np.nan)
    out.loc[tested, "p_holm"] = statistics.holm(out.loc[tested, "p"].to_numpy(dtype=np.float64))
    return out


def main_effects(
    measured: Sequence[Measured], settings: Sequence[Mapping[str, str]], *, seed: int = SEED
) -> pd.DataFrame:
    """Return the metric's mean at each value of each key, over all configurations that have it.

    This is the main effect of a key. In a complete grid the other keys are balanced. In an
    incomplete one (a job failed) `n_configurations` differs between the values of a key, and so
    may the values of the other keys.

    Args:
        measured: The configurations.
        settings: Key -> value of each configuration.

    Returns:
        key, value, n_configurations, mean, low, high. The interval is over users, whose values are
        means over those configurations and their seeds.
    """
    rows = []
    for key in dict.fromkeys(key for setting in settings for key in setting):
        for value in dict.fromkeys(setting[key] for setting in settings):
            users = [
                m.user_means
                for m, setting in zip(measured, settings, strict=True)
                if setting[key] == value
            ]
            mean, low, high = _interval(np.mean(users, axis=0)[None], seed)
            row = {"key": key, "value": value, "n_configurations": len(users)}
            rows.append(row | {"mean": mean, "low": low, "high": high})
    return pd.DataFrame(rows, columns=["key", "value", "n_configurations", "mean", "low", "high"])
