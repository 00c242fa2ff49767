"""Save the model of a run as a bundle and register the bundle in MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.serving.bundle import write_bundle
from reranker.serving.registry import Registered, register_bundle

if TYPE_CHECKING:
    from reranker.data import Corpus
    from reranker.eval import EvalSet
    from reranker.model import Encoder
    from reranker.tracking import RunLog
    from reranker.trainer import History


def save_bundle(log: RunLog, encoder: Encoder, corpus: Corpus) -> Path:
    """Write the encoder and all that serving needs into the run's folder; return the bundle's path.

    The path is in `result.json` until `register` has logged the bundle to MLflow, so that a run
    which fails in between does not lose its model.
    """
    folder = log.run_dir / f"bundle-{log.run_id[:8]}"
    write_bundle(folder, encoder, corpus, model_cfg=log.cfg.model)
    log.result["paths"]["bundle"] = str(folder)
    return folder


def register(log: RunLog, bundle: Path, history: History, dev: EvalSet) -> Registered:
    """Log a bundle to MLflow as the run's model, register it and delete the local folder.

    With `tracking.log_model=false` the folder stays, and MLflow gets neither model nor version.

    Args:
        log: The log of the active run; its `result` gets the URI of the model in place of the path.
        bundle: A folder that `save_bundle` wrote.
        history: The training history; versions are compared by its best dev NDCG@10.
        dev: The dev set on which that value was measured.

    Raises:
        ModelError: As `register_bundle`.
    """
    if log.cfg.tracking.log_model:
        registered = register_bundle(
            bundle,
            log.cfg.tracking,
            dev_ndcg_10=history.best_dev,
            dev_lists=dev.headline_digest,
        )
        log.result["paths"].pop("bundle", None)
        shutil.rmtree(bundle)
    else:
        registered = Registered(None, str(bundle), None, False, "tracking.log_model is false")
    log.result["model"] = {
        "uri": registered.uri,
        "alias_moved": registered.alias_moved,
        "reason": registered.reason,
    }
    return registered
