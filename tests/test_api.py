"""The public names: composing, running and what a run returns."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

import reranker
from reranker import api, config
from reranker.errors import ConfigError, ModelError

SMALL = [
    *("model=tiny", "trainer.device=cpu", "trainer.precision=fp32", "trainer.max_steps=2"),
    *("data.world.n_books=160", "data.world.n_users=120", "data.world.mean_ratings=12"),
    *("eval.n_candidates=20", "eval.max_users=6", "eval.max_dev_users=4", "eval.n_bootstrap=100"),
    *("eval.baselines=[random]", "trainer.n_evaluations=1"),
]


def test_the_public_names_are_found() -> None:
    for name in set(reranker.__all__) - {"__version__"}:
        assert getattr(reranker, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'Rerankr'"):
        reranker.Rerankr  # noqa: B018


def test_compose_without_overrides_is_the_demo() -> None:
    assert reranker.compose() == config.compose([])


@pytest.mark.parametrize("spelling", ["experiments", "experiment", "+experiment", "++experiment"])
def test_an_experiment_has_several_spellings(spelling: str) -> None:
    args = [f"{spelling}=distil", "trainer.teacher=x"]
    assert config.canonical(args) == ["experiments=distil", "trainer.teacher=x"]
    assert reranker.compose(args).model.layers == 3


def test_a_changed_configuration_is_checked_before_the_run(tmp_path: Path) -> None:
    cfg = reranker.compose(SMALL)
    cfg.trainer.epochs = -1.0
    with pytest.raises(ConfigError, match=r"trainer\.epochs=-1\.0 is impossible"):
        reranker.run(cfg, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_new_folder_is_in_the_outputs() -> None:
    first, second = api._new_folder(), api._new_folder()
    assert first != second
    assert first.parent.parent == config.project_root() / "outputs"


@pytest.mark.slow
def test_run_returns_what_the_run_has_stored(tmp_path: Path) -> None:
    own = [f"tracking.uri=sqlite:///{tmp_path}/mlruns/mlflow.db", f"cache_dir={tmp_path}/cache"]
    result = reranker.run(reranker.compose([*SMALL, *own]), tmp_path / "run")
    stored = json.loads((tmp_path / "run/result.json").read_text())
    assert result.metrics == stored["metrics"]
    assert result.dev_ndcg_10 == stored["metrics"]["dev/best_ndcg_10"]
    assert (result.run_id, result.run_dir) == (stored["run_id"], tmp_path / "run")
    request = "Likes: Emma", ["Title: Emma", "Title: Persuasion"]
    by_name = reranker.Reranker.load(result.model_uri, tracking_uri=result.tracking_uri)
    by_folder = reranker.Reranker.from_folder(result.bundle)
    assert by_name.rerank(*request) == by_folder.rerank(*request)
    without = dataclasses.replace(result, model_uri=None)
    with pytest.raises(ModelError, match="logged no model"):
        without.bundle  # noqa: B018
