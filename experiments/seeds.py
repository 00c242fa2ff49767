"""Compare the scorers of one configuration over several seeds.

    python experiments/seeds.py RUN_FOLDER RUN_FOLDER RUN_FOLDER

The folders of the runs contain result.json and per_user.parquet. The result is a table in Markdown
for each list kind: the mean of every scorer, and the lift of the fine-tuned and the fused model
over it. Intervals are 95 %, over users and, with several runs, over seeds. With few seeds they
underestimate the variation between seeds (see `over_seeds`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from reranker.eval.paired_comparison import align
from reranker.eval.scoring import MODELS
from reranker.eval.statistics import over_seeds

METRIC = "ndcg_10"
RESAMPLES = {"n_resamples": 2000, "seed": 0}


def by_scorer(runs: dict[str, pd.DataFrame], kind: str) -> dict[str, np.ndarray]:
    """Return scorer -> (n_runs, n_users) values on one list kind, with the same users in all."""
    values = {}
    for scorer in next(iter(runs.values()))["scorer"].unique():
        rows = {name: r[(r["scorer"] == scorer) & (r["kind"] == kind)] for name, r in runs.items()}
        per_user = {name: r.set_index("user_id")[METRIC] for name, r in rows.items()}
        values[scorer] = align(per_user).to_numpy().T
    return values


def interval(values: np.ndarray, form: str = ".3f") -> str:
    """Return the mean and its interval, for example `.369 [.316, .425]`."""
    mean, low, high = over_seeds(values, **RESAMPLES)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def table(values: dict[str, np.ndarray]) -> list[str]:
    """Return a row for each scorer in ascending order, with the models' lifts over it."""
    lines = [
        f"| scorer | {METRIC} | {' | '.join(f'{m} over it' for m in MODELS)} |",
        "|---|---|---|---|",
    ]
    for scorer in sorted(values, key=lambda name: np.nanmean(values[name])):
        lifts = [
            "" if scorer in MODELS else interval(values[m] - values[scorer], "+.3f") for m in MODELS
        ]
        lines.append(f"| {scorer} | {interval(values[scorer])} | {' | '.join(lifts)} |")
    return lines


def check(folders: list[str]) -> None:
    """Exit if the runs ranked different lists or differ in more than their seeds."""
    results = {folder: json.loads((Path(folder) / "result.json").read_text()) for folder in folders}
    first = results[folders[0]]
    for folder, result in results.items():
        if (lists := result["hashes"]["lists/test"]) != first["hashes"]["lists/test"]:
            sys.exit(
                f"{folder} ranked other lists ({lists[:12]}…) than {folders[0]}; "
                "pass runs of one configuration."
            )
        changed = {*result["overrides"]} ^ {*first["overrides"]}
        if other := sorted(o for o in changed if o.split("=")[0].split(".")[-1] != "seed"):
            sys.exit(
                f"{folder} and {folders[0]} differ in {', '.join(other)}; "
                "pass runs that differ only in seeds."
            )


def main() -> None:
    """Print a table for each list kind."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("folders", nargs="+", help="folders of runs that differ only in seeds")
    folders = parser.parse_args().folders
    check(folders)
    runs = {folder: pd.read_parquet(Path(folder) / "per_user.parquet") for folder in folders}
    for kind in next(iter(runs.values()))["kind"].unique():
        values = by_scorer(runs, kind)
        n_runs, n_users = next(iter(values.values())).shape
        print(f"\n{kind}, {n_users} users, {n_runs} runs\n", *table(values), sep="\n")


if __name__ == "__main__":
    main()
