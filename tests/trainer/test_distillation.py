"""A teacher is found before any work, scores the pairs once, and its student ranks as it does."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache
from reranker.config import ModelConfig, TrainerConfig
from reranker.data import Tables
from reranker.errors import DataError, ModelError
from reranker.model import Encoder, load
from reranker.serving.bundle import write_bundle
from reranker.serving.teacher_lookup import find_teacher, teacher_warnings
from reranker.trainer import attach_scores, distillation, fit, score_pairs
from tests.helpers.bundles import corpus_of

pytestmark = pytest.mark.slow
N_USERS, GROUP = 30, 8


@pytest.fixture(scope="module")
def wise() -> Encoder:
    return load(ModelConfig(name="tiny", source="random", max_length=32, seed=1))


@pytest.fixture(scope="module")
def bundle(wise: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Served with a sigmoid, which a student must not see."""
    folder = tmp_path_factory.mktemp("teacher") / "bundle"
    names = ["book_id", "title", "series", "authors", "genres", "book_text"]
    books = pd.DataFrame(
        [(1, "Emma", "", "Jane Austen", "romance", "Emma by Jane Austen")], columns=names
    )
    editions = pd.DataFrame({"book_id": [1], "book": np.array([0], dtype=np.int32)})
    served = ModelConfig(name="tiny", source="random", max_length=32, activation="sigmoid")
    return write_bundle(folder, wise, corpus_of(books, editions), model_cfg=served)


@pytest.fixture(scope="module")
def found(bundle: Path) -> ModelConfig:
    cfg = find_teacher(str(bundle), max_length=16)
    assert cfg is not None
    return cfg


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Two part files, of two row groups and one: texts of one letter, a positive and its negatives per user."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pairs"
    folder.mkdir()
    texts = [str(letter) for letter in rng.choice(list("abcxyz"), N_USERS * GROUP)]
    user = np.repeat(np.arange(N_USERS), GROUP)
    frame = pd.DataFrame({"user_id": [f"u{u}" for u in user], "user_ctx": "reader"})
    frame["book_text"], frame["label"] = (
        texts,
        np.tile([1] + [0] * (GROUP - 1), N_USERS).astype(np.int8),
    )
    table = pa.Table.from_pandas(
        frame.astype({"user_ctx": "category", "book_text": "category"}), preserve_index=False
    )
    half = len(table) // 2
    pq.write_table(table[:half], folder / "part-0.parquet", row_group_size=half // 2)
    pq.write_table(table[half:], folder / "part-1.parquet")
    return folder


def entries(cache: Cache) -> list[Path]:
    return [path for path in (cache.root / "teacher").glob("*") if path.is_dir()]


def test_every_pair_stands_beside_the_teachers_logit_and_the_pairs_stay_as_they_are(
    pairs: Path, found: ModelConfig, wise: Encoder, cache: Cache
) -> None:
    before = pq.read_table(pairs)
    taught = score_pairs(pairs, "digest", found, cache)
    table = pq.read_table(taught.path)
    assert table.drop_columns("score").equals(before)
    assert pq.read_table(pairs).equals(before)
    texts = [before[name].to_pylist() for name in ("user_ctx", "book_text")]
    np.testing.assert_allclose(table["score"].to_numpy(), wise.score(*texts), atol=1e-5)
    assert (taught.hit, taught.counts) == (False, {"pairs": N_USERS * GROUP})


def test_pairs_are_scored_once_and_again_where_pairs_lengths_or_the_tokenizer_are_others(
    pairs: Path, found: ModelConfig, cache: Cache, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loaded: list[int] = []

    def counted(cfg: ModelConfig, *args: Any, **kwargs: Any) -> Encoder:
        loaded.append(cfg.max_length)
        return load(cfg, *args, **kwargs)

    monkeypatch.setattr(distillation, "load", counted)
    first, again = (score_pairs(pairs, "digest", found, cache) for _ in range(2))
    assert ((first.hit, again.hit), first.path, first.digest) == (
        (False, True),
        again.path,
        again.digest,
    )
    score_pairs(pairs, "other", found, cache)
    score_pairs(pairs, "digest", ModelConfig(**{**vars(found), "max_length": 24}), cache)
    copy = shutil.copytree(str(found.path), tmp_path / "weights")
    with (copy / "tokenizer.json").open("a") as file:
        file.write("\n")
    score_pairs(pairs, "digest", ModelConfig(**{**vars(found), "path": str(copy)}), cache)
    assert loaded == [32, 32, 24, 32]


def test_a_teacher_that_has_diverged_leaves_nothing(
    pairs: Path, wise: Encoder, cache: Cache, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    wise.save(tmp_path / "weights")
    tensors = load_file(tmp_path / "weights/model.safetensors")
    tensors["classifier.bias"][:] = np.nan
    save_file(tensors, tmp_path / "weights/model.safetensors", metadata={"format": "pt"})
    bad = find_teacher(str(tmp_path / "weights"), max_length=32)
    assert bad is not None
    with pytest.raises(ModelError, match="scores are NaN or infinite"):
        score_pairs(pairs, "digest", bad, cache)
    assert entries(cache) == []


def test_scores_of_any_scale_are_kept_in_the_order_of_the_rows_as_standard_ones(
    pairs: Path, cache: Cache
) -> None:
    before = pq.read_table(pairs)
    told = 100 + 7.0 * np.random.default_rng(1).permutation(len(before))
    kept = attach_scores(pairs, "digest", told, cache)
    table = pq.read_table(kept.path)
    assert table.drop_columns("score").equals(before)
    np.testing.assert_allclose(
        table["score"].to_numpy(), (told - told.mean()) / told.std(), atol=1e-6
    )
    assert (
        attach_scores(pairs, "digest", told, cache).hit,
        attach_scores(pairs, "digest", -told, cache).hit,
    ) == (
        True,
        False,
    )


@pytest.mark.parametrize("bad", [0.1, np.nan])
def test_a_teacher_without_an_opinion_is_refused(bad: float, pairs: Path, cache: Cache) -> None:
    with pytest.raises(
        DataError, match=r"scores go from (0\.1 to 0\.1|nan to nan), so there is nothing to learn"
    ):
        attach_scores(pairs, "digest", np.full(N_USERS * GROUP, bad), cache)
    assert entries(cache) == []


def test_a_teacher_beside_labels_moves_scores_towards_its_own(pairs: Path, cache: Cache) -> None:
    """Labels say nothing here: every text is a positive as often as the next. The teacher loves late letters."""
    frame = pq.read_table(pairs).to_pandas()
    told = frame["book_text"].astype(str).map(ord).to_numpy().astype(float)
    lessons = attach_scores(pairs, "digest", told, cache)

    def agreement(weight: float) -> float:
        student = load(
            ModelConfig(name="tiny", source="random", max_length=32, layers=1, dropout=0.0)
        )
        cfg = TrainerConfig(
            loss="softmax",
            teacher="bm25",
            teacher_weight=weight,
            epochs=6,
            learning_rate=3e-3,
            precision="fp32",
        )
        fit(student, lessons.path, lambda: 0.0, cfg, lambda logs, step: None)
        scores = student.score(
            frame["user_ctx"].astype(str).tolist(), frame["book_text"].astype(str).tolist()
        )
        return float(np.corrcoef(scores, told)[0, 1])

    alone, taught = agreement(0.0), agreement(3.0)
    assert alone < 0.9 < 0.97 < taught, (alone, taught)


@pytest.mark.parametrize("loss", ["margin_mse", "mse"])
def test_a_student_of_fewer_layers_comes_to_score_as_its_teacher(
    loss: str, pairs: Path, found: ModelConfig, cache: Cache
) -> None:
    student = load(ModelConfig(name="tiny", source="random", max_length=32, layers=1, dropout=0.0))
    table = pd.read_parquet(score_pairs(pairs, "digest", found, cache).path)
    told = table["score"].to_numpy()

    def agreement() -> float:
        scores = student.score(table["user_ctx"].tolist(), table["book_text"].tolist())
        return float(np.corrcoef(scores, told)[0, 1])

    before = agreement()
    cfg = TrainerConfig(loss=loss, teacher="bundle", epochs=8, learning_rate=3e-3, precision="fp32")
    fit(
        student,
        score_pairs(pairs, "digest", found, cache).path,
        agreement,
        cfg,
        lambda logs, step: None,
    )
    after = agreement()
    assert before < 0.5 < 0.99 < after, (before, after)


def test_a_bundle_and_the_weights_in_it_are_one_teacher_whose_scores_are_logits(
    bundle: Path, found: ModelConfig
) -> None:
    assert find_teacher(str(bundle / "weights"), max_length=16) == found
    assert found == ModelConfig(
        name="tiny", source="path", path=str(bundle / "weights"), max_length=32
    )


def test_a_teacher_of_other_tables_is_doubted(
    found: ModelConfig, tables: Tables, tmp_path: Path
) -> None:
    mine = dataclasses.replace(tables, digest="digest of tables")
    assert teacher_warnings(found, mine) == teacher_warnings(None, tables) == []
    [doubt] = teacher_warnings(found, tables)
    assert "was trained with other data.* than this run's" in doubt
    plain = ModelConfig(name="teacher", source="path", path=str(tmp_path))
    assert teacher_warnings(plain, tables) == []


def test_a_folder_of_weights_says_its_attention_and_not_its_length(tmp_path: Path) -> None:
    load(ModelConfig(name="tiny", source="random", max_length=64, attention="shared_context")).save(
        tmp_path
    )
    expected = ModelConfig(
        name="teacher", source="path", path=str(tmp_path), max_length=48, attention="shared_context"
    )
    assert find_teacher(str(tmp_path), max_length=48) == expected


def test_no_teacher_is_none_and_one_that_is_not_there_or_was_changed_is_refused(
    bundle: Path, tmp_path: Path
) -> None:
    assert find_teacher(None, max_length=16) is None
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        find_teacher(str(tmp_path / "nowhere"), max_length=16)
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with (copy / "weights/model.safetensors").open("ab") as file:
        file.write(b"!")
    for folder in (copy, copy / "weights"):
        with pytest.raises(ModelError, match="the file is damaged or was changed"):
            find_teacher(str(folder), max_length=16)
