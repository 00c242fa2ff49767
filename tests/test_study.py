"""Long studies of fine-tuning on the default demo and on planted taste (`make test-slow`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from reranker import pipeline
from tests.test_main import composed, defaults, result

pytestmark = [pytest.mark.long, pytest.mark.slow]

# Few ratings of many books give little co-occurrence, so that texts can add information.
STUDY = [
    "model=minilm_wheel",
    "data.world.n_books=4000",
    "data.world.n_users=400",
    "data.world.mean_ratings=14",
    "trainer.max_steps=null",
    "eval.n_candidates=30",
    "eval.max_users=100",
    "eval.max_dev_users=16",
    "eval.n_bootstrap=2000",
]
NON_TEXT = ("random", "popularity", "item_knn")


def study(place: Path, taste: float) -> dict[str, float]:
    pipeline.run(composed(place, *STUDY, f"data.world.taste={taste}"), place / "run")
    metrics: dict[str, float] = result(place / "run")["metrics"]
    return metrics


def lift_low(metrics: dict[str, float], over: str) -> float:
    """Return the lower end of the interval of the lift in mean NDCG@10 over another scorer."""
    return metrics[f"lift/over_{over}/ndcg_10_low"]


def test_the_default_demo_beats_random_and_the_untrained_model(tmp_path: Path) -> None:
    pipeline.run(defaults(tmp_path), tmp_path / "run")
    metrics = result(tmp_path / "run")["metrics"]
    assert {over: lift_low(metrics, over) > 0 for over in ("random", "untrained")} == {
        "random": True,
        "untrained": True,
    }


def test_fine_tuning_beats_every_non_text_baseline_where_taste_is_planted(tmp_path: Path) -> None:
    metrics = study(tmp_path, taste=1.0)
    assert {over: lift_low(metrics, over) > 0 for over in NON_TEXT} == dict.fromkeys(NON_TEXT, True)


def test_fine_tuning_does_not_beat_the_best_non_text_baseline_where_no_taste_is_planted(
    tmp_path: Path,
) -> None:
    """At taste 0 users choose by popularity and rate at random, so popularity ranks best.

    A model can still learn popularity from the pairs, and so beat random. Its mean must stay below
    the upper end of the popularity baseline's interval.
    """
    metrics = study(tmp_path, taste=0.0)
    best = max(NON_TEXT, key=lambda name: metrics[f"baseline/{name}/ndcg_10"])
    assert lift_low(metrics, best) <= 0
    assert metrics["test/ndcg_10"] <= metrics[f"baseline/{best}/ndcg_10_high"]
