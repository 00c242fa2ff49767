"""`reranker compare`: finished runs against the first of them, user by user."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any, store: argparse.ArgumentParser) -> None:
    """Add `compare` to the subparsers of `reranker`; `store` has the option --tracking-uri."""
    compare = commands.add_parser(
        "compare", parents=[store], help="finished runs against the first of them, user by user"
    )
    compare.add_argument(
        "runs", nargs="+", metavar="RUN", help="run ids, or their beginnings; the first: reference"
    )
    compare.add_argument(
        "--metric", default="ndcg_10", help="a column of per_user.parquet (default: %(default)s)"
    )
    compare.add_argument(
        "--kind", help="of the lists (default: the headline kind of the first run)"
    )
    compare.add_argument(
        "--scorer", default="fine_tuned", help="of each run (default: %(default)s)"
    )
    compare.add_argument(
        "--html", metavar="FILE", type=Path, help="also write the comparison as a page"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command that was parsed; 0. A RerankerError is for the caller to print."""
    from reranker.reports.comparison import page, runs, summary
    from reranker.reports.comparison.compare import compare
    from reranker.tracking import store

    client = store.open_existing(args.tracking_uri or store.default_uri())
    found = runs.find(client, args.runs)
    loaded = [runs.load(client, run, metric=args.metric, scorer=args.scorer) for run in found]
    kind = args.kind or loaded[0].headline
    made = compare(loaded, [kind], metric=args.metric, scorer=args.scorer)
    summary.print_comparison(made)
    if args.html is not None:
        page.write(made, args.html)
        print(f"page: {args.html}")
    return 0
