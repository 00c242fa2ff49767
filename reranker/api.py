"""Run the pipeline from Python."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from reranker import config
from reranker.config import Config
from reranker.errors import ModelError
from reranker.tracking.run_log import RESULT


@dataclass(frozen=True)
class RunResult:
    """A finished run.

    Attributes:
        run_id: The run's id in MLflow.
        run_dir: The folder of its reports, its tables and `result.json`.
        metrics: The last value of every metric, for example `test/ndcg_10` and `lift/ndcg_10`.
        dev_ndcg_10: The best mean NDCG@10 on the dev lists.
        model_uri: The URI of its model for `Reranker.load`; None if it logged no model.
        tracking_uri: The URI of the MLflow store.
    """

    run_id: str
    run_dir: Path
    metrics: dict[str, float]
    dev_ndcg_10: float
    model_uri: str | None
    tracking_uri: str

    @property
    def bundle(self) -> Path:
        """The folder of the run's model for `Reranker.from_folder`.

        It is the logged artifact. A store that is not on this machine is asked for a copy.

        Raises:
            ModelError: The run logged no model, or it was deleted from the store.
        """
        from reranker.serving import registry

        if self.model_uri is None:
            raise ModelError(f"run {self.run_id} logged no model; {self.run_dir} has its files.")
        return registry.download(self.model_uri, self.tracking_uri)


def run(cfg: Config, run_dir: str | Path | None = None) -> RunResult:
    """Run the pipeline once, as `main.py` does, and return its result.

    Args:
        cfg: A configuration of `compose`. Its keys may be changed before the run.
        run_dir: The folder of the results; None: a new folder in `outputs/`.

    Raises:
        RerankerError: An error that a user can fix, such as a ConfigError or DataError.

    Example:
        cfg = compose(["model=tiny", "trainer.max_steps=10"])
        run(cfg).metrics["test/ndcg_10"]
    """
    from reranker import pipeline

    checked = config.finish(cfg)
    folder = Path(run_dir) if run_dir is not None else _new_folder()
    dev_ndcg_10 = pipeline.run(checked, folder)
    result = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    return RunResult(
        run_id=result["run_id"],
        run_dir=folder,
        metrics=result["metrics"],
        dev_ndcg_10=dev_ndcg_10,
        model_uri=result.get("model", {}).get("uri"),
        tracking_uri=checked.tracking.uri,
    )


def _new_folder() -> Path:
    """Return the folder of a run that starts now, named as conf/config.yaml names it."""
    return config.project_root() / "outputs" / f"{datetime.now():%Y-%m-%d/%H-%M-%S-%f}"
