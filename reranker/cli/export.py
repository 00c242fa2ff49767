"""`reranker export`: export a logged model as int8 or bf16."""

from __future__ import annotations

import argparse
from typing import Any

from reranker.cli import options

N_CALIBRATION = 128  # the activation ranges no longer change above 64 to 256 pairs


def add_parser(commands: Any) -> None:
    """Add the subcommand `export`."""
    parser = commands.add_parser(
        "export",
        parents=[options.tracking_uri()],
        help="export a model as int8 or bf16",
        description="Export a model as int8 or bf16 for faster scoring on the CPU. The variant is "
        "stored with the model if it ranks the dev lists as well as fp32 does.",
    )
    parser.add_argument("model", metavar="RUN_OR_MODEL", help="run id or MLflow model URI")
    options.add_variant(parser, "variant to export", required=True)
    parser.add_argument(
        "--calibration-pairs",
        type=options.integer(1),
        default=N_CALIBRATION,
        metavar="N",
        help="training pairs that calibrate int8 (default: %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="store the variant even if it ranks worse than fp32"
    )


def run(args: argparse.Namespace) -> int:
    """Export the variant, print how it ranks and return exit code 0.

    The caller prints a RerankerError.
    """
    from reranker.serving.variants import export_logged_model

    manifest = export_logged_model(
        args.model,
        args.variant,
        tracking_uri=args.tracking_uri,
        n_calibration=args.calibration_pairs,
        force=args.force,
    )
    values = manifest.agreement
    print(
        f"{args.model}: {args.variant} stored, measured in {manifest.computed_in}. On "
        f"{values['n_lists']:.0f} dev lists NDCG@10 is {values['ndcg_10']:.4f} (fp32 "
        f"{values['ndcg_10_fp32']:.4f}) and Kendall's tau is {values['kendall']:.3f} (below "
        f"{values['kendall_low']:.3f} on 5 % of the lists)."
    )
    return 0
