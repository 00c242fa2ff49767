"""Parse the command line of `reranker` and run the subcommand."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from reranker.cli import compare, data, export, rerank, run, save, ui
from reranker.errors import RerankerError

COMMANDS = {
    "run": run.run,
    "ui": ui.run,
    "rerank": rerank.run,
    "compare": compare.run,
    "export": export.run,
    "save": save.run,
    "data": data.run,
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
        description="Train rerankers, rerank books for users, compare runs, save or export "
        "models, and manage data.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run.add_parser(commands)
    ui.add_parser(commands)
    rerank.add_parser(commands)
    compare.add_parser(commands)
    export.add_parser(commands)
    save.add_parser(commands)
    data.add_parser(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
