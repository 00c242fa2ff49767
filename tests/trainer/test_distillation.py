"""Teachers are found in folders, score the pairs once, and students learn their scores."""

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
from reranker.serving.model_lookup import data_warnings, find_teacher
from reranker.trainer import BaselineTeacher, DistilledPairs, ModelTeacher, distillation, fit
from tests.helpers.bundles import corpus_of

pytestmark = pytest.mark.slow
N_USERS, GROUP = 30, 8


@pytest.fixture(scope="module")
def teacher() -> Encoder:
    return load(ModelConfig(name="tiny", source="random", max_length=32, seed=1))


@pytest.fixture(scope="module")
def bundle(teacher: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the teacher's bundle; it is served with a sigmoid, which does not apply to students."""
    folder = tmp_path_factory.mktemp("teacher") / "bundle"
    names = ["book_id", "title", "series", "authors", "genres", "book_text"]
    books = pd.DataFrame(
        [(1, "Emma", "", "Jane Austen", "romance", "Emma by Jane Austen")], columns=names
    )
    editions = pd.DataFrame({"book_id": [1], "book": np.array([0], dtype=np.int32)})
    served = ModelConfig(name="tiny", source="random", max_length=32, activation="sigmoid")
    return write_bundle(folder, teacher, corpus_of(books, editions), model_cfg=served)


@pytest.fixture(scope="module")
def teacher_cfg(bundle: Path) -> ModelConfig:
    cfg = find_teacher(str(bundle), max_length=16)
    assert cfg is not None
    return cfg


@dataclasses.dataclass(frozen=True)
class StoredPairs:
    path: Path
    digest: str = "digest"


@pytest.fixture
def pairs(tmp_path: Path) -> StoredPairs:
    """Write two part files with two row groups and one; a text is one letter."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "pairs"
    folder.mkdir()
    texts = [str(letter) for letter in rng.choice(list("abcxyz"), N_USERS * GROUP)]
    user = np.repeat(np.arange(N_USERS), GROUP)
    frame = pd.DataFrame({"user_id": [f"u{u}" for u in user], "user_ctx": "reader"})
    frame["book_text"] = texts
    frame["label"] = np.tile([1] + [0] * (GROUP - 1), N_USERS).astype(np.int8)
    frame = frame.astype({"user_ctx": "category", "book_text": "category"})
    table = pa.Table.from_pandas(frame, preserve_index=False)
    half = len(table) // 2
    pq.write_table(table[:half], folder / "part-0.parquet", row_group_size=half // 2)
    pq.write_table(table[half:], folder / "part-1.parquet")
    return StoredPairs(folder)


def entries(cache: Cache) -> list[Path]:
    return [path for path in (cache.root / "teacher").glob("*") if path.is_dir()]


def scored_by_model(
    pairs: StoredPairs, cfg: ModelConfig, cache: Cache, **changes: Any
) -> DistilledPairs:
    return ModelTeacher(dataclasses.replace(cfg, **changes)).add_scores(pairs, cache)


def scored_by_baseline(pairs: StoredPairs, scores: np.ndarray, cache: Cache) -> DistilledPairs:
    return BaselineTeacher(lambda: scores).add_scores(pairs, cache)


def test_a_model_teacher_adds_its_logits_and_leaves_the_pairs_unchanged(
    pairs: StoredPairs, teacher_cfg: ModelConfig, teacher: Encoder, cache: Cache
) -> None:
    before = pq.read_table(pairs.path)
    distilled = scored_by_model(pairs, teacher_cfg, cache)
    table = pq.read_table(distilled.path)
    assert table.drop_columns("score").equals(before)
    assert pq.read_table(pairs.path).equals(before)
    texts = [before[name].to_pylist() for name in ("user_ctx", "book_text")]
    np.testing.assert_allclose(table["score"].to_numpy(), teacher.score(*texts), atol=1e-5)
    assert (distilled.hit, distilled.counts) == (False, {"pairs": N_USERS * GROUP})


def test_pairs_are_scored_again_only_for_other_pairs_lengths_or_tokenizers(
    pairs: StoredPairs,
    teacher_cfg: ModelConfig,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    loaded: list[int] = []

    def counted(cfg: ModelConfig, *args: Any, **kwargs: Any) -> Encoder:
        loaded.append(cfg.max_length)
        return load(cfg, *args, **kwargs)

    monkeypatch.setattr(distillation, "load", counted)
    first, again = (scored_by_model(pairs, teacher_cfg, cache) for _ in range(2))
    assert (first.hit, again.hit) == (False, True)
    assert (first.path, first.digest) == (again.path, again.digest)
    scored_by_model(dataclasses.replace(pairs, digest="other"), teacher_cfg, cache)
    scored_by_model(pairs, teacher_cfg, cache, max_length=24)
    copy = shutil.copytree(str(teacher_cfg.path), tmp_path / "weights")
    with (copy / "tokenizer.json").open("a") as file:
        file.write("\n")
    scored_by_model(pairs, teacher_cfg, cache, path=str(copy))
    assert loaded == [32, 32, 24, 32]


def test_a_diverged_teacher_is_an_error_and_leaves_no_files(
    pairs: StoredPairs, teacher: Encoder, cache: Cache, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file, save_file

    teacher.save(tmp_path / "weights")
    tensors = load_file(tmp_path / "weights/model.safetensors")
    tensors["classifier.bias"][:] = np.nan
    save_file(tensors, tmp_path / "weights/model.safetensors", metadata={"format": "pt"})
    diverged = find_teacher(str(tmp_path / "weights"), max_length=32)
    assert diverged is not None
    with pytest.raises(ModelError, match="scores are NaN or infinite"):
        scored_by_model(pairs, diverged, cache)
    assert entries(cache) == []


def test_a_baseline_teacher_adds_standardised_scores_in_the_order_of_the_rows(
    pairs: StoredPairs, cache: Cache
) -> None:
    before = pq.read_table(pairs.path)
    scores = 100 + 7.0 * np.random.default_rng(1).permutation(len(before))
    table = pq.read_table(scored_by_baseline(pairs, scores, cache).path)
    assert table.drop_columns("score").equals(before)
    expected = (scores - scores.mean()) / scores.std()
    np.testing.assert_allclose(table["score"].to_numpy(), expected, atol=1e-6)
    assert scored_by_baseline(pairs, scores, cache).hit
    assert not scored_by_baseline(pairs, -scores, cache).hit


@pytest.mark.parametrize("value", [0.1, np.nan])
def test_a_baseline_teacher_with_equal_or_nan_scores_is_rejected(
    value: float, pairs: StoredPairs, cache: Cache
) -> None:
    message = r"scores range from (0\.1 to 0\.1|nan to nan), so a student cannot learn"
    with pytest.raises(DataError, match=message):
        scored_by_baseline(pairs, np.full(N_USERS * GROUP, value), cache)
    assert entries(cache) == []


def student() -> Encoder:
    return load(ModelConfig(name="tiny", source="random", max_length=32, layers=1, dropout=0.0))


def test_teacher_weight_moves_scores_towards_the_teachers(pairs: StoredPairs, cache: Cache) -> None:
    """The labels are uninformative; the teacher prefers late letters of the alphabet."""
    frame = pq.read_table(pairs.path).to_pandas().astype({"user_ctx": str, "book_text": str})
    scores = frame["book_text"].map(ord).to_numpy().astype(float)
    distilled = scored_by_baseline(pairs, scores, cache)

    def agreement(weight: float) -> float:
        encoder = student()
        cfg = TrainerConfig(
            loss="softmax",
            teacher="bm25",
            teacher_weight=weight,
            epochs=6,
            learning_rate=3e-3,
            precision="fp32",
        )
        fit(encoder, distilled.path, lambda: {"ndcg_10": 0.0}, cfg=cfg)
        found = encoder.score(frame["user_ctx"].tolist(), frame["book_text"].tolist())
        return float(np.corrcoef(found, scores)[0, 1])

    without, with_teacher = agreement(0.0), agreement(3.0)
    assert without < 0.9 < 0.97 < with_teacher, (without, with_teacher)


@pytest.mark.parametrize("loss", ["margin_mse", "mse"])
def test_a_student_with_fewer_layers_learns_the_teachers_scores(
    loss: str, pairs: StoredPairs, teacher_cfg: ModelConfig, cache: Cache
) -> None:
    encoder, distilled = student(), scored_by_model(pairs, teacher_cfg, cache)
    table = pd.read_parquet(distilled.path)

    def agreement() -> float:
        scores = encoder.score(table["user_ctx"].tolist(), table["book_text"].tolist())
        return float(np.corrcoef(scores, table["score"])[0, 1])

    before = agreement()
    cfg = TrainerConfig(loss=loss, teacher="bundle", epochs=8, learning_rate=3e-3, precision="fp32")
    fit(encoder, distilled.path, lambda: {"ndcg_10": agreement()}, cfg=cfg)
    after = agreement()
    assert before < 0.5 < 0.99 < after, (before, after)


def test_a_bundle_and_its_weights_folder_are_the_same_teacher_with_logits(
    bundle: Path, teacher_cfg: ModelConfig
) -> None:
    assert find_teacher(str(bundle / "weights"), max_length=16) == teacher_cfg
    assert teacher_cfg == ModelConfig(
        name="tiny", source="path", path=str(bundle / "weights"), max_length=32
    )


def test_a_teacher_of_other_tables_gives_a_warning(
    teacher_cfg: ModelConfig, tables: Tables, tmp_path: Path
) -> None:
    mine = dataclasses.replace(tables, digest="digest of tables")
    assert data_warnings(teacher_cfg, mine, role="teacher") == []
    assert data_warnings(None, tables, role="teacher") == []
    [warning] = data_warnings(teacher_cfg, tables, role="teacher")
    assert "was trained with other data.* than this run's" in warning
    plain = ModelConfig(name="teacher", source="path", path=str(tmp_path))
    assert data_warnings(plain, tables, role="teacher") == []


def test_a_folder_of_weights_stores_its_attention_but_not_its_length(tmp_path: Path) -> None:
    load(ModelConfig(name="tiny", source="random", max_length=64, attention="shared_context")).save(
        tmp_path
    )
    expected = ModelConfig(
        name="path", source="path", path=str(tmp_path), max_length=48, attention="shared_context"
    )
    assert find_teacher(str(tmp_path), max_length=48) == expected


def test_a_missing_or_changed_teacher_is_rejected(bundle: Path, tmp_path: Path) -> None:
    assert find_teacher(None, max_length=16) is None
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        find_teacher(str(tmp_path / "nowhere"), max_length=16)
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    with (copy / "weights/model.safetensors").open("ab") as file:
        file.write(b"!")
    for folder in (copy, copy / "weights"):
        with pytest.raises(ModelError, match="the file is damaged or was changed"):
            find_teacher(str(folder), max_length=16)
