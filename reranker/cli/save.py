"""`reranker save`: write a logged model as a folder that sentence-transformers loads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from reranker.cli import options


def add_parser(commands: Any) -> None:
    """Add the subcommand `save`."""
    parser = commands.add_parser(
        "save",
        parents=[options.tracking_uri()],
        help="write a model as a cross-encoder folder",
        description="Write a model as a folder that sentence_transformers.CrossEncoder loads.",
    )
    parser.add_argument(
        "model",
        metavar="MODEL",
        help="MLflow model URI, the folder of a bundle, or a folder of weights",
    )
    parser.add_argument("folder", metavar="FOLDER", type=Path, help="new folder")


def run(args: argparse.Namespace) -> int:
    """Write the folder and return exit code 0; the caller prints a RerankerError."""
    from reranker.serving.saving import save_model

    folder = save_model(args.model, args.folder, tracking_uri=args.tracking_uri)
    print(f"{folder}: saved. Load it with sentence_transformers.CrossEncoder({str(folder)!r}).")
    return 0
