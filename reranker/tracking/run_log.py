"""The account of a run: what it was made of and what came out, in MLflow and in `result.json`."""

from __future__ import annotations

import json
import math
import os
import shutil
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from rich.console import Console

from reranker.cache import digest, digest_file
from reranker.config import Config
from reranker.redaction import redact
from reranker.tracking.metric_buffer import MetricBuffer
from reranker.tracking.metric_names import (
    Point,
    curve_points,
    evaluation_metrics,
    params,
    trainer_key,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure
    from mlflow import MlflowClient
    from mlflow.entities import Metric

    from reranker.data import Contexts, Tables
    from reranker.eval import CandidateLists, Evaluation
    from reranker.model import Encoder, Weights
    from reranker.reports.data.pair_texts import CountTokens
    from reranker.sampling import Pairs
    from reranker.serving.registry import Registered
    from reranker.trainer import DistilledPairs, History

RESULT = "result.json"
SPEEDS = ("pairs_per_s", "tokens_per_s", "padding_fraction", "gemm_peak_fraction")


class RunLog:
    """Writes one run: to MLflow at once, to `result.json` when it closes.

    Attributes:
        client: The store's client.
        points: The metric points on their way to it.
        run_id: The run's id in MLflow.
        run_dir: The folder of `result.json` and of the tables.
        running: The stage that runs, or ran last.
        result: What `result.json` will hold.
    """

    def __init__(
        self, client: MlflowClient, run_id: str, cfg: Config, run_dir: Path, facts: dict[str, Any]
    ) -> None:
        self.client = client
        self.points = MetricBuffer(client, run_id)
        self.run_id = run_id
        self.run_dir = run_dir
        self.running = ""
        self._warnings: list[str] = []
        self.cfg = cfg
        self.console = Console(soft_wrap=True, highlight=False, markup=False)
        self.result: dict[str, Any] = {
            "run_id": run_id,
            "status": "RUNNING",
            "error": None,
            "metrics": {},
            "skipped_metrics": [],
            "hashes": {},
            "counts": {},
            "seconds": {},
            "cache_hits": {},
            "paths": {},
            **facts,
        }

    def describe(self) -> None:
        """Log the config: chosen keys as params, the whole as `config.yaml`, its digest as the hash `config`."""
        from mlflow.entities import Param

        chosen = [Param(key, value) for key, value in params(self.cfg).items()]
        self.client.log_batch(self.run_id, params=chosen)
        groups = asdict(self.cfg)
        self.hash(
            "config",
            digest(
                {name: groups[name] for name in ("data", "sampling", "model", "trainer", "eval")}
            ),
        )
        groups["tracking"]["uri"] = redact(groups["tracking"]["uri"])
        self.client.log_text(self.run_id, yaml.safe_dump(groups, sort_keys=False), "config.yaml")

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage; a line says what it took, and `seconds` keeps it, also when the stage fails.

        A terminal shows the stage's name from its start, where bars and then that line write over it.
        """
        self.running = name
        if self.console.is_interactive:
            self.console.print(f"{name} …", end="\r")
        begin = time.perf_counter()
        ending = "failed after "
        try:
            yield
            ending = ""
        finally:
            self.result["seconds"][name] = seconds = time.perf_counter() - begin
            self.console.print(f"{name} … {ending}{seconds:.1f} s")

    def hash(self, name: str, value: str) -> None:
        """Keep the digest of something that decides the result; runs are comparable where these agree."""
        self.result["hashes"][name] = value
        self.client.set_tag(self.run_id, f"hash.{name}", value)

    def count(self, name: str, value: int) -> None:
        """Keep how many rows, users or books went into or came out of a stage."""
        self.result["counts"][name] = int(value)

    def counts(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Keep the counts of a stage as `prefix/name`; mappings inside give deeper names."""
        for name, value in values.items():
            if isinstance(value, Mapping):
                self.counts(f"{prefix}/{name}", value)
            else:
                self.count(f"{prefix}/{name}", value)

    def cache_hit(self, name: str, hit: bool) -> None:
        """Keep whether a stage's result was in the cache already."""
        self.result["cache_hits"][name] = bool(hit)

    def metric(self, key: str, value: float, step: int | None = None) -> None:
        """Log one metric; see `metrics`."""
        self.metrics({key: value}, step)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; the last value of each goes to `result.json`. One that is not finite is left out and named."""
        self.points.log(self._metrics(values, step))

    def _metrics(self, values: Mapping[str, float], step: int | None) -> list[Metric]:
        kept = self._finite((key, float(value), step or 0) for key, value in values.items())
        self.result["metrics"] |= {point.key: point.value for point in kept}
        return kept

    def _finite(self, points: Iterable[Point]) -> list[Metric]:
        """The points as MLflow takes them; those that are not finite are left out and named."""
        from mlflow.entities import Metric

        given = list(points)
        kept = [p for p in given if math.isfinite(p[1])]
        skipped = list(dict.fromkeys(p[0] for p in given if not math.isfinite(p[1])))
        if skipped:
            self.result["skipped_metrics"] += [
                key for key in skipped if key not in self.result["skipped_metrics"]
            ]
            self.console.print(
                f"warning: not finite, so not logged: {', '.join(skipped)}", style="yellow"
            )
        now = int(time.time() * 1000)
        return [Metric(key, value, now, step) for key, value, step in kept]

    def log_training_metrics(self, logs: Mapping[str, float], step: int) -> None:
        """Log what the trainer reports at a step: `loss` as train/loss, `dev_ndcg_10` as dev/ndcg_10, and so on.

        While the store does not answer they wait for a later call, and the training goes on.
        """
        self.points.log_or_buffer(
            self._metrics({trainer_key(key): value for key, value in logs.items()}, step)
        )

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or a folder's contents, under `folder`."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.run_id, str(path), folder)

    def table(self, frame: pd.DataFrame, name: str) -> Path:
        """Write a frame to `<run_dir>/<name>.parquet`, log it, and say where it is."""
        path = self.run_dir / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        self.artifact(path)
        return path

    def figure(self, figure: Figure, name: str) -> None:
        """Log a figure as `plots/<name>.png`."""
        self.client.log_figure(self.run_id, figure, f"plots/{name}.png")

    def dataset(self, source: pd.DataFrame | Path, name: str, *, context: str, digest: str) -> None:
        """Log an input by name and content digest (its first 36 digits), with a frame's schema or a file's place.

        To be called in the thread that started the run.
        """
        import mlflow

        from reranker.tracking.datasets import dataset

        mlflow.log_input(dataset(source, name, digest), context=context)

    def evaluation(self, evaluation: Evaluation) -> None:
        """Log an evaluation: metrics, curves, plots, per-user values as `per_user.parquet` and as a dataset.

        What is wrong with the model's scores is printed, and kept as the tag `warnings`.
        """
        from reranker.reports.run import scorer_plots

        headline = self.cfg.eval.list_kinds[0]
        self.metrics(evaluation_metrics(evaluation, headline))
        self.points.log(self._finite(curve_points(evaluation, headline)))
        path = self.table(evaluation.per_user, "per_user")
        self.dataset(path, "per_user", context="evaluation", digest=digest_file(path))
        self.metrics(
            {f"first_stage/{name}": value for name, value in evaluation.first_stage.items()}
        )
        if len(evaluation.depth):
            self.table(evaluation.depth, "depth_curve")
        for name, figure in scorer_plots.evaluation_figures(evaluation).items():
            self.figure(figure, name)
        self.warn(evaluation.warnings)

    def warn(self, warnings: Sequence[str]) -> None:
        """Print warnings, and keep all of the run's as its tag `warnings`."""
        for warning in warnings:
            self.console.print(f"warning: {warning}", style="yellow")
        self._warnings += warnings
        if self._warnings:
            self.client.set_tag(self.run_id, "warnings", "; ".join(self._warnings))

    def history(self, history: History) -> None:
        """Log the training curve, and which step's weights were kept."""
        from reranker.reports.run import scorer_plots

        self.figure(scorer_plots.training(history.logs), "training")
        facts = {"dev/best_ndcg_10": history.best_dev, "dev/best_step": float(history.best_step)}
        speeds = {f"train/{name}": getattr(history, name) for name in SPEEDS}
        self.metrics(facts | {"train/n_steps": float(history.n_steps)} | speeds)

    def input(self, name: str, made: Tables | CandidateLists | Pairs | DistilledPairs) -> None:
        """Keep what a data stage made: its hash, its counts, and whether the cache had it."""
        content = made.hash if hasattr(made, "hash") else made.digest
        self.hash(name, content)
        self.counts(name, made.counts)
        self.cache_hit(name, made.hit)
        path = made.path if hasattr(made, "path") else None
        if path is not None:
            self.result["paths"][name] = str(path)
            self.dataset(
                path, name, context="training" if name == "pairs" else "source", digest=content
            )

    def lists(self, lists: CandidateLists, tables: Tables) -> None:
        """Keep frozen lists: input and table, and of test lists each kind's hash.

        Figures of a kind are comparable between runs where its hash agrees.
        """
        from reranker.eval import digest_of_kind, with_ids

        self.input(f"lists/{lists.split}", lists)
        self.table(with_ids(lists, tables), f"lists_{lists.split}")
        for kind in lists.frame["kind"].unique() if lists.split == "test" else ():
            self.hash(f"lists/{lists.split}/{kind}", digest_of_kind(lists, tables, kind))

    def data_report(
        self,
        tables: Tables,
        pairs: Pairs,
        audit_counts: Mapping[str, int],
        tokens: CountTokens,
        max_tokens: int,
    ) -> None:
        """Log the data report: its numbers as `data/…`, its page as `data_report.html`, which the run's folder has too.

        Args:
            audit_counts: Rows that the leakage audit checked, by check.
            tokens, max_tokens: `count_tokens` and `max_tokens` of the encoder.
        """
        from reranker.reports.data.page import page
        from reranker.reports.data.summary import metrics, summarise

        summary = summarise(tables, pairs, audit_counts, tokens, max_tokens=max_tokens)
        self.metrics(metrics(summary))
        self._page("data_report", page(summary))

    def run_report(
        self,
        evaluation: Evaluation,
        rows: pd.DataFrame,
        scores: Mapping[str, Any],
        tables: Tables,
        contexts: Contexts,
        history: History,
    ) -> None:
        """Log the run's report, `run_report.html`, which the run's folder has too.

        Args:
            rows: The test lists' frame, to which each of `scores` is aligned.
        """
        from reranker.reports.run.page import RunSummary, examples, page

        shown = examples(evaluation, rows, scores, tables, contexts)
        self._page(
            "run_report", page(RunSummary(self.cfg, evaluation, shown, history, self.result))
        )

    def _page(self, name: str, html: str) -> None:
        path = self.run_dir / f"{name}.html"
        _write(path, html)
        self.artifact(path)
        self.result["paths"][name] = str(path)

    def weights(self, weights: Weights, *, new_head: bool) -> None:
        """Keep which weights fine-tuning started from."""
        self.result["weights"] = {
            "source": weights.description,
            "sha256": weights.sha256,
            "new_head": new_head,
        }
        self.client.set_tag(self.run_id, "weights", weights.description)

    def scores(self, rows: pd.DataFrame, tables: Tables, scores: Mapping[str, Any]) -> None:
        """Log every candidate as `scores.parquet`: kind, label, user_id, book_id, and a column of scores a scorer."""
        user_id = tables.users["user_id"].to_numpy()[rows["user"]]
        book_id = tables.books["book_id"].to_numpy()[rows["book"]]
        frame = rows.drop(columns=["user", "book"]).assign(
            user_id=user_id, book_id=book_id, **scores
        )
        self.table(frame, "scores")

    def keep(self, encoder: Encoder, tables: Tables, contexts: Contexts) -> None:
        """Write the encoder with its context builder into the run's folder, where it stays unless it is registered."""
        from reranker.data import Corpus
        from reranker.serving.bundle import write_bundle

        folder = self.run_dir / f"bundle-{self.run_id[:8]}"
        write_bundle(folder, encoder, Corpus(tables, contexts), model_cfg=self.cfg.model)
        self.result["paths"]["bundle"] = str(folder)

    def register(self, history: History, dev_lists: str) -> Registered:
        """Log what `keep` wrote as a model, register it, and keep where it is instead."""
        from reranker.serving.registry import register

        bundle = Path(self.result["paths"]["bundle"])
        made = register(
            bundle, self.cfg.tracking, dev_ndcg_10=history.best_dev, dev_lists=dev_lists
        )
        del self.result["paths"]["bundle"]
        shutil.rmtree(bundle)
        self.result["model"] = {
            "uri": made.uri,
            "alias_moved": made.alias_moved,
            "reason": made.reason,
        }
        return made

    def close(self, status: str, error: BaseException | None = None) -> None:
        """Write `result.json`, log it with the stages' seconds and the error's traceback, and end the run."""
        import mlflow

        self.result["status"] = status
        if error is not None:
            self.result["error"] = {"type": type(error).__name__, "message": redact(str(error))}
            if kept := self.result["paths"].get("bundle"):
                self.console.print(
                    f"the fine-tuned model of run {self.run_id} is kept in {kept}; Reranker.from_folder loads it"
                )
        path = self.run_dir / RESULT
        _write(path, json.dumps(self.result, indent=1, allow_nan=False) + "\n")
        if error is not None:
            trace = "".join(traceback.format_exception(error))
            self.client.log_text(self.run_id, redact(trace), "traceback.txt")
        self.points.log(
            self._finite(
                (f"time/{name}_s", value, 0) for name, value in self.result["seconds"].items()
            )
        )
        self.artifact(path)
        mlflow.end_run(status)
        self.console.print(f"run {self.run_id} {status}, {path}")


def _write(path: Path, text: str) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temp.write_text(text, encoding="utf-8")
    os.replace(temp, path)
