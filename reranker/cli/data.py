"""`reranker data`: list, copy and describe data sources."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reranker.cli import describe, options
from reranker.cli.printing import print_json, print_table
from reranker.config import CHOICES, StorageConfig

S3_ROOT = "s3://BUCKET/PREFIX"
CREDENTIALS = "Credentials come from the environment or the AWS credential chain."


def add_parser(commands: Any) -> None:
    """Add the subcommand `data` and its own subcommands."""
    about = "list, copy and describe data sources"
    parser = commands.add_parser("data", help=about, description=f"{about.capitalize()}.")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _add_list(actions)
    _add_pull(actions)
    _add_push(actions)
    describe.add_parser(actions)


def _add_list(actions: Any) -> None:
    parser = actions.add_parser(
        "list",
        parents=[_storage_options(), options.output_format()],
        help="list the files below a root",
        description=f"List the files below a root. {CREDENTIALS}",
    )
    parser.add_argument("root", metavar="ROOT", help=f"folder or {S3_ROOT}")


def _add_pull(actions: Any) -> None:
    parser = actions.add_parser(
        "pull",
        parents=[_storage_options()],
        help="download a root into a folder",
        description=f"Download the objects below a root into a folder. {CREDENTIALS}",
    )
    parser.add_argument("root", metavar="ROOT", help=S3_ROOT)
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="target folder")


def _add_push(actions: Any) -> None:
    parser = actions.add_parser(
        "push",
        parents=[_storage_options()],
        help="upload a folder or a file to a root",
        description=f"Upload a folder or a file to a root. {CREDENTIALS}",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="folder or file to upload")
    parser.add_argument("root", metavar="ROOT", help=S3_ROOT)


def _storage_options() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--endpoint-url", metavar="URL", help="URL of the store (default: AWS)")
    parent.add_argument("--region", help="region of the bucket; auto for Cloudflare R2")
    checksum = CHOICES["data.storage.checksum"]
    parent.add_argument(
        "--checksum",
        choices=checksum,
        default=checksum[0],
        help="when boto3 sends and checks checksums (default: %(default)s)",
    )
    return parent


def run(args: argparse.Namespace) -> int:
    """Run the action and return exit code 0; the caller prints a RerankerError."""
    actions: dict[str, Callable[[argparse.Namespace], None]] = {
        "list": _list,
        "pull": _pull,
        "push": _push,
        "describe": describe.run,
    }
    actions[args.action](args)
    return 0


def _storage(args: argparse.Namespace) -> StorageConfig:
    return StorageConfig(endpoint_url=args.endpoint_url, region=args.region, checksum=args.checksum)


def _list(args: argparse.Namespace) -> None:
    from reranker.data.storage import folders

    columns = ("name", "bytes", "modified", "sha256")
    objects = folders.list_objects(args.root, _storage(args))
    if args.format == "json":
        rows = [(o.name, o.size, o.modified.isoformat(), o.sha256) for o in objects]
        return print_json([dict(zip(columns, row, strict=True)) for row in rows])
    shown = (
        (o.name, f"{o.size:,}", f"{o.modified:%Y-%m-%d %H:%M}", (o.sha256 or "")[:16])
        for o in objects
    )
    print_table(args.root, columns, shown)


def _pull(args: argparse.Namespace) -> None:
    from rich.filesize import decimal

    from reranker.data.storage import folders

    done = folders.pull(args.root, args.folder, _storage(args))
    size, n_kept = decimal(done.n_bytes), len(done.kept)
    print(f"{args.folder}: {len(done.moved)} files downloaded ({size}), {n_kept} already there.")
    for proof, words in (("md5", "by MD5"), ("size", "only by size")):
        if names := [name for name, how in done.checked.items() if how == proof]:
            listed = ", ".join(map(repr, names))
            print(f"verified {words}, because the store has no SHA-256: {listed}")


def _push(args: argparse.Namespace) -> None:
    from rich.filesize import decimal

    from reranker.data.storage import folders

    done = folders.push(args.folder, args.root, _storage(args))
    size, n_kept = decimal(done.n_bytes), len(done.kept)
    print(f"{done.url}: {len(done.moved)} files uploaded ({size}), {n_kept} already there.")
