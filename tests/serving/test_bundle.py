"""A bundle scores and renders as the encoder and data that it was written from, and is refused if it changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.config import DataConfig, ModelConfig
from reranker.data import Tables
from reranker.data.numeric_features import Match
from reranker.data.retrieval.ease import Ease
from reranker.errors import ModelError, RequestError
from reranker.serving.bundle import write_bundle
from reranker.serving.reranker import Reranker
from tests.helpers.bundles import BOOKS, CONTEXT, EDITIONS, ids


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copied")


@pytest.mark.slow
def test_a_bundle_scores_as_the_encoder_that_it_was_written_from(bundle: Path, tiny: Any) -> None:
    texts = BOOKS["book_text"].tolist()
    ranked = Reranker.from_folder(bundle).rerank(
        "Likes: Dune by Frank Herbert.", BOOKS["book_id"].tolist()
    )
    expected = tiny.score(["Likes: Dune by Frank Herbert."] * len(texts), texts)
    order = np.argsort(-expected)
    assert ids(ranked) == BOOKS["book_id"].to_numpy()[order].tolist()
    assert [r.score for r in ranked] == pytest.approx(expected[order].tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_bundle_renders_a_history_as_training_did(bundle: Path) -> None:
    loaded = Reranker.from_folder(bundle)
    context = (
        "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
    )
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(context, [20, 30])


@pytest.mark.slow
def test_a_bundle_keeps_the_context_template(bundle: Path) -> None:
    assert (
        json.loads((bundle / "bundle.json").read_text())["contexts"]["template"]
        == DataConfig.context_template
    )


@pytest.mark.slow
def test_a_bundle_renders_contexts_by_its_own_template(copied: Path) -> None:
    context = {**CONTEXT, "template": "Read {titles} | {genres}"}
    _edit(copied, contexts=context)
    read = "Read Dune by Frank Herbert; Ulysses by James Joyce | classics, science fiction"
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(read, [20, 30])


@pytest.mark.slow
def test_a_bundle_names_the_authors_that_its_contexts_show(copied: Path) -> None:
    _edit(copied, contexts={**CONTEXT, "n_authors": 1, "template": "Read {titles} | By {authors}"})
    read = "Read Dune by Frank Herbert; Ulysses by James Joyce | By Frank Herbert"
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(read, [20, 30])


@pytest.mark.slow
def test_a_bundle_that_shows_matches_puts_the_catalogues_texts_by_the_history(copied: Path) -> None:
    _edit(copied, shows_match=True)
    loaded = Reranker.from_folder(copied)
    context = (
        "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
    )
    history = pd.DataFrame({"user": 0, "book": [loaded._code(b, "") for b in (11, 40)]})
    code = np.array([loaded._code(b, "") for b in (20, 30)])
    texts = Match(BOOKS).before(BOOKS["book_text"], np.zeros(2, int), code, history).to_pylist()
    ranked = loaded.rerank(None, [20, 30], history=[11, 40])
    assert {r.text for r in ranked} == set(texts)
    assert [r.score for r in ranked] == [r.score for r in loaded.rerank(context, texts)]
    with pytest.raises(RequestError, match=r"history is missing: .*shows_match"):
        loaded.rerank(context, [20, 30])


@pytest.mark.slow
def test_a_bundle_that_shows_ratings_ranks_the_catalogue_as_training_did(
    tiny: Any, tmp_path: Path
) -> None:
    rated = pd.DataFrame(
        [(u, b) for u in range(9) for b in range(len(BOOKS)) if (u + b) % 3],
        columns=["user", "book"],
    )
    ease = Ease.fit(rated, n_users=9, n_books=len(BOOKS), n_kept=len(BOOKS)).rounded()
    match = Match(BOOKS, names=False, ease=ease, known=rated)
    tables = Tables(
        BOOKS, pd.DataFrame(), pd.DataFrame(), EDITIONS, 4.0, "digest of tables", {}, tmp_path
    )
    model_cfg = ModelConfig(name="tiny", source="random", max_length=64)
    data_cfg = DataConfig(name="demo", shows_ratings=True)
    loaded = Reranker.from_folder(
        write_bundle(tmp_path / "b", tiny, tables, data_cfg, model_cfg, match=match)
    )
    code = np.array([loaded._code(b, "") for b in (20, 30)])
    never_seen = np.full(2, 9)
    history = pd.DataFrame({"user": 9, "book": [loaded._code(b, "") for b in (11, 40)]})
    texts = match.before(BOOKS["book_text"], never_seen, code, history).to_pylist()
    assert {r.text for r in loaded.rerank(None, [20, 30], history=[11, 40])} == set(texts)
    assert all(text.startswith("Ratings: ") for text in texts)


@pytest.mark.slow
def test_a_bundle_of_format_1_renders_contexts_as_they_were_then(copied: Path) -> None:
    _edit(copied, format=1, contexts=CONTEXT)
    loaded = Reranker.from_folder(copied)
    context = (
        "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
    )
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(context, [20, 30])


@pytest.mark.slow
def test_a_bundle_holds_no_reader_and_no_code(bundle: Path) -> None:
    assert set(pd.read_parquet(bundle / "books.parquet")) == set(BOOKS) - {"description"}
    assert {f.suffix for f in bundle.rglob("*") if f.is_file()} == {
        ".json",
        ".parquet",
        ".safetensors",
    }
    assert not any("user" in f.name or "histor" in f.name for f in bundle.rglob("*"))


def _edit(folder: Path, **changes: Any) -> None:
    path = folder / "bundle.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _flip_a_bit(folder: Path) -> None:
    path = folder / "weights" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_flip_a_bit, r"weights/model\.safetensors: SHA-256 .* is not the pinned"),
        (
            lambda f: (f / "books.parquet").write_bytes(b"PAR1"),
            r"books\.parquet: SHA-256 .* is not the pinned",
        ),
        (lambda f: (f / "editions.parquet").unlink(), r"editions\.parquet is missing"),
        (
            lambda f: (f / "weights" / "extra.json").touch(),
            r"weights/extra\.json does not belong here",
        ),
        (
            lambda f: (f / "weights" / "model.bin").touch(),
            r"model\.bin: a bundle holds only \.json",
        ),
        (lambda f: (f / "bundle.json").unlink(), r"no bundle\.json here"),
        (lambda f: (f / "bundle.json").write_text("{"), r"bundle\.json: not JSON"),
        (lambda f: _edit(f, format=5), r"bundle\.json: not a bundle of a format up to 4"),
    ],
    ids=[
        "weights",
        "books",
        "missing",
        "extra",
        "pickle",
        "manifest missing",
        "manifest cut",
        "format",
    ],
)
def test_a_bundle_that_is_not_as_written_is_refused(
    copied: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(copied)
    with pytest.raises(ModelError, match=message):
        Reranker.from_folder(copied)
