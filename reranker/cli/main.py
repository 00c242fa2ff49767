"""The `reranker` command and its subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from reranker.cli import compare, data, export, rerank, ui
from reranker.errors import RerankerError

COMMANDS = {
    "ui": ui.run,
    "rerank": rerank.run,
    "compare": compare.run,
    "data": data.run,
    "export": export.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code: 0, or 2 after an error message on stderr."""
    args = _parser().parse_args(argv)
    try:
        return COMMANDS[args.command](args)
    except RerankerError as error:
        print(f"reranker: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="reranker",
        description="Rerank books for users, compare runs, export models, open the MLflow UI and manage data.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    store = argparse.ArgumentParser(add_help=False)
    store.add_argument(
        "--tracking-uri", metavar="URI", help="MLflow store (default: the project's own)"
    )
    ui.add_parser(commands, store)
    rerank.add_parser(commands, store)
    compare.add_parser(commands, store)
    export.add_parser(commands, store)
    data.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
