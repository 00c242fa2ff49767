"""`reranker export`: a registered model, or a run's, as int8 or bf16 beside its weights."""

from __future__ import annotations

import argparse
from typing import Any

from reranker.config import VARIANTS

N_CALIBRATION = 128  # pairs; static ranges are settled by 64 to 256


def add_parser(commands: Any, store: argparse.ArgumentParser) -> None:
    """Add `export` to the subparsers of `reranker`."""
    export = commands.add_parser(
        "export", parents=[store], help="write a faster variant of a model beside its weights"
    )
    export.add_argument("model", metavar="RUN_OR_MODEL", help="a run's id, or an MLflow model URI")
    add_variant(export, required=True)
    export.add_argument(
        "--calibration-pairs",
        type=int,
        default=N_CALIBRATION,
        metavar="N",
        help="training pairs (default: %(default)s)",
    )
    export.add_argument(
        "--force", action="store_true", help="write it even where its ranking is not good enough"
    )


def add_variant(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add `--variant` to a parser."""
    parser.add_argument(
        "--variant", choices=VARIANTS, required=required, help="an exported variant of the model"
    )


def run(args: argparse.Namespace) -> int:
    """Export the variant and print how it ranks; 0. A RerankerError is for the caller to print."""
    from reranker.serving.variants import export_model

    manifest = export_model(
        args.model,
        args.variant,
        tracking_uri=args.tracking_uri,
        n_calibration=args.calibration_pairs,
        force=args.force,
    )
    figures = manifest.agreement
    print(
        f"{args.model}: {args.variant} written, computed in {manifest.computed_in}. Over {figures['n_lists']:.0f} dev "
        f"lists NDCG@10 {figures['ndcg_10']:.4f} (fp32 {figures['ndcg_10_fp32']:.4f}), Kendall "
        f"{figures['kendall']:.3f} (5 % of lists below {figures['kendall_low']:.3f})."
    )
    return 0
