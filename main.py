"""The main job: raw book tables in, a fine-tuned and honestly evaluated cross-encoder out, kept in MLflow.

python main.py                                              the demo world, on any machine
python main.py data=bookdb data.root=FOLDER                 real tables
torchrun --nproc_per_node=2 main.py                         the same, trained by two processes
python main.py -m model=minilm,bge sampling.neg_ratio=3,5   a sweep: one parent run, one child per job (model hub)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
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
    from reranker.data.draws import FloatArray
    from reranker.sampling import Pairs
    from reranker.tracking import RunLog
    from reranker.trainer import Teacher


def run(cfg: Config, run_dir: Path) -> float:
    """One run, from raw tables to the registry. Returns the best checkpoint's mean NDCG@10 on the dev lists."""
    from reranker import data, eval, model, sampling, tracking, trainer
    from reranker.reports.run import summary
    from reranker.serving import teacher_lookup
    from reranker.tracking import timed_scorer

    cache = Cache(cfg.cache_dir)
    with tracking.start(cfg, run_dir) as log:
        with log.stage("weights"):
            weights = model.resolve(cfg.model)
            device = model.device(cfg.trainer.device)
            teacher = teacher_lookup.find_teacher(
                cfg.trainer.teacher, max_length=cfg.model.max_length
            )
        with log.stage("tables"):
            tables = data.load_tables(cfg.data, cache)
            contexts = data.build_contexts(tables, cfg.data)
            log.input("tables", tables)
            log.warn(teacher_lookup.teacher_warnings(teacher, tables))
        with log.stage("lists"):
            dev, test = (
                eval.build_lists(tables, cfg.eval, split, cache) for split in ("dev", "test")
            )
            log.lists(dev, tables)
            log.lists(test, tables)
        with log.stage("pairs"):
            corpus = data.Corpus(tables, contexts)
            pairs = sampling.build_pairs(corpus, cfg.sampling, cfg.engine, cache)
            log.input("pairs", pairs)
        with log.stage("audit"):
            checked = sampling.audit(corpus, pairs, dev.frame, test.frame)
            log.counts("audit", checked)
        embed = eval.memoised(partial(model.embed, progress="embedding"))
        ask = eval.Questions.about(pairs.codes, pairs.digest, tables, contexts, cfg.eval)
        tell = partial(eval.score_baselines, questions=ask, embed=embed, cache=cache)
        lessons = teach(
            cfg.trainer.teacher, teacher, pairs, tell=tell, cache=cache, log=log, device=device
        )
        with log.stage("baselines"):
            asked = [
                eval.Questions.of(tables, contexts, lists, cfg.eval, pairs.codes)
                for lists in (dev, test)
            ]
            dev_scores, scores = (
                eval.score_baselines(cfg.eval.baselines, q, embed, cache) for q in asked
            )
        with log.stage("model"):
            encoder = model.load(cfg.model, weights, device=device)
            log.weights(weights, new_head=encoder.new_head)
            score = timed_scorer.Metered(encoder, log)
        with log.stage("data_report"):
            log.data_report(tables, pairs, checked, encoder.count_tokens, encoder.max_tokens)
        with log.stage("untrained"):
            untrained = {"files": weights.digest(), "cfg": cfg.model}
            scores["untrained"] = eval.score_lists_once(
                score, tables, contexts, test, untrained, cache
            )
        with log.stage("train"):
            score_dev = eval.dev_scorer(encoder.score, tables, contexts, dev, cfg.eval)
            dev_lists = eval.digest_of_kind(dev, tables, cfg.eval.list_kinds[0])
            history = trainer.fit(
                encoder,
                lessons,
                score_dev,
                cfg=cfg.trainer,
                model=cfg.model,
                on_log=log.log_training_metrics,
                dev_lists=dev_lists,
            )
            log.keep(encoder, tables, contexts)
            log.history(history)
        with log.stage("after"):
            scores["fine_tuned"] = eval.score_lists(score, tables, contexts, test)
            dev_scores["fine_tuned"] = eval.score_lists(score, tables, contexts, dev)
            fusions = eval.choose_fusions(dev, dev_scores)
            scores["fused"] = eval.fuse_lists(test, scores, fusions)
            log.table(fusions, "fusions")
        with log.stage("checks"):
            checks = eval.check_contexts(score, asked[1], scores["fine_tuned"], cfg.eval)
            truncated = eval.truncated_rows(asked[1], encoder.count_tokens, encoder.max_tokens)
        with log.stage("evaluate"):
            evaluation = eval.evaluate(
                tables,
                test,
                scores,
                cfg.eval,
                checks=checks,
                truncated=truncated,
                activation=cfg.model.activation,
            )
            log.evaluation(evaluation)
            log.scores(test.frame, tables, scores)
        with log.stage("register"):
            registered = log.register(history, dev_lists)
        with log.stage("report"):
            log.run_report(evaluation, test.frame, scores, tables, contexts, history)
    summary.report(evaluation, registered, cfg)
    return history.best_dev


def teach(
    name: str | None,
    teacher: ModelConfig | None,
    pairs: Pairs,
    *,
    tell: Callable[[list[str]], dict[str, FloatArray]],
    cache: Cache,
    log: RunLog,
    device: str,
) -> Path:
    """The pairs, with the scores of the teacher of that name where there is one: a model, or a baseline, as told."""
    from reranker import trainer

    if name is None:
        return pairs.path
    with log.stage("teacher"):
        scorer: Teacher
        if teacher is not None:
            scorer = trainer.ModelTeacher(teacher, device)
        else:
            scorer = trainer.BaselineTeacher(lambda: tell([name])[name])
        taught = scorer.add_scores(pairs, cache)
        log.input("teacher", taught)
    return taught.path


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(cfg: DictConfig) -> float:
    """One job of Hydra: a run, or one child of a sweep, after whose error the other jobs go on."""
    from reranker import sweep

    try:
        return run(config.from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir))
    except RerankerError as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise sweep.failed(error) from error
        sys.exit(f"{type(error).__name__}: {error}")


def main() -> None:
    """Check the command line, run the job or the sweep, and print an error that a user can mend as one line.

    Of the processes that torchrun started the first runs the job, and the others its training alone.
    """
    from reranker import trainer

    try:
        trainer.run_worker() if trainer.is_worker() else start()
    except RerankerError as error:
        sys.exit(f"{type(error).__name__}: {error}")


def start() -> None:
    """Run the job or the sweep that the command line asks for."""
    from reranker.sweep import close_sweep

    config.register()
    try:
        config.check_overrides(sys.argv[1:])
        job()
    finally:
        close_sweep(
            "FAILED"
        )  # Hydra does not call on_multirun_end when a job fails; a closed sweep stays as it is


if __name__ == "__main__":
    main()
