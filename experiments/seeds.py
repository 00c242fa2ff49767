"""One configuration under several seeds: means, and what the model gains over each baseline, in Markdown.

python experiments/seeds.py RUN_FOLDER RUN_FOLDER RUN_FOLDER     folders of runs: result.json, per_user.parquet

Intervals are 95 %, over users and, where there are several runs, over seeds too (see `over_seeds`: with few seeds they
are too narrow in what comes from seeds).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from reranker.eval.paired_comparison import align
from reranker.eval.scoring import MODELS  # noqa: E402  (as above)
from reranker.eval.statistics import over_seeds  # noqa: E402  (as above)

METRIC = "ndcg_10"
DRAWS = {"n_resamples": 2000, "seed": 0}


def by_scorer(runs: dict[str, pd.DataFrame], kind: str) -> dict[str, np.ndarray]:
    """Scorer -> (n_runs, n_users) values on one list kind, of the same users."""
    out = {}
    for scorer in next(iter(runs.values()))["scorer"].unique():
        rows = {name: r[(r["scorer"] == scorer) & (r["kind"] == kind)] for name, r in runs.items()}
        out[scorer] = (
            align({name: r.set_index("user_id")[METRIC] for name, r in rows.items()}).to_numpy().T
        )
    return out


def shown(values: np.ndarray, form: str = ".3f") -> str:
    """`.369 [.316, .425]`."""
    mean, low, high = over_seeds(values, **DRAWS)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]"


def table(values: dict[str, np.ndarray]) -> list[str]:
    """A row for each scorer, ascending; what the models gain over it beside."""
    lines = [
        f"| scorer | {METRIC} | {' | '.join(f'{m} over it' for m in MODELS)} |",
        "|---|---|---|---|",
    ]
    for scorer in sorted(values, key=lambda name: np.nanmean(values[name])):
        gains = [
            "" if scorer in MODELS else shown(values[m] - values[scorer], "+.3f") for m in MODELS
        ]
        lines.append(f"| {scorer} | {shown(values[scorer])} | {' | '.join(gains)} |")
    return lines


def check(folders: list[str]) -> None:
    """Stop where the runs ranked different lists, or differ in more than seeds."""
    results = {folder: json.loads((Path(folder) / "result.json").read_text()) for folder in folders}
    for folder, result in results.items():
        first = results[folders[0]]
        if (lists := result["hashes"]["lists/test"]) != first["hashes"]["lists/test"]:
            sys.exit(
                f"{folder} ranked other lists ({lists[:12]}…) than {folders[0]}; give runs of one configuration."
            )
        other = {
            o
            for o in {*result["overrides"]} ^ {*first["overrides"]}
            if not o.split("=")[0].endswith(".seed")
        }
        if other:
            sys.exit(
                f"{folder} and {folders[0]} differ in {', '.join(sorted(other))}; give runs that differ in seeds."
            )


def main(folders: list[str]) -> None:
    """Print a table for each list kind."""
    check(folders)
    runs = {folder: pd.read_parquet(Path(folder) / "per_user.parquet") for folder in folders}
    for kind in next(iter(runs.values()))["kind"].unique():
        values = by_scorer(runs, kind)
        n_runs, n_users = next(iter(values.values())).shape
        print(f"\n{kind}, {n_users} users, {n_runs} runs\n", *table(values), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
