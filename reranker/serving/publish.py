"""Save the model of a run as a bundle and register the bundle in MLflow."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from reranker.serving.bundle import write_bundle
from reranker.serving.registry import Registered, register_bundle

if TYPE_CHECKING:
    from reranker.data import Corpus
    from reranker.model import Encoder
    from reranker.tracking import RunLog
    from reranker.trainer import History


def save_bundle(log: RunLog, encoder: Encoder, corpus: Corpus) -> Path:
    """Write the encoder and all that serving needs into the run's folder; return the bundle's path.

    The path is in `result.json` until `register` has logged the bundle to MLflow, so that a run
    which fails in between does not lose its model.
    """
    cfg, folder = log.cfg, log.run_dir / f"bundle-{log.run_id[:8]}"
    match = corpus.contexts.match
    write_bundle(folder, encoder, corpus.tables, cfg.data, cfg.model, match=match)
    log.result["paths"]["bundle"] = str(folder)
    return folder


def register(log: RunLog, bundle: Path, history: History, *, dev_lists: str) -> Registered:
    """Log a bundle to MLflow as the run's model, register it and delete the local folder.

    Args:
        log: The log of the active run; its `result` gets the URI of the model in place of the path.
        bundle: A folder that `save_bundle` wrote.
        history: The training history; versions are compared by its best dev NDCG@10.
        dev_lists: Digest of the dev lists on which that value was measured.

    Raises:
        ModelError: As `register_bundle`.
    """
    cfg, best_dev = log.cfg.tracking, history.best_dev
    registered = register_bundle(bundle, cfg, dev_ndcg_10=best_dev, dev_lists=dev_lists)
    log.result["paths"].pop("bundle", None)
    shutil.rmtree(bundle)
    log.result["model"] = {
        "uri": registered.uri,
        "alias_moved": registered.alias_moved,
        "reason": registered.reason,
    }
    return registered
