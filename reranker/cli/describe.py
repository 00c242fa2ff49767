"""`reranker data describe`: print the statistics of a source, or of any pairs file."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reranker.cli import options
from reranker.cli.printing import Row, print_json, print_table
from reranker.errors import ConfigError


def add_parser(actions: Any) -> None:
    """Add the action `describe`."""
    parser = actions.add_parser(
        "describe",
        parents=[options.output_format()],
        help="print statistics of a source or of a pairs file",
        description="Print the files, dropped rows, books and ratings of a source, or the rows, "
        "labels, users and texts of a pairs file. An argument with = is an override, any other is "
        "a path.",
    )
    parser.add_argument(
        "what",
        metavar="PATH|OVERRIDE",
        nargs="*",
        help="pairs: a parquet file, a folder of part files, or a glob; a source: an override as "
        "for main.py, for example data=bookdb data.root=FOLDER",
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="also write a page with plots")
    parser.add_argument(
        "--parts",
        metavar="N,N",
        type=options.number_list(int),
        help="positions of the part files to read, from 0 (default: all)",
    )


def run(args: argparse.Namespace) -> None:
    """Describe the source of the overrides, or the pairs of the paths."""
    overrides = [word for word in args.what if "=" in word]
    paths = [word for word in args.what if "=" not in word]
    if paths and overrides:
        raise ConfigError(
            f"{paths[0]!r} is a path and {overrides[0]!r} an override of the config; describe "
            "either a pairs file or a source."
        )
    if paths:
        return _describe_pairs(paths, args)
    if args.html or args.parts:
        option = "--html" if args.html else "--parts"
        raise ConfigError(f"{option} needs the path of a pairs file, not a source.")
    _describe_source(overrides, args)


def _describe_pairs(paths: list[str], args: argparse.Namespace) -> None:
    from reranker.reports.pairs import print_summary, summarise, write_page
    from reranker.sampling.pair_files import read_pairs

    summary = summarise(read_pairs(*paths, parts=args.parts))
    if args.html:
        write_page(args.html.expanduser(), summary)
    if args.format == "json":
        print_json(summary.to_json())
    else:
        print_summary(summary)
        if args.html:
            print(f"page: {args.html}")


def _describe_source(overrides: list[str], args: argparse.Namespace) -> None:
    from reranker import config
    from reranker.cache import Cache
    from reranker.data import load_tables
    from reranker.data.describe import describe
    from reranker.data.sources import fetch

    cfg = config.compose(overrides)
    cache = Cache(cfg.cache_dir)
    tables = load_tables(cfg.data, cache)
    source = fetch.fetch(cfg.data, cache)
    statistics = describe(tables, source.files, source.folder / "book_texts_reduced.parquet")
    if args.format == "json":
        print_json(statistics)
    else:
        _print_statistics(statistics)


def _print_statistics(statistics: dict[str, Any]) -> None:
    files = [
        (f["name"], f"{f['rows']:,}", len(f["columns"]), f"{f['bytes']:,}")
        for f in statistics["files"]
    ]
    print_table("files", ("name", "rows", "columns", "bytes"), files)
    print_table("funnel", ("step", "n"), _count_rows(statistics["funnel"]))
    print_table("users by split", ("split", "n"), _count_rows(statistics["users"]))
    _print_books(statistics["books"])
    _print_ratings(statistics["ratings"])
    positives = statistics["positives_per_user"]
    print_table("positives per user", tuple(positives), [tuple(positives.values())])
    print(f"timestamps: {_time_span(statistics['ratings']['timestamps'])}")
    print(f"tables: {statistics['digest']}")


def _print_books(books: dict[str, int]) -> None:
    n_books = books["n"]
    rows = [
        (f"with {name.replace('_', ' ')}", f"{n:,}", _percent(n, n_books))
        for name, n in books.items()
        if name != "n"
    ]
    print_table(f"{n_books:,} books", ("", "n", "share"), rows)


def _print_ratings(ratings: dict[str, Any]) -> None:
    n_ratings = ratings["n"]
    rows = [(value, f"{n:,}", _percent(n, n_ratings)) for value, n in ratings["by_value"].items()]
    print_table(f"{n_ratings:,} ratings", ("rating", "n", "share"), rows)


def _time_span(timestamps: dict[str, Any]) -> str:
    if not timestamps["n"]:
        return "none"
    first, last = timestamps["first"], timestamps["last"]
    return f"{timestamps['n']:,} ratings, from {first} to {last} UTC"


def _count_rows(counts: dict[str, int]) -> list[Row]:
    return [(name.replace("_", " "), f"{n:,}") for name, n in counts.items()]


def _percent(n: int, total: int) -> str:
    return f"{n / total:.1%}" if total else ""
