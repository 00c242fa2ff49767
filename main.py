"""Run the pipeline: raw book tables in, a fine-tuned and evaluated cross-encoder in MLflow out.

python main.py                                              the demo data, on any machine
python main.py data=bookdb data.root=FOLDER                 real tables
torchrun --nproc_per_node=2 main.py                         training in two processes
python main.py -m model=minilm,bge sampling.neg_ratio=3,5   a sweep (needs the model hub)
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from reranker import config
from reranker.cache import Cache
from reranker.config import Config, ModelConfig
from reranker.errors import RerankerError

if TYPE_CHECKING:
    from reranker.eval import Baselines
    from reranker.trainer import Teacher


def run(cfg: Config, run_dir: Path) -> float:
    """Run the pipeline once; return the best mean NDCG@10 on the dev lists."""
    from reranker import data, eval, model, reports, sampling, serving, tracking, trainer

    cache = Cache(cfg.cache_dir)
    with tracking.start(cfg, run_dir) as log:
        weights = log.stage("weights", model.resolve, cfg.model)
        device = model.device(cfg.trainer.device)
        found = serving.find_teacher(cfg.trainer.teacher, max_length=cfg.model.max_length)

        corpus = log.stage("tables", data.load, cfg.data, cache, ease_books=cfg.eval.ease_books)
        log.warn(serving.teacher_warnings(found, corpus.tables))
        dev, test = log.stage("lists", eval.build_sets, corpus, cfg.eval, cache)
        log.candidate_lists(dev, test)
        pairs = log.stage("pairs", sampling.build_pairs, corpus, cfg.sampling, cfg.engine, cache)
        audit = log.stage("audit", sampling.audit, corpus, pairs, dev.rows, test.rows)
        log.counts("audit", audit)

        baselines = eval.Baselines.on_pairs(corpus, pairs, cfg.eval, cache=cache, device=device)
        teacher = find_teacher(cfg.trainer.teacher, found, baselines, device=device)
        scored = log.stage("teacher", teacher.add_scores, pairs, cache) if teacher else pairs
        for lists in (dev, test):
            lists.scores.update(log.stage(f"baselines/{lists.split}", baselines.score, lists))

        encoder = log.stage("model", model.load, cfg.model, weights, device=device)
        log.encoder(encoder, weights)
        write = partial(reports.write_data_report, audit_counts=audit, encoder=encoder)
        log.stage("data_report", write, log, corpus, pairs)
        score = partial(encoder.score, progress="scoring")
        key = {"files": weights.digest(), "cfg": cfg.model}
        test.scores["untrained"] = log.stage("untrained", test.score_once, score, key, cache)
        fit = partial(trainer.fit, cfg=cfg.trainer, model=cfg.model, dev_lists=dev.headline_digest)
        on_log, score_dev = log.training_metrics, dev.evaluator(encoder.score)
        history = log.stage("train", fit, encoder, scored.path, score_dev, on_log=on_log)
        bundle = serving.save_bundle(log, encoder, corpus)

        for lists in (dev, test):
            lists.scores["fine_tuned"] = log.stage(f"score/{lists.split}", lists.score, score)
        fusions = log.stage("fuse", eval.add_fused_scores, dev, test)
        results = log.stage("evaluate", eval.evaluate, test, encoder, cfg.model.activation)
        log.results(history, fusions, results, test)
        version = log.stage("register", serving.register, log, bundle, history, dev)
        log.stage("reports", reports.write_run_report, log, results, history, test=test)
    reports.print_summary(results, version, cfg)
    return history.best_dev


def find_teacher(
    name: str | None, found: ModelConfig | None, baselines: Baselines, *, device: str
) -> Teacher | None:
    """Return the teacher of the training pairs: a model, a baseline, or none."""
    from reranker import trainer

    if found is not None:
        return trainer.ModelTeacher(found, device)
    if name is not None:
        return trainer.BaselineTeacher(partial(baselines.score_pairs, name))
    return None


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
