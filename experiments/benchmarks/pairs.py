"""Measure the building of training pairs against bookdb, DuckDB, Polars, LensKit and RecBole.

    .venv/bin/pip install -c constraints.txt -e '.[bench]'
    .venv/bin/python experiments/benchmarks/pairs.py --ratings 1e5 1e6 1e7 --repeats 5 5 3 \
        --cache outputs/cache --lenskit-python PATH --recbole-python PATH

`bookdb` is the algorithm of the original system. All sides that write pairs do the same task: they
read the files of one world and write parquet in the schema of bookdb. There is a row for each
positive of the train users, and `neg_ratio` rows with uniformly drawn books that the user has not
rated; a user's negatives are distinct. Each side runs in a separate interpreter on two cores, and
the sides alternate. Rows are checked after the measurement, and a side with wrong rows stops the
benchmark. The samplers only draw negatives; their faults are counted and do not stop it.

The last line is a JSON object: the medians of each world, and the ratios of other sides to ours.
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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reranker.data import Corpus

# The parent imports no library, because the peak memory of a child includes the pages that its
# parent had at the fork.
HERE = Path(__file__).resolve()
ROOT = HERE.parents[2]
N_CORES = 2
FLAT = {
    "ours": "ours",
    "bookdb": "bookdb",
    "duckdb": "with_duckdb",
    "polars": "with_polars",
    "write": "writing",
}
SAMPLERS = {"draw": "prepare_draw", "lenskit": "prepare_lenskit", "recbole": "prepare_recbole"}
PAIR_MAKERS = ("ours", "bookdb", "duckdb", "polars")
NEEDS = {"duckdb": "duckdb", "polars": "polars"}  # side -> package of the extra `bench`
N_BOOKS = 17_663  # size of the Goodreads sample's catalogue
# Demo users have 24 ratings each, less those that rounding and merged editions remove.
USERS_PER_RATING = 0.0417


def measure(side: str, world: Path, out: Path, n_users: int | None) -> dict[str, object]:
    """Run one side once in this process; return seconds, peak memory and the counts of the check.

    Returns:
        wall_s and cpu_s of the work without imports; peak_mib of the process and above_imports_mib;
        rows, negatives, seen, duplicates.
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
    if side in PAIR_MAKERS:  # the inputs of other sides decide their peak
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        facts |= {"peak_mib": peak, "above_imports_mib": peak - before}
    # Imported after the peak has been read.
    from sides.check import Truth, check_flat

    truth = Truth(task)
    if side in SAMPLERS:
        user, book = result
        return facts | {"rows": len(user)} | truth.count_negatives(user, book)
    place = result or out
    files = sorted(place.glob("*.parquet")) if place.is_dir() else [place]
    facts["file_mb"] = sum(f.stat().st_size for f in files) / 1e6
    counts = check_flat(truth, files, contexts=side != "bookdb")
    if counts["seen"] or counts["duplicates"]:
        raise SystemExit(
            f"{side}: {counts['seen']} negatives were rated by their user and "
            f"{counts['duplicates']} are repeated; the task allows neither."
        )
    return facts | counts


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def make_world(n_ratings: float, raw: str | None, cache: Path) -> Path:
    """Return the folder of a world's feature tables.

    Args:
        n_ratings: Ratings of a demo world, about.
        raw: A folder of raw tables, used instead of a demo world.
        cache: Folder of the cache.
    """
    from reranker import data
    from reranker.cache import Cache
    from reranker.config import compose

    n_users = round(n_ratings * USERS_PER_RATING)
    world = [f"data.world.n_books={N_BOOKS}", f"data.world.n_users={n_users}"]
    sizes = ["data.context_titles=6", "data.context_genres=4"]
    cfg = compose([*(["data=bookdb", f"data.root={raw}"] if raw else world), *sizes]).data
    corpus = data.load(cfg, Cache(cache))

    def build(folder: Path) -> dict[str, object]:
        write_world(corpus, folder)
        return {"ratings": len(corpus.tables.histories)}

    key = {"version": 2, "tables": corpus.digest}
    return Cache(cache).fetch("benchmark_worlds", key, build).path


def write_world(corpus: Corpus, folder: Path) -> None:
    """Write the files that every side reads: books, users, histories, editions, contexts."""
    import pandas as pd

    tables = corpus.tables
    users = range(len(tables.users))
    frames = {
        "books": tables.books,
        "users": tables.users,
        "editions": tables.editions,
        "contexts": pd.DataFrame({"user": users, "user_ctx": corpus.contexts.text}),
        "histories": tables.histories,
    }
    for name, frame in frames.items():
        frame.to_parquet(folder / f"{name}.parquet", index=False, compression="zstd")


def _child(python: str, *args: object) -> str:
    """Run this script with other arguments on two cores, and return the last line it prints."""
    n = str(N_CORES)
    env = os.environ | {"POLARS_MAX_THREADS": n, "OMP_NUM_THREADS": n, "TQDM_DISABLE": "1"}
    env["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [python, HERE, *map(str, args)], env=env, stdout=subprocess.PIPE, text=True
    )
    if run.returncode:
        command = " ".join(map(str, args))
        raise SystemExit(f"{command}: failed with status {run.returncode}; see its output above.")
    return run.stdout.strip().splitlines()[-1]


def compare(
    world: Path, sides: dict[str, str], *, n_repeats: int, bookdb_users: int
) -> list[dict[str, object]]:
    """Run every side n_repeats times; the order is reversed in every second round."""
    runs = []
    for repeat in range(n_repeats):
        for side in list(sides)[:: -1 if repeat % 2 else 1]:
            with tempfile.TemporaryDirectory(dir=world.parent, prefix=".out-") as out:
                arguments = ["--side", side, "--world", world, "--out", out]
                if side == "bookdb":
                    arguments += ["--n-users", bookdb_users]
                runs.append(json.loads(_child(sides[side], *arguments)))
                print(f"  {side:8s} {runs[-1]['wall_s']:8.3f} s", file=sys.stderr)
    return runs


def summarise(runs: list[dict[str, object]]) -> dict[str, dict[str, float]]:
    """Return the medians of every side and the interquartile range of its seconds."""
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
    """Return the ratios of other sides to ours; above 1 ours is better.

    `ours_to_write_time` is our time as a multiple of the time that writing takes.
    """
    out: dict[str, float] = {}
    for name in [n for n in ("duckdb", "polars", "bookdb") if n in sides and "ours" in sides]:
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
    """Print a table in Markdown, with a row for each side that is missing."""
    heads = " | ".join(head for head, _ in COLUMNS.values())
    print(f"\n{title}\n\n| side | {heads} |\n|---|{'---|' * len(COLUMNS)}")
    for side, facts in sides.items():
        cells = [
            format(facts[key], form) if key in facts else "" for key, (_, form) in COLUMNS.items()
        ]
        print(f"| {side} | {' | '.join(cells)} |")
    for side in missing:
        print(f"| {side} | not measured |{' |' * (len(COLUMNS) - 1)}")


def _pythons(args: argparse.Namespace) -> dict[str, str | None]:
    """Return the interpreter of each wanted side; None if it or its library is missing."""
    others = {"lenskit": args.lenskit_python, "recbole": args.recbole_python}
    here = {
        side: sys.executable
        for side in [*FLAT, *SAMPLERS]
        if side not in NEEDS or importlib.util.find_spec(NEEDS[side])
    }
    return {side: others[side] if side in others else here.get(side) for side in args.sides}


def main() -> None:
    """Compare the sides on every world, print tables and then one line of JSON."""
    args = _arguments()
    if args.side:
        print(json.dumps(measure(args.side, args.world, args.out, args.n_users)))
        return
    if args.make:
        print(make_world(args.make, args.raw and args.raw[0], args.cache))
        return
    pythons = _pythons(args)
    present = {side: python for side, python in pythons.items() if python}
    missing = [side for side in pythons if side not in present]
    result = {}
    for i, n_ratings in enumerate(args.ratings):
        raw = ["--raw", args.raw[i]] if args.raw else []
        world = Path(_child(sys.executable, "--make", n_ratings, "--cache", args.cache, *raw))
        n_repeats = args.repeats[min(i, len(args.repeats) - 1)]
        runs = compare(world, present, n_repeats=n_repeats, bookdb_users=args.bookdb_users)
        sides = summarise(runs)
        print_table(f"{n_ratings:.0e} ratings, medians of {n_repeats}", sides, missing)
        result[f"{n_ratings:.0e}"] = {"ratios": ratios(sides), "sides": sides}
    print(json.dumps(result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, sides, cache = parser.add_argument, [*FLAT, *SAMPLERS], ROOT / "outputs" / "cache"
    add("--ratings", type=float, nargs="+", default=[1e5, 1e6], help="sizes of the worlds")
    add("--repeats", type=int, nargs="+", default=[5], help="runs of a side, per world")
    add("--raw", nargs="+", help="folders of raw tables, one per world, instead of demo worlds")
    add("--cache", type=Path, default=cache, help="folder of the cached worlds")
    add("--sides", nargs="+", default=sides, choices=sides)
    add("--bookdb-users", type=int, default=500, help="train users of bookdb; rates are compared")
    add("--lenskit-python", help="an interpreter with lenskit and pyarrow")
    add("--recbole-python", help="an interpreter with recbole, torch and pyarrow")
    add("--side", choices=sides, help="run one side here and print one line of JSON")
    add("--world", type=Path, help="folder of feature tables, for --side")
    add("--out", type=Path, help="an empty folder, for --side")
    add("--n-users", type=int, help="use only the first train users, for --side")
    add("--make", type=float, help="make a world of this many ratings and print its folder")
    return parser.parse_args()


if __name__ == "__main__":
    main()
