"""Measure ranking metrics of many users against a scikit-learn loop, pytrec_eval and ranx.

    .venv/bin/pip install -c constraints.txt -e '.[bench]'
    .venv/bin/python experiments/benchmarks/metrics.py

Every side computes AP, NDCG@10, MRR@10 and recall@10 of each user from the same arrays (user,
label, score). Its time includes everything from these arrays to the values per user: sorting here,
dictionaries or data frames in the others. A slow side gets only the first users. Rates are compared
instead of times in that case, because the cost of every side is linear in users. scikit-learn has
no MRR and no recall, so it computes only AP and NDCG@10.

Values are first checked against those of scikit-learn to 1e-12: NDCG with and without ties, AP
without ties (the AP of scikit-learn counts a tie as one threshold instead of its expected value).

The last line is a JSON object: rows per second of each side in each world, and the ratio of our
rate to that of each other side.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, ndcg_score

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reranker.eval import metrics

Columns = tuple[np.ndarray, np.ndarray, np.ndarray]  # (n_rows,) user, label, score
# World -> users, candidates per user, positives per user.
WORLDS = {"1e6 x 12": (1_000_000, 12, 3), "2e4 x 100": (20_000, 100, 5)}
# Rows on which a slow side is timed.
MAX_ROWS = {"scikit-learn": 24_000, "pytrec_eval": 1_200_000, "ranx": 240_000}


def world(n_users: int, size: int, n_positives: int, *, seed: int = 0) -> Columns:
    """Return lists without ties, in which positives have somewhat higher scores."""
    rng = np.random.default_rng(seed)
    label = (
        rng.permuted(np.tile(np.arange(size) < n_positives, (n_users, 1)), axis=1)
        .ravel()
        .astype(np.int8)
    )
    score = (rng.normal(size=len(label)) + label).astype(np.float32)
    return np.repeat(np.arange(n_users), size), label, score


def ours(columns: Columns) -> np.ndarray:
    """Return (n_users, 4) values: AP, NDCG@10, MRR@10, recall@10."""
    ranking = metrics.rank(*columns)
    ap, ndcg = metrics.average_precision(ranking), metrics.ndcg(ranking, 10)
    return np.stack([ap, ndcg, metrics.mrr(ranking, 10), metrics.recall(ranking, 10)], axis=1)


def scikit_learn(columns: Columns) -> np.ndarray:
    """Return (n_users, 2) values, AP and NDCG@10, with the usual loop over users."""
    user, label, score = columns
    bounds = np.flatnonzero(np.diff(user)) + 1
    lists = zip(np.split(label, bounds), np.split(score, bounds), strict=True)
    return np.array(
        [(average_precision_score(t, s), ndcg_score(t[None], s[None], k=10)) for t, s in lists]
    )


def pytrec_eval(columns: Columns) -> np.ndarray:
    """Return (n_users, 4) values from nested dictionaries, the only input of the library."""
    import pytrec_eval as trec

    user, label, score = columns
    qrel, run = _nested(user, label.astype(int).tolist()), _nested(user, score.tolist())
    result = trec.RelevanceEvaluator(
        qrel, {"map", "ndcg_cut.10", "recip_rank", "recall.10"}
    ).evaluate(run)
    values = np.array(
        [[v[m] for m in ("map", "ndcg_cut_10", "recip_rank", "recall_10")] for v in result.values()]
    )
    values[:, 2] *= values[:, 2] >= 0.1  # it has no cut-off for MRR
    return values


def _nested(user: np.ndarray, values: list[float]) -> dict[str, dict[str, float]]:
    bounds = [0, *(np.flatnonzero(np.diff(user)) + 1).tolist(), len(user)]
    # All users share the candidates' ids.
    books = [str(i) for i in range(int(np.diff(bounds).max()))]
    return {
        str(i): dict(zip(books, values[a:b], strict=False))
        for i, (a, b) in enumerate(pairwise(bounds))
    }


def ranx(columns: Columns) -> np.ndarray:
    """Return (n_users, 4) values from data frames, the fastest constructor for columns.

    `measure` compiles it in an untimed first call.
    """
    from ranx import Qrels, Run, evaluate

    user, label, score = columns
    size = int(np.bincount(user).max())
    books = np.arange(size).astype(str).astype(object)
    ids = {"q_id": user.astype(str).astype(object), "doc_id": np.resize(books, len(user))}
    # The library rejects the strings of pandas 3.
    ids = {name: pd.Series(values, dtype=object) for name, values in ids.items()}
    qrels = Qrels.from_df(pd.DataFrame(ids | {"score": label.astype(np.int64)}))
    run = Run.from_df(pd.DataFrame(ids | {"score": score.astype(np.float64)}))
    names = ["map", "ndcg@10", "mrr@10", "recall@10"]
    by_user = evaluate(qrels, run, names, return_mean=False)
    return np.stack([by_user[name] for name in names], axis=1)


def head(columns: Columns, n_rows: int, size: int) -> Columns:
    """Return the rows of the first users, at most n_rows."""
    n = n_rows // size * size
    return columns[0][:n], columns[1][:n], columns[2][:n]


def check() -> None:
    """Raise AssertionError if a value differs from that of scikit-learn."""
    for tied in (False, True):
        for size, n_positives in ((12, 3), (100, 5)):
            user, label, score = world(300, size, n_positives, seed=1)
            if tied:
                score = np.round(score)
            theirs, mine = scikit_learn((user, label, score)), ours((user, label, score))
            np.testing.assert_allclose(mine[:, 1], theirs[:, 1], rtol=0, atol=1e-12)
            if not tied:
                np.testing.assert_allclose(mine[:, 0], theirs[:, 0], rtol=0, atol=1e-12)


SIDES: dict[str, Callable[[Columns], np.ndarray]] = {
    "ours": ours,
    "scikit-learn": scikit_learn,
    "pytrec_eval": pytrec_eval,
    "ranx": ranx,
}


def measure(name: str, columns: Columns, size: int, repeats: int) -> dict[str, float]:
    """Return the rows, median seconds and rows per second of one side.

    Its means must equal ours to within 1e-6; ranx sums in float32.
    """
    mine = head(columns, MAX_ROWS.get(name, len(columns[0])), size)
    SIDES[name](head(columns, 100 * size, size))  # imports and compilation are not timed
    walls = []
    for _ in range(repeats):
        begin = time.perf_counter()
        values = SIDES[name](mine)
        walls.append(time.perf_counter() - begin)
    np.testing.assert_allclose(
        values.mean(axis=0), ours(mine).mean(axis=0)[: values.shape[1]], rtol=0, atol=1e-6
    )
    wall = statistics.median(walls)
    return {"rows": len(mine[0]), "wall_s": wall, "rows_per_s": len(mine[0]) / wall}


def main() -> None:
    """Check, measure, print a table and then one line of JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--users-fraction", type=float, default=1.0, help="share of each world's users"
    )
    args = parser.parse_args()
    check()
    out: dict[str, dict[str, float]] = {}
    heads = (
        f"{'world':10} {'side':13} {'rows timed':>11} {'seconds':>9} {'rows/s':>12} {'ours is':>9}"
    )
    print(heads, flush=True)
    for title, (n_users, size, n_positives) in WORLDS.items():
        columns = world(max(1, int(n_users * args.users_fraction)), size, n_positives)
        mine, out[title] = 0.0, {}
        for name in SIDES:
            found = measure(name, columns, size, args.repeats)
            rate = found["rows_per_s"]
            mine = mine or rate  # ours comes first
            timed = f"{found['rows']:11} {found['wall_s']:9.3f} {rate:12.0f}"
            print(f"{title:10} {name:13} {timed} {mine / rate:8.1f}x", flush=True)
            out[title][f"{name} rows/s"] = round(rate)
            if name != "ours":
                out[title][f"{name} ratio"] = mine / rate
    print(json.dumps(out))


if __name__ == "__main__":
    main()
