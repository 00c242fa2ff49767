"""Run the stages in one MLflow run: tables, lists, pairs, training, evaluation and reports."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.cache import Cache
from reranker.config import Config, ModelConfig
from reranker.pipeline import inputs
from reranker.pipeline.inputs import Inputs
from reranker.pipeline.outputs import Outputs
from reranker.trainer.history import History

if TYPE_CHECKING:
    from reranker.eval import Baselines, Evaluation
    from reranker.model import Encoder, Weights
    from reranker.sampling import GivenPairs, Pairs
    from reranker.serving import Registered
    from reranker.tracking import RunLog
    from reranker.trainer import Teacher
    from reranker.trainer.distillation import PairsFile


AS_IT_IS = (
    "no stage trains model={}, so it is evaluated as it is: the scorer named fine-tuned has the "
    "weights of the checkpoint"
)


@dataclass(frozen=True)
class Start:
    """The model that a run starts from.

    Attributes:
        model: The model's configuration; a registered model has its own folder and settings.
        registered: The same configuration if the model is registered, else None.
        weights: Its checked files.
        device: Where it trains and scores, as torch names it.
        teacher: How the teacher is loaded, if it is a model.
    """

    model: ModelConfig
    registered: ModelConfig | None
    weights: Weights
    device: str
    teacher: ModelConfig | None


@dataclass
class Outcome:
    """What training and evaluation gave; the fields of a stage that did not run are empty."""

    history: History = field(default_factory=History)
    bundle: Path | None = None
    evaluation: Evaluation | None = None
    registered: Registered | None = None


def run(cfg: Config, run_dir: Path) -> float:
    """Run the stages `cfg.stages`; return the best mean NDCG@10 on the dev lists.

    Without training it is the value of the model as it is, and NaN if no model is scored.

    Raises:
        DataError: The input of a stage is neither in the cache nor given as files.
    """
    from reranker import reports, tracking

    outputs = Outputs(cfg)
    with tracking.start(cfg, run_dir) as log:
        cache = Cache(cfg.cache_dir, inputs.required(cfg, log.result["overrides"]))
        start = _load_start(cfg, log) if {"train", "evaluate"} & set(cfg.stages) else None
        if start is not None:
            cfg = dataclasses.replace(cfg, model=start.model)
        found = inputs.load(cfg, log, cache)
        log.cfg = cfg = found.cfg
        outputs.add_inputs(found)
        outcome = Outcome()
        if start is not None:
            outcome = Scoring(start, found, log=log, cache=cache, outputs=outputs).run()
        elif found.pairs is not None:
            write_pairs_report(log, found.pairs)
        outputs.add_reports(log)
    outputs.add("result.json", run_dir / "result.json")
    if outcome.evaluation is not None:
        reports.print_summary(outcome.evaluation, outcome.registered, cfg)
    return outcome.history.best_dev


def _load_start(cfg: Config, log: RunLog) -> Start:
    """Find the model and the teacher of a run, and check their files."""
    from reranker import model, serving

    own = serving.start_model(cfg.model)
    weights = log.stage("weights", model.resolve, own)
    teacher = None
    if "train" in cfg.stages:
        teacher = serving.find_teacher(cfg.trainer.teacher, max_length=own.max_length)
    return Start(
        model=own,
        registered=own if cfg.model.source == "registered" else None,
        weights=weights,
        device=model.device(cfg.trainer.device),
        teacher=teacher,
    )


class Scoring:
    """The stages `train` and `evaluate`."""

    def __init__(
        self, start: Start, found: Inputs, *, log: RunLog, cache: Cache, outputs: Outputs
    ) -> None:
        self.start, self.cfg, self.log, self.cache = start, found.cfg, log, cache
        self.outputs, self.pairs, self.audit = outputs, found.pairs, found.audit
        self.corpus, self.dev, self.test = found.sets()

    def run(self) -> Outcome:
        """Train the model, evaluate it, or both."""
        from reranker import eval, model, serving

        log, cfg, start = self.log, self.cfg, self.start
        log.warn(serving.data_warnings(start.teacher, self.corpus.tables, role="teacher"))
        log.warn(serving.data_warnings(start.registered, self.corpus.tables, role="model"))
        if "train" not in cfg.stages and start.registered is None:
            log.warn([AS_IT_IS.format(cfg.model.name)])
        baselines = eval.Baselines.on_pairs(
            self.corpus, self.pairs, cfg.eval, cache=self.cache, device=start.device
        )
        scored = self._add_teacher_scores(baselines) if "train" in cfg.stages else None
        for lists in (self.dev, self.test) if "evaluate" in cfg.stages else ():
            lists.scores.update(log.stage(f"baselines/{lists.split}", baselines.score, lists))
        encoder = log.stage("model", model.load, cfg.model, start.weights, device=start.device)
        log.encoder(encoder, start.weights)
        out = Outcome()
        if scored is not None:
            self._report_pairs(encoder)
            self._train(encoder, scored, out)
        if "evaluate" in cfg.stages:
            self._evaluate(encoder, out)
        if out.bundle is not None:
            out.registered = log.stage(
                "register", serving.register, log, out.bundle, out.history, self.dev
            )
        self._report(out)
        return out

    def _add_teacher_scores(self, baselines: Baselines) -> PairsFile:
        """Return the training pairs, with the scores of the teacher if there is one."""
        pairs = self.pairs
        assert pairs is not None  # the stage train loads them
        teacher = _find_teacher(self.cfg, self.start, baselines)
        return (
            self.log.stage("teacher", teacher.add_scores, pairs, self.cache) if teacher else pairs
        )

    def _report_pairs(self, encoder: Encoder) -> None:
        """Write the data report of generated pairs, or the report of a given pairs file."""
        from reranker import reports, sampling

        if isinstance(self.pairs, sampling.Pairs):
            write = partial(reports.write_data_report, audit_counts=self.audit, encoder=encoder)
            self.log.stage("data_report", write, self.log, self.corpus, self.pairs)
        elif self.pairs is not None:
            write_pairs_report(self.log, self.pairs)

    def _train(self, encoder: Encoder, pairs: PairsFile, out: Outcome) -> None:
        """Fine-tune the encoder, and save it as a bundle."""
        from reranker import serving, trainer

        cfg, log = self.cfg, self.log
        if "evaluate" in cfg.stages:
            score = partial(encoder.score, progress="scoring")
            key = {"files": self.start.weights.digest(), "cfg": cfg.model}
            self.test.scores["untrained"] = log.stage(
                "untrained", self.test.score_once, score, key, self.cache
            )
        digest = self.dev.headline_digest
        fit = partial(trainer.fit, cfg=cfg.trainer, model=cfg.model, dev_lists=digest)
        on_log = log.training_metrics
        score_dev = self.dev.evaluator(encoder.score, cfg.model.activation)
        out.history = log.stage("train", fit, encoder, pairs.path, score_dev, on_log=on_log)
        log.history(out.history)
        out.bundle = serving.save_bundle(log, encoder, self.corpus)
        self.outputs.add("model", out.bundle / "weights")

    def _evaluate(self, encoder: Encoder, out: Outcome) -> None:
        """Score the dev and test lists, and compute the metrics."""
        from reranker import eval

        log, cfg, dev, test = self.log, self.cfg, self.dev, self.test
        score = partial(encoder.score, progress="scoring")
        for lists in (dev, test):
            lists.scores["fine_tuned"] = log.stage(f"score/{lists.split}", lists.score, score)
        if out.bundle is None:
            value = eval.mean_ndcg_10(dev.lists, dev.scores["fine_tuned"], cfg.eval.list_kinds[0])
            out.history = History(best_dev=value)
            log.metrics({"dev/ndcg_10": value})
        fusions = log.stage("fuse", eval.add_fused_scores, dev, test)
        activation = cfg.model.activation
        out.evaluation = log.stage("evaluate", eval.evaluate, test, encoder, activation)
        log.results(fusions, out.evaluation, test)

    def _report(self, out: Outcome) -> None:
        from reranker import reports

        if out.evaluation is not None:
            write = reports.write_run_report
            self.log.stage("reports", write, self.log, out.evaluation, out.history, test=self.test)


def write_pairs_report(log: RunLog, pairs: Pairs | GivenPairs) -> None:
    """Describe a pairs file on the page `pairs_report.html`."""
    from reranker import reports

    log.stage("pairs_report", reports.write_pairs_report, log, pairs.path)


def _find_teacher(cfg: Config, start: Start, baselines: Baselines) -> Teacher | None:
    """Return the teacher of the training pairs: a model, a baseline, or none."""
    from reranker import trainer

    if start.teacher is not None:
        return trainer.ModelTeacher(start.teacher, start.device)
    if cfg.trainer.teacher is not None:
        return trainer.BaselineTeacher(partial(baselines.score_pairs, cfg.trainer.teacher))
    return None
