"""`reranker compare`: compare finished runs user by user."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reranker.cli import options


def add_parser(commands: Any) -> None:
    """Add the subcommand `compare`."""
    parser = commands.add_parser(
        "compare",
        parents=[options.tracking_uri()],
        help="compare finished runs user by user",
        description="Compare finished runs with the first of them, user by user.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run id or the beginning of one; the first run is the reference",
    )
    parser.add_argument(
        "--metric", default="ndcg_10", help="column of per_user.parquet (default: %(default)s)"
    )
    parser.add_argument(
        "--kind", help="kind of candidate list (default: the headline kind of the first run)"
    )
    parser.add_argument(
        "--scorer",
        default="fine_tuned",
        help="scorer of each run that is compared (default: %(default)s)",
    )
    parser.add_argument(
        "--html", metavar="FILE", type=Path, help="also write the comparison as an HTML page"
    )


def run(args: argparse.Namespace) -> int:
    """Print the comparison and return exit code 0; the caller prints a RerankerError."""
    from reranker.reports.comparison import page, runs, summary
    from reranker.reports.comparison.compare import compare
    from reranker.tracking import store

    client = store.open_existing(args.tracking_uri or store.default_uri())
    found = runs.find(client, args.runs)
    loaded = [runs.load(client, run, metric=args.metric, scorer=args.scorer) for run in found]
    kind = args.kind or loaded[0].headline
    comparison = compare(loaded, [kind], metric=args.metric, scorer=args.scorer)
    summary.print_comparison(comparison)
    if args.html is not None:
        page.write(comparison, args.html)
        print(f"page: {args.html}")
    return 0
