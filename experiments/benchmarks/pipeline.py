"""Measure the seconds and the peak memory of each stage from raw tables to audited pairs.

    python experiments/benchmarks/pipeline.py --users 417000 --cache FOLDER
    python experiments/benchmarks/pipeline.py --raw FOLDER --cache FOLDER

The first command generates a demo world of about 10 million ratings, the second one reads existing
raw tables. All stages run in one process. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reranker.cache import Cache
from reranker.config import EngineConfig, SamplingConfig, compose
from reranker.data import Corpus, build_contexts, load_tables
from reranker.data.sources import fetch
from reranker.sampling import audit, build_pairs

N_BOOKS = 17_663  # size of the Goodreads sample's catalogue

Stages = dict[str, dict[str, float]]


@contextmanager
def stage(name: str, stages: Stages) -> Iterator[None]:
    """Time a stage; the peak memory is that of the process so far."""
    begin = time.perf_counter()
    yield
    wall = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    stages[name] = {"wall_s": round(wall, 2), "peak_gib_so_far": round(peak, 2)}
    print(f"{name:10} {wall:8.1f} s   peak so far {peak:.2f} GiB", flush=True)


def main() -> None:
    """Run the stages and print one line of JSON at the end."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument("--raw", help="folder of the four raw tables (default: a demo world)")
    parser.add_argument("--users", type=int, default=41_700, help="users of the demo world")
    parser.add_argument("--cache", required=True)
    args = parser.parse_args()
    world = [f"data.world.n_books={N_BOOKS}", f"data.world.n_users={args.users}"]
    cfg = compose(["data=bookdb", f"data.root={args.raw}"] if args.raw else world).data
    cache, stages = Cache(args.cache), Stages()
    with stage("raw", stages):
        fetch.fetch(cfg, cache)
    with stage("tables", stages):
        tables = load_tables(cfg, cache)
    with stage("contexts", stages):
        corpus = Corpus(tables, build_contexts(tables, cfg))
    with stage("pairs", stages):
        pairs = build_pairs(corpus, SamplingConfig(), EngineConfig("threads", 2), cache)
    with stage("audit", stages):
        checked = audit(corpus, pairs)
    facts = {
        "stages": stages,
        "ratings": len(tables.histories),
        "users": len(tables.users),
        "pairs": len(pairs.codes),
        "all_pairs": pairs.counts["pairs_before_refinement"],
    }
    print(json.dumps(facts | checked))


if __name__ == "__main__":
    main()
