"""Long studies: fine-tuning finds the taste that is planted, and nothing where none is. Run by `make test-slow`."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

import main

from .test_main import composed

pytestmark = [pytest.mark.long, pytest.mark.slow]

# Few ratings on many books: co-occurrence is thin, so that text has something to add.
STUDY = [
    "model=minilm_wheel",
    "data.world.n_books=2000",
    "data.world.n_users=900",
    "data.world.mean_ratings=10",
    "trainer.max_steps=null",
    "eval.n_candidates=30",
    "eval.max_users=100",
    "eval.max_dev_users=16",
    "eval.n_bootstrap=2000",
]
NON_TEXT = ("random", "popularity", "item_knn")


def lower_bound_over_non_text(place: Path, taste: float) -> float:
    """The smallest lower end of the intervals of the lift in NDCG@10 over each of the non-text baselines."""
    from reranker.eval.statistics import paired_lift

    main.run(composed(place, *STUDY, f"data.world.taste={taste}"), place / "run")
    users = pd.read_parquet(place / "run" / "per_user.parquet")
    ndcg = users.pivot(index="user_id", columns="scorer", values="ndcg_10")
    ours = ndcg["fine_tuned"].to_numpy()
    return min(paired_lift(ours, ndcg[b].to_numpy(), n_resamples=2000, seed=0)[1] for b in NON_TEXT)


def test_fine_tuning_beats_every_non_text_baseline_where_taste_is_planted(tmp_path: Path) -> None:
    assert lower_bound_over_non_text(tmp_path, taste=1.0) > 0


def test_fine_tuning_does_not_beat_them_where_no_taste_is_planted(tmp_path: Path) -> None:
    assert lower_bound_over_non_text(tmp_path, taste=0.0) <= 0
