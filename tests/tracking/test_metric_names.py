"""Names of params and metrics."""

from __future__ import annotations

import re
from typing import Any

import pytest

from reranker.config import MixConfig, ModelConfig, WorldConfig
from reranker.tracking.metric_names import curve_points, evaluation_metrics, params, trainer_key
from tests.helpers.tracked import SECRET, config, evaluation, full_evaluation


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("loss", "train/loss"),
        ("learning_rate", "train/learning_rate"),
        ("grad_norm", "train/grad_norm"),
        ("dev_ndcg_10", "dev/ndcg_10"),
    ],
)
def test_the_trainers_keys_are_prefixed(key: str, expected: str) -> None:
    assert trainer_key(key) == expected


def test_params_are_flat_text_and_name_the_weights() -> None:
    cfg = config()
    cfg.model = ModelConfig(name="bge", source="hub", hub_id="BAAI/bge", revision="2cfc")
    found = params(cfg)
    assert found["model.source"] == "hub BAAI/bge@2cfc"
    assert found["sampling.neg_ratio"] == "3"
    assert found["data.max_users"] == "null"
    assert found["data.world.taste"] == "1.0"
    assert found["eval.cutoffs"] == "3,5,10"
    assert not [key for key in found if key.startswith(("tracking.", "cache_dir", "engine."))]


@pytest.mark.parametrize(
    ("group", "changed"),
    [
        ("model", {"attention": "shared_context"}),
        ("model", {"layers": 3}),
        ("model", {"dropout": 0.0}),
        ("model", {"revision": "2cfd"}),
        ("data", {"book_template": "{title}"}),
        ("data", {"genres": {"war": ["war"]}}),
        ("data", {"world": WorldConfig(mean_ratings=9)}),
        ("trainer", {"teacher_weight": 1.0}),
        ("sampling", {"mix": MixConfig(uniform=1.0)}),
        ("eval", {"retriever": "ease"}),
    ],
)
def test_every_key_that_affects_results_is_a_param(group: str, changed: dict[str, Any]) -> None:
    cfg = config()
    cfg.model = ModelConfig(name="bge", source="hub", hub_id="BAAI/bge", revision="2cfc")
    before = params(cfg)
    for key, value in changed.items():
        setattr(getattr(cfg, group), key, value)
    assert [key for key, value in params(cfg).items() if before[key] != value]


WEIGHTS = ("path", "uri", "hub_id", "revision", "package", "sha256")


def test_keys_without_a_param_say_where_inputs_are_and_how_they_are_read() -> None:
    groups = ("data", "model", "sampling", "trainer", "eval")
    keys = {f"{group}.{name}" for group in groups for name in vars(getattr(config(), group))}
    inputs = {
        "data.root",
        "data.storage",
        "data.batch_rows",
        "data.world",
        "sampling.regenerate",
        "sampling.part_pairs",
        "sampling.refined_file",
    }
    weights = {f"model.{name}" for name in WEIGHTS}
    found = {key for key in params(config()) if not key.startswith("data.world.")}
    assert keys - found == inputs | weights | {"trainer.checkpoint_dir"}
    assert found - keys == {"seed"}


def test_a_long_param_is_cut_and_a_secret_one_is_masked() -> None:
    cfg = config()
    path = f"https://me:{SECRET}@host/weights"
    cfg.model = ModelConfig(name="x" * 7000, source="path", path=path)
    found = params(cfg)
    assert len(found["model.name"]) == 6000
    assert found["model.source"] == "path https://***@host/weights"


def test_metric_keys_contain_the_scorer_and_every_kind_except_the_headline() -> None:
    found = evaluation_metrics(evaluation(), "uniform")
    assert found["test/ndcg_10"] == pytest.approx(0.6)
    assert found["test/popularity/ndcg_10"] == pytest.approx(0.5)
    assert found["baseline/bm25/ndcg_10_high"] == pytest.approx(0.5)
    assert found["baseline/random/popularity/ndcg_10"] == pytest.approx(0.1)
    assert {k: round(v, 9) for k, v in found.items() if k.startswith("lift")} == {
        "lift/ndcg_10": 0.2,
        "lift/ndcg_10_low": 0.15,
        "lift/ndcg_10_high": 0.25,
        "lift/over_bm25/ndcg_10": 0.2,
        "lift/over_bm25/ndcg_10_low": 0.15,
        "lift/over_bm25/ndcg_10_high": 0.25,
        "lift/over_random/ndcg_10": 0.4,
        "lift/over_random/ndcg_10_low": 0.35,
        "lift/over_random/ndcg_10_high": 0.45,
        "lift/popularity/ndcg_10": 0.2,
        "lift/popularity/ndcg_10_low": 0.15,
        "lift/popularity/ndcg_10_high": 0.25,
        "lift/popularity/over_bm25/ndcg_10": 0.2,
        "lift/popularity/over_bm25/ndcg_10_low": 0.15,
        "lift/popularity/over_bm25/ndcg_10_high": 0.25,
        "lift/popularity/over_random/ndcg_10": 0.4,
        "lift/popularity/over_random/ndcg_10_low": 0.35,
        "lift/popularity/over_random/ndcg_10_high": 0.45,
    }
    assert evaluation_metrics(evaluation(), "popularity")["test/ndcg_10"] == pytest.approx(0.5)


def test_every_metric_name_is_valid_in_mlflow() -> None:
    names = {
        *evaluation_metrics(full_evaluation(), "uniform"),
        *(key for key, _, _ in curve_points(full_evaluation(), "uniform")),
        *(trainer_key(key) for key in ("loss", "dev_ndcg_10")),
    }
    assert [name for name in names if not re.fullmatch(r"[\w.\- :/]+", name)] == []


def test_checks_chance_and_unordered_slices_are_metrics() -> None:
    found = evaluation_metrics(full_evaluation(), "uniform")
    prefixes = ("check", "chance", "slice/cold")
    assert {k: v for k, v in found.items() if k.startswith(prefixes)} == pytest.approx(
        {
            "check/shuffled_contexts/ndcg_10": 0.5,
            "check/shuffled_contexts/gap": 0.1,
            "check/shuffled_contexts/gap_low": 0.05,
            "check/shuffled_contexts/gap_high": 0.15,
            "chance/ndcg_10": 0.2,
            "chance/map": 0.1,
            "slice/cold_books/yes/ndcg_10": 0.6,
            "slice/cold_books/yes/ndcg_10_low": 0.5,
            "slice/cold_books/yes/ndcg_10_high": 0.7,
            "slice/cold_books/yes/ndcg_10_chance": 0.2,
            "slice/cold_books/yes/n_users": 3,
        }
    )
    assert found["slice/baseline/bm25/cold_books/yes/ndcg_10"] == 0.4
    assert (found["lift/ndcg_10"], found["lift/fused/ndcg_10"]) == (0.2, -0.2)
    assert found["lift/fused/popularity/over_random/ndcg_10_high"] == -0.1
    others = evaluation_metrics(full_evaluation(), "popularity")
    assert "check/uniform/shuffled_contexts/gap" in others


def test_ordered_slices_and_depths_are_points_and_a_bin_of_one_user_has_no_interval() -> None:
    points = [p for p in curve_points(full_evaluation(), "uniform") if not p[0].endswith("_by_k")]
    own = {(key, step): value for key, value, step in points}
    by_length = {key: value for key, value in own.items() if key[0].startswith("slice/history")}
    assert by_length == pytest.approx(
        {
            ("slice/history_length/ndcg_10", 2): 0.6,
            ("slice/history_length/ndcg_10_low", 2): 0.5,
            ("slice/history_length/ndcg_10_high", 2): 0.7,
            ("slice/history_length/ndcg_10_chance", 2): 0.2,
            ("slice/history_length/n_users", 2): 3,
            ("slice/history_length/ndcg_10", 4): 0.6,
            ("slice/history_length/ndcg_10_chance", 4): 0.2,
            ("slice/history_length/n_users", 4): 1,
        }
    )
    assert own["slice/baseline/bm25/history_length/ndcg_10", 4] == 0.4
    assert own["test/ndcg_10_by_depth", 10] == 0.3
    assert own["fused/ndcg_10_by_depth", 100] == 0.4


def test_curves_are_points_whose_step_is_k() -> None:
    points = curve_points(evaluation(), "uniform")
    assert [p[2] for p in points if p[0] == "baseline/bm25/ndcg_by_k"] == list(range(1, 21))
    assert ("test/ndcg_by_k", pytest.approx(0.3), 10) in points
    assert ("test/map_by_k", pytest.approx(0.15), 10) in points
    assert ("baseline/bm25/popularity/map_by_k", pytest.approx(0.15), 20) in points
    assert len(points) == 2 * 2 * 3 * 20
