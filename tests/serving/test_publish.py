"""The model of a run is saved as a bundle and then registered."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from reranker.config import Config
from reranker.data import Contexts, Corpus, Tables
from reranker.model import Encoder
from reranker.serving import register, save_bundle
from reranker.serving.registry import Registered
from reranker.serving.reranker import Reranker
from reranker.tracking import start
from reranker.trainer import History
from tests.helpers.tracked import find_runs, read_result

pytestmark = pytest.mark.slow


def test_the_result_has_the_models_uri_in_place_of_the_bundles_path(
    run_cfg: Config, tmp_path: Path, tiny: Encoder, tables: Tables, contexts: Contexts
) -> None:
    run_cfg.tracking.registered_model = "published"
    dev: Any = SimpleNamespace(headline_digest="digest of the dev lists")
    with start(run_cfg, tmp_path) as log:
        bundle = save_bundle(log, tiny, Corpus(tables, contexts))
        assert log.result["paths"]["bundle"] == str(bundle)
        local = Reranker.from_folder(bundle).rerank("Likes: It.", [1, 2, 3])
        registered = register(log, bundle, History(logs=[], best_dev=0.5), dev)
    assert not bundle.exists()
    result = read_result(tmp_path)
    assert "bundle" not in result["paths"]
    assert result["model"] == {
        "uri": "models:/published/1",
        "alias_moved": True,
        "reason": "no version was champion before",
    }
    assert Reranker.load(registered.uri).rerank("Likes: It.", [1, 2, 3]) == local
    client, [run] = find_runs(run_cfg)
    tags = client.get_model_version("published", "1").tags
    assert tags["run_id"] == run.info.run_id
    assert (tags["dev_ndcg_10"], tags["dev_lists"]) == ("0.5", "digest of the dev lists")


@pytest.mark.parametrize("registered_model", [None, "never-registered"])
def test_without_log_model_the_bundle_stays_and_mlflow_gets_neither_model_nor_version(
    run_cfg: Config,
    tmp_path: Path,
    tiny: Encoder,
    tables: Tables,
    contexts: Contexts,
    registered_model: str | None,
) -> None:
    run_cfg.tracking.log_model, run_cfg.tracking.registered_model = False, registered_model
    dev: Any = SimpleNamespace(headline_digest="digest of the dev lists")
    with start(run_cfg, tmp_path) as log:
        bundle = save_bundle(log, tiny, Corpus(tables, contexts))
        made = register(log, bundle, History(logs=[], best_dev=0.5), dev)
    assert made == Registered(None, str(bundle), None, False, "tracking.log_model is false")
    result = read_result(tmp_path)
    assert result["paths"]["bundle"] == result["model"]["uri"] == str(bundle)
    assert len(Reranker.from_folder(bundle).rerank("Likes: It.", [1, 2])) == 2
    client, [run] = find_runs(run_cfg)
    assert not run.outputs.model_outputs
    assert not [m for m in client.search_registered_models() if m.name == "never-registered"]


def test_a_bundle_that_was_not_registered_stays_in_the_runs_folder(
    run_cfg: Config, tmp_path: Path, tiny: Encoder, tables: Tables, contexts: Contexts
) -> None:
    with pytest.raises(ConnectionError), start(run_cfg, tmp_path) as log:
        bundle = save_bundle(log, tiny, Corpus(tables, contexts))
        raise ConnectionError("the store is unavailable")
    assert read_result(tmp_path)["paths"]["bundle"] == str(bundle)
    assert len(Reranker.from_folder(bundle).rerank("Likes: It.", [1, 2])) == 2
