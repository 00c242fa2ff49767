"""Log a run to MLflow while it goes on, and to `result.json` when it closes."""

from __future__ import annotations

import json
import math
import os
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, runtime_checkable

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
    from mlflow import MlflowClient
    from mlflow.entities import Metric
    from pandas import DataFrame

    from reranker.eval import EvalSet, Evaluation
    from reranker.model import Encoder, Weights
    from reranker.trainer import History

RESULT = "result.json"
SPEEDS = ("pairs_per_s", "tokens_per_s", "padding_fraction", "gemm_peak_fraction")
HASHED = ("data", "sampling", "model", "trainer", "eval")  # config groups that decide the result

P = ParamSpec("P")
T = TypeVar("T")


@runtime_checkable
class Recorded(Protocol):
    """A result that `RunLog.stage` records: tables, pairs, candidate lists.

    Attributes:
        digest: SHA-256 of the content.
        counts: Rows in, out and dropped, by reason.
        hit: Whether it came from the cache.
    """

    @property
    def digest(self) -> str: ...

    @property
    def counts(self) -> Mapping[str, Any]: ...

    @property
    def hit(self) -> bool: ...


class RunLog:
    """Logs one run: to MLflow at once, and to `result.json` when it closes.

    Attributes:
        client: The client of the MLflow store.
        points: The buffer of metric points.
        run_id: The run's id in MLflow.
        run_dir: The folder of `result.json` and of the run's tables.
        result: The future content of `result.json`.
    """

    def __init__(
        self,
        client: MlflowClient,
        run_id: str,
        cfg: Config,
        *,
        run_dir: Path,
        environment: Mapping[str, Any],
    ) -> None:
        self.client = client
        self.points = MetricBuffer(client, run_id)
        self.run_id = run_id
        self.run_dir = run_dir
        self.cfg = cfg
        self.console = Console(soft_wrap=True, highlight=False, markup=False)
        self._warnings: list[str] = []
        self._encoder: Encoder | None = None
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
            **environment,
        }

    def log_config(self) -> None:
        """Log the config: selected keys as params, all of it as `config.yaml`, and its digest."""
        from mlflow.entities import Param

        chosen = [Param(key, value) for key, value in params(self.cfg).items()]
        self.client.log_batch(self.run_id, params=chosen)
        groups = asdict(self.cfg)
        self.hash("config", digest({name: getattr(self.cfg, name) for name in HASHED}))
        groups["tracking"]["uri"] = redact(groups["tracking"]["uri"])
        self.client.log_text(self.run_id, yaml.safe_dump(groups, sort_keys=False), "config.yaml")

    def stage(self, name: str, f: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `f`, time it, log what it made, and return its result.

        A `Recorded` result is logged under the stage's name. If the stage scored pairs with the
        encoder, its speed is logged as `score/<stage>/…` (see `encoder`).

        Example:
            >>> pairs = log.stage("pairs", sampling.build_pairs, corpus, cfg.sampling, ...)
        """
        with self.timed(name):
            result = f(*args, **kwargs)
            if isinstance(result, Recorded):
                self.record(name, result)
            self._log_speed(name)
        return result

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time a block; print the time and keep it in `seconds`, also if the block fails.

        A terminal shows the stage's name from its start. Progress bars and the final line then
        overwrite it.
        """
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

    def record(self, name: str, made: Recorded) -> None:
        """Log the digest, the counts and the cache hit of a result, and its file as a dataset."""
        self.hash(name, made.digest)
        self.counts(name, made.counts)
        self.result["cache_hits"][name] = bool(made.hit)
        path: Path | None = getattr(made, "path", None)
        if path is not None:
            self.result["paths"][name] = str(path)
            context = "training" if name == "pairs" else "source"
            self.dataset(path, name, context=context, digest=made.digest)

    def candidate_lists(self, *sets: EvalSet) -> None:
        """Log candidate lists: their record, their table, and the digest of each test list kind.

        Metrics of a list kind are comparable between runs where its digest agrees.
        """
        for one in sets:
            self.record(f"lists/{one.split}", one.lists)
            self.table(one.with_ids(), f"lists_{one.split}")
            for kind in one.rows["kind"].unique() if one.split == "test" else ():
                self.hash(f"lists/{one.split}/{kind}", one.digest_of_kind(kind))

    def hash(self, name: str, value: str) -> None:
        """Log a digest of what decides the result; runs are comparable where these agree."""
        self.result["hashes"][name] = value
        self.client.set_tag(self.run_id, f"hash.{name}", value)

    def counts(self, prefix: str, values: Mapping[str, Any]) -> None:
        """Keep counts as `prefix/name` in `result.json`; nested mappings give deeper names."""
        for name, value in values.items():
            if isinstance(value, Mapping):
                self.counts(f"{prefix}/{name}", value)
            else:
                self.result["counts"][f"{prefix}/{name}"] = int(value)

    def metrics(self, values: Mapping[str, float], step: int | None = None) -> None:
        """Log metrics; `result.json` keeps the last value of each.

        A value that is not finite is left out, with a warning that names it.
        """
        self.points.log(self._metrics(values, step))

    def _metrics(self, values: Mapping[str, float], step: int | None) -> list[Metric]:
        kept = self._finite((key, float(value), step or 0) for key, value in values.items())
        self.result["metrics"] |= {point.key: point.value for point in kept}
        return kept

    def _finite(self, points: Iterable[Point]) -> list[Metric]:
        """Return the finite points as MLflow metrics, and warn about the others."""
        from mlflow.entities import Metric

        given = list(points)
        kept = [p for p in given if math.isfinite(p[1])]
        skipped = list(dict.fromkeys(p[0] for p in given if not math.isfinite(p[1])))
        if skipped:
            known = self.result["skipped_metrics"]
            known += [key for key in skipped if key not in known]
            message = f"warning: not finite, so not logged: {', '.join(skipped)}"
            self.console.print(message, style="yellow")
        now = int(time.time() * 1000)
        return [Metric(key, value, now, step) for key, value, step in kept]

    def training_metrics(self, logs: Mapping[str, float], step: int) -> None:
        """Log the trainer's metrics at a step: `loss` as train/loss, `dev_ndcg_10` as dev/ndcg_10.

        While the store does not answer, they are buffered and the training goes on.
        """
        values = {trainer_key(key): value for key, value in logs.items()}
        self.points.log_or_buffer(self._metrics(values, step))

    def results(self, fusions: DataFrame, evaluation: Evaluation, test: EvalSet) -> None:
        """Log the fusions, the evaluation, and the score of every candidate."""
        self.table(fusions, "fusions")
        self.evaluation(evaluation)
        self.table(test.scores_with_ids(), "scores")

    def history(self, history: History) -> None:
        """Log the best dev NDCG@10, its step, and the speed of the training.

        The other metrics of that step are printed, the accuracy with that of the majority label.
        """
        best = {"dev/best_ndcg_10": history.best_dev, "dev/best_step": float(history.best_step)}
        speeds = {f"train/{name}": getattr(history, name) for name in SPEEDS}
        self.metrics({**best, "train/n_steps": float(history.n_steps), **speeds})
        of_best = [row for row in history.logs if row["step"] == history.best_step]
        for row in (row for row in of_best if "dev_accuracy" in row):
            self.console.print(
                f"dev lists at step {history.best_step}: NDCG@10 {row['dev_ndcg_10']:.3f}, "
                f"MAP {row['dev_map']:.3f}, AUC {row['dev_auc']:.3f}, "
                f"accuracy {row['dev_accuracy']:.3f} "
                f"(the majority label alone: {row['dev_majority_share']:.3f})"
            )

    def evaluation(self, evaluation: Evaluation) -> None:
        """Log an evaluation: metrics, curves, per-user values as a table and dataset, warnings."""
        headline = self.cfg.eval.list_kinds[0]
        self.metrics(evaluation_metrics(evaluation, headline))
        self.points.log(self._finite(curve_points(evaluation, headline)))
        path = self.table(evaluation.per_user, "per_user")
        self.dataset(path, "per_user", context="evaluation", digest=digest_file(path))
        first_stage = evaluation.first_stage.items()
        self.metrics({f"first_stage/{name}": value for name, value in first_stage})
        if len(evaluation.depth):
            self.table(evaluation.depth, "depth_curve")
        self.warn(evaluation.warnings)

    def encoder(self, encoder: Encoder, weights: Weights) -> None:
        """Log the weights that fine-tuning starts from, and measure the encoder from here on.

        Each later stage logs the encoder's scoring speed as `score/<stage>/…`.
        """
        self._encoder = encoder
        self.result["weights"] = {
            "source": weights.description,
            "sha256": weights.sha256,
            "new_head": encoder.new_head,
        }
        self.client.set_tag(self.run_id, "weights", weights.description)

    def _log_speed(self, stage: str) -> None:
        if self._encoder is None or not (work := self._encoder.take_work()).n_pairs:
            return
        peak = self._encoder.gemm_flops_per_s(bf16=self._encoder.scores_in_bf16)
        speeds = work.speeds(peak)
        self.metrics({f"score/{stage}/{name}": value for name, value in speeds.items()})

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Log a file, or the content of a folder, under `folder`."""
        log = self.client.log_artifacts if path.is_dir() else self.client.log_artifact
        log(self.run_id, str(path), folder)

    def table(self, frame: DataFrame, name: str) -> Path:
        """Write a frame to `<run_dir>/<name>.parquet`, log the file, and return its path."""
        path = self.run_dir / f"{name}.parquet"
        frame.to_parquet(path, index=False)
        self.artifact(path)
        return path

    def dataset(self, source: DataFrame | Path, name: str, *, context: str, digest: str) -> None:
        """Log an input of the run as an MLflow dataset. Call it in the thread that started the run.

        Args:
            source: A frame, whose schema is logged, or a file, whose location is logged.
            digest: SHA-256 of the content; MLflow keeps its first 36 digits.
        """
        import mlflow

        from reranker.tracking.datasets import dataset

        mlflow.log_input(dataset(source, name, digest), context=context)

    def warn(self, warnings: Sequence[str]) -> None:
        """Print warnings; the run's tag `warnings` holds all of them."""
        for warning in warnings:
            self.console.print(f"warning: {warning}", style="yellow")
        self._warnings += warnings
        if self._warnings:
            self.client.set_tag(self.run_id, "warnings", "; ".join(self._warnings))

    def close(self, status: str, error: BaseException | None = None) -> None:
        """Write and log `result.json`, the stages' seconds and a traceback; end the MLflow run."""
        import mlflow

        self.result["status"] = status
        if error is not None:
            self.result["error"] = {"type": type(error).__name__, "message": redact(str(error))}
            if bundle := self.result["paths"].get("bundle"):
                self.console.print(
                    f"the fine-tuned model of run {self.run_id} is saved in {bundle}; "
                    "load it with Reranker.from_folder"
                )
        path = self.run_dir / RESULT
        _write(path, json.dumps(self.result, indent=1, allow_nan=False) + "\n")
        if error is not None:
            trace = "".join(traceback.format_exception(error))
            self.client.log_text(self.run_id, redact(trace), "traceback.txt")
        seconds = self.result["seconds"].items()
        self.points.log(self._finite((f"time/{name}_s", value, 0) for name, value in seconds))
        self.artifact(path)
        mlflow.end_run(status)
        self.console.print(f"run {self.run_id} {status}, {path}")


def _write(path: Path, text: str) -> None:
    temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temp.write_text(text, encoding="utf-8")
    os.replace(temp, path)
