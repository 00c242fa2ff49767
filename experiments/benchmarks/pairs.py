"""Training pairs: this project beside the seed's algorithm, DuckDB, Polars, and the samplers of LensKit and RecBole.

    .venv/bin/pip install -c constraints.txt -e '.[bench]'
    .venv/bin/python experiments/benchmarks/pairs.py --ratings 1e5 1e6 1e7 --repeats 5 5 3 --cache outputs/cache \
        --lenskit-python PATH --recbole-python PATH

All flat sides do one task from one world's files to parquet in the seed's schema: a row for each positive of the train
users and `neg_ratio` rows of books that the user has not rated, uniform, distinct over the user. Each side runs in an
interpreter of its own on two cores; sides take turns. Clocks stop before the rows are checked, and a side whose rows
are wrong stops the benchmark. The samplers do the draw alone; what they draw is counted, not refused.

The last line is a JSON object: for each world the medians and the ratios of other sides to ours.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# The parent imports no library: a child's peak memory begins with what its parent held at the fork.
HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
N_CORES = 2
FLAT = {
    "ours": "ours",
    "seed": "seed",
    "duckdb": "with_duckdb",
    "polars": "with_polars",
    "write": "writing",
}
SAMPLERS = {"draw": "prepare_draw", "lenskit": "prepare_lenskit", "recbole": "prepare_recbole"}
PAIR_MAKERS = ("ours", "seed", "duckdb", "polars")
NEEDS = {
    "duckdb": "duckdb",
    "polars": "polars",
}  # side -> what its group in pyproject.toml installs
N_BOOKS = 17_663  # of the Goodreads sample that the project is tried on
USERS_PER_RATING = (
    0.0417  # of the demo world: 24 ratings each, less what rounding and merged editions take
)


def measure(side: str, world: Path, out: Path, n_users: int | None) -> dict[str, object]:
    """One run of one side in this process: seconds, peak memory, and what the check counted.

    Returns:
        wall_s, cpu_s of the work, without imports; peak_mib of the process, above_imports_mib; rows, negatives, seen,
        duplicates.
    """
    from sides.task import Task

    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:N_CORES])
    task = Task(world, out, n_users)
    module = importlib.import_module(f"sides.{FLAT.get(side, 'samplers')}")
    start = time.perf_counter()
    work = getattr(module, SAMPLERS.get(side, "prepare"))(task)
    prepared_s, before = time.perf_counter() - start, _resident_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    facts: dict[str, object] = {
        "side": side,
        "wall_s": time.perf_counter() - wall,
        "cpu_s": time.process_time() - cpu,
    }
    facts["prepare_s"] = prepared_s
    if side in PAIR_MAKERS:  # the peak of others is that of what they were given
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        facts |= {"peak_mib": peak, "above_imports_mib": peak - before}
    from sides.check import Truth, check_flat  # now that the peak has been read

    truth = Truth(task)
    if side in SAMPLERS:
        user, book = result
        return facts | {"rows": len(user)} | truth.count_negatives(user, book)
    place = result or out
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    facts["file_mb"] = sum(f.stat().st_size for f in files) / 1e6
    counts = check_flat(truth, files, contexts=side != "seed")
    if counts["seen"] or counts["duplicates"]:
        raise SystemExit(
            f"{side}: {counts['seen']} seen and {counts['duplicates']} repeated negatives; not the task."
        )
    return facts | counts


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_world(n_ratings: float, raw: str | None, cache: Path) -> Path:
    """The folder of a world's feature tables; from raw tables where a folder of them is given, else of a demo world."""
    import pandas as pd

    from reranker.cache import Cache
    from reranker.config import compose
    from reranker.data import build_contexts, load_tables

    world = [
        f"data.world.n_books={N_BOOKS}",
        f"data.world.n_users={round(n_ratings * USERS_PER_RATING)}",
    ]
    sizes = ["data.context_titles=6", "data.context_genres=4"]
    cfg = compose([*(["data=bookdb", f"data.root={raw}"] if raw else world), *sizes]).data
    tables = load_tables(cfg, Cache(cache))

    def build(folder: Path) -> dict[str, object]:
        contexts = pd.DataFrame(
            {"user": range(len(tables.users)), "user_ctx": build_contexts(tables, cfg).text}
        )
        frames = {
            "books": tables.books,
            "users": tables.users,
            "editions": tables.editions,
            "contexts": contexts,
        }
        for name, frame in (frames | {"histories": tables.histories}).items():
            frame.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")
        return {"ratings": len(tables.histories)}

    return (
        Cache(cache).fetch("benchmark_worlds", {"version": 1, "tables": tables.digest}, build).path
    )


def _child(python: str, *args: object) -> str:
    """What the script prints last when it is run with these arguments, by another interpreter, on two cores."""
    n = str(N_CORES)
    env = os.environ | {"POLARS_MAX_THREADS": n, "OMP_NUM_THREADS": n, "TQDM_DISABLE": "1"}
    env["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [python, HERE, *map(str, args)], env=env, stdout=subprocess.PIPE, text=True
    )
    if run.returncode:
        raise SystemExit(
            f"{' '.join(map(str, args))}: failed with status {run.returncode}; its own words are above."
        )
    return run.stdout.strip().splitlines()[-1]


def compare(
    world: Path, sides: dict[str, str], n_repeats: int, seed_users: int
) -> list[dict[str, object]]:
    """Every side n_repeats times, in turn; the turn goes backwards every other time."""
    runs = []
    for repeat in range(n_repeats):
        for side in list(sides)[:: -1 if repeat % 2 else 1]:
            with tempfile.TemporaryDirectory(dir=world.parent, prefix=".out-") as out:
                users = ["--n-users", seed_users] if side == "seed" else []
                runs.append(
                    json.loads(
                        _child(sides[side], "--side", side, "--world", world, "--out", out, *users)
                    )
                )
                print(f"  {side:8s} {runs[-1]['wall_s']:8.3f} s", file=sys.stderr)
    return runs


def summarise(runs: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Medians of every side, and the interquartile range of its seconds."""
    out: dict[str, dict[str, float]] = {}
    for side in dict.fromkeys(str(run["side"]) for run in runs):
        mine = [
            {k: float(str(v)) for k, v in run.items() if k != "side"}
            for run in runs
            if run["side"] == side
        ]
        out[side] = {k: statistics.median(run[k] for run in mine) for k in mine[0]}
        wall = sorted(run["wall_s"] for run in mine)
        low, _, high = (
            statistics.quantiles(wall, n=4, method="inclusive") if len(wall) > 1 else (wall * 3)
        )
        out[side] |= {
            "wall_iqr_s": high - low,
            "rows_per_s": out[side]["rows"] / out[side]["wall_s"],
        }
    return out


def ratios(sides: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times our figures the other sides' are: above 1 is to our favour, but for writing alone."""
    out: dict[str, float] = {}
    for name in [n for n in ("duckdb", "polars", "seed") if n in sides and "ours" in sides]:
        out[f"{name}_time"] = sides["ours"]["rows_per_s"] / sides[name]["rows_per_s"]
    for name in [n for n in ("duckdb", "polars") if n in sides and "ours" in sides]:
        for key in ("peak_mib", "above_imports_mib"):
            out[f"{name}_{key.removesuffix('_mib')}"] = sides[name][key] / sides["ours"][key]
    if "write" in sides and "ours" in sides:
        out["ours_to_write_time"] = sides["ours"]["wall_s"] / sides["write"]["wall_s"]
    for name in [n for n in ("lenskit", "recbole") if n in sides and "draw" in sides]:
        out[f"{name}_draw_time"] = sides[name]["wall_s"] / sides["draw"]["wall_s"]
    return {k: round(v, 2) for k, v in out.items()}


COLUMNS = {
    "wall_s": ("wall s", ".3f"),
    "wall_iqr_s": ("IQR", ".3f"),
    "cpu_s": ("CPU s", ".3f"),
    "rows_per_s": ("rows/s", ",.0f"),
    "peak_mib": ("peak MiB", ",.0f"),
    "above_imports_mib": ("above imports", ",.0f"),
    "file_mb": ("file MB", ",.1f"),
    "rows": ("rows", ",.0f"),
    "seen": ("seen", ",.0f"),
    "duplicates": ("duplicates", ",.0f"),
}


def print_table(title: str, sides: dict[str, dict[str, float]], missing: list[str]) -> None:
    """A table in Markdown; a side that is missing says so."""
    print(
        f"\n{title}\n\n| side | {' | '.join(head for head, _ in COLUMNS.values())} |\n|---|{'---|' * len(COLUMNS)}"
    )
    for side, facts in sides.items():
        cells = [
            format(facts[key], form) if key in facts else "" for key, (_, form) in COLUMNS.items()
        ]
        print(f"| {side} | {' | '.join(cells)} |")
    for side in missing:
        print(f"| {side} | not measured |{' |' * (len(COLUMNS) - 1)}")


def _pythons(args: argparse.Namespace) -> dict[str, str | None]:
    """The interpreter of each wanted side; None where it or its library is absent."""
    others = {"lenskit": args.lenskit_python, "recbole": args.recbole_python}
    here = {
        side: sys.executable
        for side in [*FLAT, *SAMPLERS]
        if side not in NEEDS or importlib.util.find_spec(NEEDS[side])
    }
    return {side: others[side] if side in others else here.get(side) for side in args.sides}


def main() -> None:
    """Compare the sides on every world, print tables, then one line of JSON."""
    args = _arguments()
    if args.side:
        print(json.dumps(measure(args.side, args.world, args.out, args.n_users)))
        return
    if args.make:
        print(make_world(args.make, args.raw and args.raw[0], args.cache))
        return
    pythons = _pythons(args)
    present = {side: python for side, python in pythons.items() if python}
    result = {}
    for i, n_ratings in enumerate(args.ratings):
        raw = ["--raw", args.raw[i]] if args.raw else []
        world = Path(_child(sys.executable, "--make", n_ratings, "--cache", args.cache, *raw))
        n_repeats = args.repeats[min(i, len(args.repeats) - 1)]
        sides = summarise(compare(world, present, n_repeats, args.seed_users))
        print_table(
            f"{n_ratings:.0e} ratings, medians of {n_repeats}",
            sides,
            [s for s in pythons if s not in present],
        )
        result[f"{n_ratings:.0e}"] = {"ratios": ratios(sides), "sides": sides}
    print(json.dumps(result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--ratings", type=float, nargs="+", default=[1e5, 1e6], help="sizes of the worlds"
    )
    parser.add_argument(
        "--repeats", type=int, nargs="+", default=[5], help="runs of a side, for each world"
    )
    parser.add_argument(
        "--raw", nargs="+", help="folders of raw tables, for each world, instead of demo worlds"
    )
    parser.add_argument(
        "--cache", type=Path, default=ROOT / "outputs" / "cache", help="where worlds are kept"
    )
    parser.add_argument(
        "--sides", nargs="+", default=[*FLAT, *SAMPLERS], choices=[*FLAT, *SAMPLERS]
    )
    parser.add_argument(
        "--seed-users",
        type=int,
        default=500,
        help="train users of the seed's side; pairs/s is compared",
    )
    parser.add_argument("--lenskit-python", help="an interpreter that has lenskit, pyarrow")
    parser.add_argument("--recbole-python", help="an interpreter that has recbole, torch, pyarrow")
    parser.add_argument(
        "--side", choices=[*FLAT, *SAMPLERS], help="run one side here; prints one line of JSON"
    )
    parser.add_argument("--world", type=Path, help="--side: folder of feature tables")
    parser.add_argument("--out", type=Path, help="--side: an empty folder")
    parser.add_argument("--n-users", type=int, help="--side: only the first train users")
    parser.add_argument(
        "--make", type=float, help="make a world of so many ratings; prints its folder"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
