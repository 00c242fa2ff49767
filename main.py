"""The main job: raw book tables in, a fine-tuned and honestly evaluated cross-encoder out, kept in MLflow.

python main.py                                              the demo world, on any machine
python main.py data=bookdb data.root=FOLDER                 real tables
python main.py -m model=minilm,bge sampling.neg_ratio=3,5   a sweep: one parent run, one child per job
"""

from __future__ import annotations

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from reranker import config
from reranker.cache import Cache
from reranker.config import Config
from reranker.errors import RerankerError


def run(cfg: Config, run_dir: Path) -> float:
    """One run, from raw tables to the registry. Returns the fine-tuned model's mean NDCG@10 on the dev lists."""
    from reranker import data, eval, model, sampling, tracking, trainer

    cache = Cache(cfg.cache_dir)
    with tracking.start(cfg, run_dir) as log:
        with log.stage("tables"):
            tables = log.tables(data.load(cfg.data, cache))
            contexts = data.build_contexts(tables, cfg.data)
        with log.stage("lists"):
            dev = log.lists(eval.build_lists(tables, cfg.eval, "dev", cache))
            test = log.lists(eval.build_lists(tables, cfg.eval, "test", cache))
        with log.stage("pairs"):
            pairs = log.pairs(sampling.build_pairs(tables, contexts, cfg.sampling, cfg.engine, cache))
        with log.stage("audit"):
            log.counts("audit", sampling.audit(tables, contexts, pairs, dev.frame, test.frame))
        with log.stage("model"):
            encoder = model.load(cfg.model, device=cfg.trainer.device, batch_size=cfg.eval.batch_size)
        with log.stage("baselines"):
            scores = eval.score_baselines(
                cfg.eval.baselines, tables, contexts, test, embed=model.bi_encoder(cache), seed=cfg.eval.seed
            )
        with log.stage("before"):
            scores["before"] = eval.score_lists(encoder.score, tables, contexts, test)
        with log.stage("train"):
            score_dev = eval.dev_scorer(encoder.score, tables, contexts, dev, cfg.eval)
            history = log.history(trainer.fit(encoder, pairs.path, score_dev, cfg.trainer, log.trainer_log))
        with log.stage("after"):
            scores["fine_tuned"] = eval.score_lists(encoder.score, tables, contexts, test)
        with log.stage("report"):
            log.evaluation(eval.evaluate(tables, test, scores, cfg.eval), history)
        with log.stage("register"):
            log.register(encoder, tables, cfg, dev, history)
    return history.best_dev


@hydra.main(version_base="1.3", config_path="conf", config_name="config")
def job(cfg: DictConfig) -> float:
    """One job of Hydra: a run, or one child of a sweep."""
    return run(config.from_hydra(cfg), Path(HydraConfig.get().runtime.output_dir))


def main() -> None:
    """Check the command line, run the job or the sweep, and print an error that a user can mend as one line."""
    config.register()
    try:
        config.check_overrides(sys.argv[1:])
        job()
    except RerankerError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
