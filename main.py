"""Run the pipeline: raw book tables in, a fine-tuned and evaluated cross-encoder in MLflow out.

python main.py                                              the demo data, on any machine
python main.py data=bookdb data.root=FOLDER                 real tables
torchrun --nproc_per_node=2 main.py                         training in two processes
python main.py -m model=minilm,bge sampling.neg_ratio=3,5   a sweep (needs the model hub)
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from reranker import config
from reranker.errors import RerankerError
from reranker.pipeline import run


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(cfg: DictConfig) -> float:
    """Run one Hydra job: a single run, or one child of a sweep.

    If a child of a sweep fails, the other jobs still run.
    """
    from reranker import sweep

    try:
        return run(config.from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir))
    except RerankerError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise sweep.failed(error) from error
        sys.exit(f"{type(error).__name__}: {error}")


def main() -> None:
    """Run the command line; print an error that a user can fix as one line.

    Under torchrun, rank 0 runs the job and the other ranks only train.
    """
    from reranker import trainer

    try:
        trainer.run_worker() if trainer.is_worker() else start()
    except RerankerError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def start() -> None:
    """Run the job or the sweep of the command line."""
    from reranker.sweep import close_sweep

    config.register()
    try:
        config.check_overrides(sys.argv[1:])
        with config.new_names_in_errors():
            job()
    finally:
        # Hydra does not call on_multirun_end when a job fails. A closed sweep stays unchanged.
        close_sweep("FAILED")


if __name__ == "__main__":
    main()
