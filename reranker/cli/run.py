"""Run the pipeline or a sweep: `reranker run` and main.py."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from reranker import config
from reranker.errors import RerankerError


def add_parser(commands: Any) -> None:
    """Add the subcommand `run`; all that follows it belongs to Hydra, options such as -m too."""
    parser = commands.add_parser(
        "run", prefix_chars="\0", add_help=False, help="run the pipeline or a sweep"
    )
    parser.add_argument("args", nargs="*", metavar="OVERRIDE")


def run(args: argparse.Namespace) -> int:
    """Run the command line that follows `reranker run`."""
    main(args.args)
    return 0


@hydra.main(version_base="1.3", config_path=str(config.CONFIGS / "conf"), config_name="config")
def job(cfg: DictConfig) -> float:
    """Run one Hydra job: a single run, or one child of a sweep.

    If a child of a sweep fails, the other jobs still run.
    """
    from reranker import pipeline, sweep

    try:
        return pipeline.run(config.from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir))
    except RerankerError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise sweep.failed(error) from error
        sys.exit(f"{type(error).__name__}: {error}")


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line; print an error that a user can fix as one line.

    Under torchrun, rank 0 runs the job and the other ranks only train.

    Args:
        args: Overrides and options of Hydra; None: those of this process.
    """
    from reranker import trainer

    try:
        if trainer.is_worker():
            trainer.run_worker()
        else:
            start(config.canonical(sys.argv[1:] if args is None else args))
    except RerankerError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def start(args: list[str]) -> None:
    """Run the job or the sweep, or do what another option of Hydra asks for, such as --help."""
    config.register()
    sys.argv[1:] = args  # hydra.main has no parameter for them
    options = get_args_parser().parse_args(args)
    if options.shell_completion:  # its argument, query=bash, is no override
        job()
        return
    from reranker.sweep import close_sweep

    config.check_overrides(options.overrides)
    try:
        with config.new_names_in_errors():
            job()
    finally:
        # Hydra does not call on_multirun_end when a job fails. A closed sweep stays unchanged.
        close_sweep("FAILED")
