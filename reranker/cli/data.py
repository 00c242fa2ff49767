"""`reranker data`: what a root holds, folders to and from object storage, and a source in numbers."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from reranker.config import CHOICES, StorageConfig

JSON = ("table", "json")
Row = tuple[object, ...]


def add_parser(commands: Any) -> None:
    """Add `data` and its commands to the subparsers of `reranker`."""
    data = commands.add_parser("data", help="list, pull, push and describe sources of data")
    actions = data.add_subparsers(dest="action", required=True)
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument("--endpoint-url", metavar="URL", help="of the store; without: AWS")
    store.add_argument("--region", help="of the bucket; Cloudflare R2: auto")
    checksum = CHOICES["data.storage.checksum"]
    store.add_argument(
        "--checksum", choices=checksum, default=checksum[0], help="(default: %(default)s)"
    )
    shown = argparse.ArgumentParser(add_help=False)
    shown.add_argument("--format", choices=JSON, default=JSON[0])
    root = "s3://BUCKET/PREFIX; credentials come from the environment or the AWS chain"
    listing = actions.add_parser("list", parents=[store, shown], help="what is below a root")
    listing.add_argument("root", metavar="ROOT", help=f"a folder or {root}")
    pull = actions.add_parser("pull", parents=[store], help="fetch a root's objects into a folder")
    pull.add_argument("root", metavar="ROOT", help=root)
    pull.add_argument("folder", metavar="FOLDER", type=Path)
    push = actions.add_parser("push", parents=[store], help="send a folder or a file to a root")
    push.add_argument("folder", metavar="FOLDER", type=Path)
    push.add_argument("root", metavar="ROOT", help=root)
    describe = actions.add_parser("describe", parents=[shown], help="a source in numbers")
    describe.add_argument(
        "overrides", metavar="OVERRIDE", nargs="*", help="as main.py takes them: data=bookdb …"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command that was parsed; 0. A RerankerError is for the caller to print."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list,
        "pull": _pull,
        "push": _push,
        "describe": _describe,
    }
    actions[args.action](args)
    return 0


def _storage(args: argparse.Namespace) -> StorageConfig:
    return StorageConfig(endpoint_url=args.endpoint_url, region=args.region, checksum=args.checksum)


def _list(args: argparse.Namespace) -> None:
    from reranker.data.storage import folders

    objects = folders.list_objects(args.root, _storage(args))
    if args.format == "json":
        return _print_json(
            [
                {
                    "name": o.name,
                    "bytes": o.size,
                    "modified": o.modified.isoformat(),
                    "sha256": o.sha256,
                }
                for o in objects
            ]
        )
    rows = (
        (o.name, f"{o.size:,}", f"{o.modified:%Y-%m-%d %H:%M}", (o.sha256 or "")[:16])
        for o in objects
    )
    _print(args.root, ("name", "bytes", "modified", "sha256"), rows)


def _pull(args: argparse.Namespace) -> None:
    from rich.filesize import decimal

    from reranker.data.storage import folders

    done = folders.pull(args.root, args.folder, _storage(args))
    print(
        f"{args.folder}: {len(done.moved)} files fetched ({decimal(done.n_bytes)}), {len(done.kept)} were there."
    )
    for how, meaning in (("md5", "their MD5"), ("size", "nothing but their size")):
        if weak := [name for name, proof in done.checked.items() if proof == how]:
            names = ", ".join(map(repr, weak))
            print(f"proven by {meaning}, for the store has no SHA-256 of them: {names}")


def _push(args: argparse.Namespace) -> None:
    from rich.filesize import decimal

    from reranker.data.storage import folders

    done = folders.push(args.folder, args.root, _storage(args))
    print(
        f"{done.url}: {len(done.moved)} files sent ({decimal(done.n_bytes)}), {len(done.kept)} were there."
    )


def _describe(args: argparse.Namespace) -> None:
    from reranker import config
    from reranker.cache import Cache
    from reranker.data import load_tables
    from reranker.data.describe import describe
    from reranker.data.sources import fetch

    cfg = config.compose(args.overrides)
    cache = Cache(cfg.cache_dir)
    tables = load_tables(cfg.data, cache)
    source = fetch.fetch(cfg.data, cache)
    facts = describe(tables, source.files, source.folder / "book_texts_reduced.parquet")
    if args.format == "json":
        _print_json(facts)
    else:
        _print_facts(facts)


def _print_facts(facts: dict[str, Any]) -> None:
    files = [
        (f["name"], f"{f['rows']:,}", len(f["columns"]), f"{f['bytes']:,}") for f in facts["files"]
    ]
    _print("files", ("name", "rows", "columns", "bytes"), files)
    _print("funnel", ("step", "n"), _counts(facts["funnel"]))
    _print("users by fold", ("split", "n"), _counts(facts["users"]))
    books = dict(facts["books"])
    n_books = books.pop("n")
    shares = [
        (f"with {name.replace('_', ' ')}", f"{n:,}", _share(n, n_books))
        for name, n in books.items()
    ]
    _print(f"{n_books:,} books", ("", "n", "share"), shares)
    ratings = facts["ratings"]
    by_value = [
        (value, f"{n:,}", _share(n, ratings["n"])) for value, n in ratings["by_value"].items()
    ]
    _print(f"{ratings['n']:,} ratings", ("rating", "n", "share"), by_value)
    _print(
        "positives per user",
        tuple(facts["positives_per_user"]),
        [tuple(facts["positives_per_user"].values())],
    )
    timed = ratings["timestamps"]
    span = (
        f"{timed['n']:,} ratings, from {timed['first']} to {timed['last']} UTC"
        if timed["n"]
        else "none"
    )
    print(f"timestamps: {span}\ntables: {facts['digest']}")


def _counts(counts: dict[str, int]) -> list[Row]:
    return [(name.replace("_", " "), f"{n:,}") for name, n in counts.items()]


def _share(n: int, of: int) -> str:
    return f"{n / of:.1%}" if of else ""


def _print(title: str, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    """A table whose first column is text and whose others are numbers."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from reranker.terminal import visible

    table = Table(title=visible(title), title_justify="left", box=SIMPLE_HEAD)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*(visible(str(cell)) for cell in row))
    Console(markup=False, emoji=False, highlight=False).print(table)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))
