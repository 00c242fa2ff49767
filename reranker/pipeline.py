"""Run the pipeline once: tables, lists, pairs, training, evaluation and reports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.cache import Cache
from reranker.config import Config, ModelConfig

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
        on_log = log.training_metrics
        score_dev = dev.evaluator(encoder.score, cfg.model.activation)
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
