"""The original system's own files go through all stages, each in a separate process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.config import ROOT

pytestmark = pytest.mark.slow
TIMEOUT_S = 600
SMALL = [
    "model=tiny",
    "trainer.device=cpu",
    "trainer.precision=fp32",
    "trainer.max_steps=3",
    "trainer.n_evaluations=1",
    "eval.n_candidates=20",
    "eval.n_bootstrap=100",
    "eval.baselines=[random,popularity,bm25]",
]


def write_features(folder: Path, n_users: int = 80, n_books: int = 120) -> None:
    """Write the feature tables with ids of mixed types, as the original's scripts did."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    read = [rng.choice(n_books, 12, replace=False) + 1 for _ in range(n_users)]
    users = {
        "user_id": [str(user * 31) for user in range(n_users)],
        "books_read": [[str(book) for book in books] for books in read],  # text ids
    }
    books = {
        "book_id": np.arange(1, n_books + 1),  # integer ids
        "title": [f"Book number {i}" for i in range(n_books)],
        "description": [f"A story about {i}." for i in range(n_books)],
        "genre": [["fantasy, romance", "horror"][i % 2] for i in range(n_books)],
        "authors": [f"Author {i % 11}" for i in range(n_books)],
    }
    texts = {
        "book_id": [f"{i}.0" for i in range(1, n_books + 1)],  # float ids as text
        "text": [f"Book number {i} by Author {i % 11}" for i in range(n_books)],
    }
    pd.DataFrame(users).to_parquet(folder / "sampled_users_book.parquet")
    pd.DataFrame(books).to_parquet(folder / "reduce_books_df.parquet")
    pd.DataFrame(texts).to_parquet(folder / "book_texts_reduced.parquet")


def command(place: Path, *words: str) -> dict[str, Any]:
    """Run main.py in a process and return its result.json."""
    own = [
        f"tracking.uri=sqlite:///{place}/mlflow.db",
        f"cache_dir={place}/cache",
        f"output_dir={place}/out",
        f"hydra.run.dir={place}/run",
    ]
    done = subprocess.run(
        [sys.executable, "main.py", *SMALL, *own, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads((place / "out" / "result.json").read_text())
    return found


def test_the_original_files_go_through_every_stage(tmp_path: Path) -> None:
    write_features(tmp_path / "data")
    data = ["data=bookdb_features", f"data.root={tmp_path}/data"]
    out = tmp_path / "out"
    tables = command(tmp_path, *data, "stages=tables")
    assert tables["counts"]["tables/ratings"] == 80 * 12
    pairs = command(tmp_path, *data, "stages=pairs", "sampling.max_positives=null")
    generated = pd.read_parquet(out / "training_pairs.parquet")
    assert len(generated) == pairs["counts"]["pairs/pairs_before_refinement"]
    contexts = generated.drop_duplicates("user_ctx")["user_ctx"]
    assert contexts.str.contains("Book number").all()
    file = "processed_training_pairs_parts_0_to_12.parquet"
    limits = [f"sampling.{k}=3" for k in ("min_positives", "max_positives")]
    command(
        tmp_path,
        "stages=refine",
        f"sampling.path={out}/training_pairs.parquet",
        "sampling.negatives_per_positive=3",
        f"sampling.refined_file={file}",
        *limits,
    )
    n = pd.read_parquet(out / file).groupby("user_id", observed=True)["label"]
    assert (n.sum() == 3).all() and (n.size() <= 12).all()
    command(tmp_path, *data, "stages=train", f"sampling.path={out}/{file}")
    model = ["model=registered", f"model.uri={out}/model", "stages=evaluate"]
    evaluated = command(tmp_path, *data, *model)
    assert {"test/map", "test/auc", "test/ap", "test/ndcg_3", "test/ndcg_5"} <= set(
        evaluated["metrics"]
    )
    held_out = ["data=pairs", f"sampling.path={out}/{file}", "sampling.val_size=0.3"]
    alone = command(tmp_path, *held_out, "stages=[train,evaluate]")
    assert 0 < alone["metrics"]["test/map"] <= 1
