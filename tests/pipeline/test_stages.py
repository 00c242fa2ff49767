"""Stages by themselves: the results of one run, given files, and errors for missing input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.errors import DataError
from reranker.pipeline import run
from tests.helpers.pair_tables import pairs_frame
from tests.test_main import composed, result

pytestmark = pytest.mark.slow
ON_PAIRS = [
    "data.world.n_books=1500",
    "data.world.n_users=600",
    "data.world.mean_ratings=24",
    "data=pairs",
    "eval.max_users=null",
    "sampling.val_size=0.4",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stages")


@pytest.fixture(scope="module")
def staged(place: Path) -> Callable[..., dict[str, Any]]:
    """`staged(name, *overrides)` runs once in its folder and returns its result.json."""

    def staged(name: str, *overrides: str) -> dict[str, Any]:
        run(composed(place, f"output_dir={place}/out", *overrides), place / name)
        return result(place / name)

    return staged


@pytest.fixture(scope="module")
def whole(place: Path) -> dict[str, Any]:
    run(composed(place / "whole"), place / "whole" / "run")
    return result(place / "whole" / "run")


@pytest.fixture(scope="module")
def trained(staged: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    """The stages one after another, each in its own run."""
    tables = staged("tables", "stages=tables")
    assert set(tables["seconds"]) == {"tables"}
    pairs = staged("pairs", "stages=pairs")
    assert "train" not in pairs["seconds"] and pairs["cache_hits"]["tables"]
    return staged("train", "stages=train")


def test_a_stage_without_its_input_names_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "run" / ".hydra").mkdir(parents=True)
    (tmp_path / "run" / ".hydra" / "overrides.yaml").write_text(
        "- sampling.neg_ratio=2\n- stages=[train,evaluate]\n"
    )
    with pytest.raises(DataError, match="not in the cache") as info:
        run(composed(tmp_path, "stages=[train,evaluate]"), tmp_path / "run")
    assert str(info.value).endswith("python main.py sampling.neg_ratio=2 stages=tables")
    run(composed(tmp_path, "stages=tables"), tmp_path / "tables")
    with pytest.raises(DataError, match=r"stages=pairs$"):
        run(composed(tmp_path, "stages=[train,evaluate]"), tmp_path / "run2")


def test_stages_one_by_one_train_what_one_run_trains(
    whole: dict[str, Any], trained: dict[str, Any]
) -> None:
    for name in ("tables", "pairs", "lists/dev", "lists/test"):
        assert trained["hashes"][name] == whole["hashes"][name]
    same = ("dev/best_ndcg_10", "dev/best_step", "train/loss")
    assert {k: trained["metrics"][k] for k in same} == {k: whole["metrics"][k] for k in same}
    assert trained["model"]["uri"].startswith("models:/book-reranker/")
    assert "test/ndcg_10" not in trained["metrics"]


def test_a_registered_model_is_evaluated_without_training(
    place: Path,
    whole: dict[str, Any],
    trained: dict[str, Any],
    staged: Callable[..., dict[str, Any]],
) -> None:
    from reranker.serving.registry import download

    uri = trained["model"]["uri"]
    bundle = download(uri, f"sqlite:///{place}/mlruns/mlflow.db")
    for i, words in enumerate(
        [
            ["model=registered", f"model.uri={uri}"],
            ["model=registered", f"model.uri={bundle}"],
            [f"model.path={uri}"],
            [f"model.path={place}/out/model", "model.max_length=64"],
        ]
    ):
        found = staged(f"evaluate{i}", "stages=evaluate", *words)
        assert "train" not in found["seconds"] and "register" not in found["seconds"]
        for key in ("test/ndcg_10", "test/map", "baseline/bm25/ndcg_10", "fused/ndcg_10"):
            assert found["metrics"][key] == pytest.approx(whole["metrics"][key], abs=1e-6)
        assert found["metrics"]["dev/ndcg_10"] == pytest.approx(
            whole["metrics"]["dev/best_ndcg_10"]
        )


def test_output_dir_has_the_files_of_all_stages(place: Path, trained: dict[str, Any]) -> None:
    from sentence_transformers import CrossEncoder

    out = place / "out"
    assert {
        "reduce_books_df.parquet",
        "sampled_users_book.parquet",
        "book_texts_reduced.parquet",
        "training_pairs.parquet",
        "processed_training_pairs.parquet",
        "model",
        "data_report.html",
        "result.json",
    } <= {path.name for path in out.iterdir()}
    refined = pd.read_parquet(out / "processed_training_pairs.parquet")
    assert list(refined) == ["user_id", "user_ctx", "book_id", "book_text", "label"]
    assert len(refined) == trained["counts"]["pairs/pairs"]
    score = CrossEncoder(str(out / "model"), device="cpu").predict([("Likes: a.", "Title: b")])
    assert np.isfinite(score).all()


def test_given_pairs_train_like_generated_ones(
    place: Path, trained: dict[str, Any], staged: Callable[..., dict[str, Any]]
) -> None:
    path = place / "out" / "processed_training_pairs.parquet"
    found = staged("given", "stages=train", f"sampling.path={path}")
    assert found["metrics"]["train/loss"] == pytest.approx(trained["metrics"]["train/loss"])
    assert found["counts"]["read/pairs"] == trained["counts"]["pairs/pairs"]


def test_pairs_of_held_out_users_are_not_trained_on(
    place: Path, staged: Callable[..., dict[str, Any]], trained: dict[str, Any]
) -> None:
    frame = pd.read_parquet(place / "out" / "processed_training_pairs.parquet")
    held_out = pd.read_parquet(place / "train" / "lists_test.parquet")["user_id"].iloc[0]
    leaked = frame.iloc[:4].assign(user_id=held_out)
    pd.concat([frame, leaked]).to_parquet(place / "leaked.parquet")
    found = staged("leaked", "stages=train", f"sampling.path={place}/leaked.parquet")
    assert found["counts"]["pairs/pairs_of_held_out_users"] == 4
    assert found["counts"]["pairs/pairs"] == len(frame)


def test_a_file_of_other_users_needs_data_pairs(tmp_path: Path, place: Path) -> None:
    pairs_frame().to_parquet(tmp_path / "pairs.parquet")
    with pytest.raises(DataError, match=r"none of its 40 users .* data=pairs"):
        run(composed(place, f"sampling.path={tmp_path}/pairs.parquet"), place / "others")


@pytest.mark.parametrize("by", ["user", "pair"])
def test_a_pairs_file_is_all_that_a_run_needs(
    tmp_path: Path, place: Path, by: str, staged: Callable[..., dict[str, Any]]
) -> None:
    path = tmp_path / "processed_training_pairs_parts_0_to_12.parquet"
    pairs_frame(60, own_contexts=True).drop(columns="book_id").to_parquet(path)
    words = [*ON_PAIRS, f"sampling.path={path}", f"sampling.split_by={by}"]
    found = staged(f"pairs-{by}", *words)
    assert {"test/map", "test/auc", "baseline/bm25/map", "lift/ndcg_10"} <= set(found["metrics"])
    assert not {"baseline/ease/map", "baseline/item_knn/map"} & set(found["metrics"])
    assert (place / f"pairs-{by}" / "run_report.html").exists()
    uri = found["model"]["uri"]
    again = staged(f"again-{by}", *words, "stages=evaluate", "model=registered", f"model.uri={uri}")
    assert again["metrics"]["test/map"] == pytest.approx(found["metrics"]["test/map"], abs=1e-6)
    assert "train" not in again["seconds"]


def test_refinement_of_an_existing_folder_runs_alone(
    place: Path, trained: dict[str, Any], staged: Callable[..., dict[str, Any]]
) -> None:
    found = staged(
        "refine",
        "stages=refine",
        f"sampling.path={place}/out/training_pairs.parquet",
        "sampling.min_positives=2",
        "sampling.max_positives=2",
        "sampling.negatives_per_positive=2",
        "sampling.refined_file=mine.parquet",
    )
    assert set(found["seconds"]) == {"refine", "audit", "pairs_report"}
    assert (place / "out" / "pairs_report.html").exists()
    refined = pd.read_parquet(place / "out" / "mine.parquet")
    n = refined.groupby("user_id", observed=True)["label"].agg(["sum", "size"])
    assert (n["sum"] == 2).all() and (n["size"] <= 6).all()
