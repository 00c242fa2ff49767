"""A bundle scores and renders texts as its run did, and a changed bundle is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.cache import digest_file
from reranker.config import DataConfig
from reranker.data.numeric_features import LABELS, NumericFeatures, readers_level
from reranker.data.retrieval.ease import Ease
from reranker.errors import ModelError, RequestError
from reranker.serving.bundle import write_bundle
from reranker.serving.reranker import Reranker
from tests.helpers.bundles import BOOKS, CONTEXT, corpus_of, ids
from tests.helpers.weights import TINY

READ = "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
N_READERS = np.array([5, 0, 2, 20])


@pytest.fixture
def copied(bundle: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle, tmp_path / "copied")


@pytest.mark.slow
def test_a_bundle_scores_as_the_encoder_in_it(bundle: Path, tiny: Any) -> None:
    texts = BOOKS["book_text"].tolist()
    ranked = Reranker.from_folder(bundle).rerank(READ, BOOKS["book_id"].tolist())
    expected = tiny.score([READ] * len(texts), texts)
    order = np.argsort(-expected)
    assert ids(ranked) == BOOKS["book_id"].to_numpy()[order].tolist()
    assert [r.score for r in ranked] == pytest.approx(expected[order].tolist(), abs=1e-5)


@pytest.mark.slow
def test_a_bundle_renders_a_history_as_training_did(bundle: Path) -> None:
    loaded = Reranker.from_folder(bundle)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(READ, [20, 30])


@pytest.mark.slow
def test_a_bundle_stores_the_context_template(bundle: Path) -> None:
    manifest = json.loads((bundle / "bundle.json").read_text())
    assert manifest["contexts"]["template"] == DataConfig.context_template


@pytest.mark.slow
def test_a_bundle_renders_contexts_with_its_template(copied: Path) -> None:
    context = {**CONTEXT, "template": "Read {titles} | {genres}"}
    _edit(copied, contexts=context)
    read = "Read Dune by Frank Herbert; Ulysses by James Joyce | classics, science fiction"
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(read, [20, 30])


@pytest.mark.slow
def test_a_bundle_renders_contexts_with_authors(copied: Path) -> None:
    _edit(copied, contexts={**CONTEXT, "n_authors": 1, "template": "Read {titles} | By {authors}"})
    read = "Read Dune by Frank Herbert; Ulysses by James Joyce | By Frank Herbert"
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(read, [20, 30])


def _features(*names: str) -> NumericFeatures:
    rated = [(u, b) for u in range(9) for b in range(len(BOOKS)) if (u + b) % 3]
    known = pd.DataFrame(rated, columns=["user", "book"])
    ease = Ease.fit(known, n_users=9, n_books=len(BOOKS), n_kept=len(BOOKS)).rounded()
    return NumericFeatures(
        BOOKS,
        names,
        ease=ease if "ease" in names else None,
        known=known,
        n_readers=N_READERS if "readers" in names else None,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "names", [("authors",), ("readers", "genres"), tuple(LABELS)], ids="+".join
)
def test_texts_of_the_catalogue_have_the_features_of_training(
    tiny: Any, tmp_path: Path, names: tuple[str, ...]
) -> None:
    features = _features(*names)
    corpus = corpus_of(features=features)
    loaded = Reranker.from_folder(write_bundle(tmp_path / "b", tiny, corpus, model_cfg=TINY))
    code = np.array([loaded._code(b, "") for b in (20, 30)])
    history = pd.DataFrame({"user": 9, "book": [loaded._code(b, "") for b in (11, 40)]})
    new_user = np.full(2, 9)  # a user without known ratings
    texts = features.prepend(BOOKS["book_text"], new_user, code, history).to_pylist()
    ranked = loaded.rerank(None, [20, 30], history=[11, 40])
    assert {r.text for r in ranked} == set(texts)
    assert [r.score for r in ranked] == [r.score for r in loaded.rerank(READ, texts)]
    message = r"history is missing: .*\(data\.text_features: .*\)\. Give the user's history"
    with pytest.raises(RequestError, match=message):
        loaded.rerank(READ, [20, 30])


@pytest.mark.slow
def test_the_feature_readers_needs_no_history(tiny: Any, tmp_path: Path) -> None:
    corpus = corpus_of(features=_features("readers"))
    loaded = Reranker.from_folder(write_bundle(tmp_path / "b", tiny, corpus, model_cfg=TINY))
    texts = {r.text for r in loaded.rerank("Likes: Dune by Frank Herbert.", [20, 40])}
    levels = readers_level(N_READERS)
    assert texts == {
        f"Readers: {levels[1]} | Emma by Jane Austen",
        f"Readers: {levels[3]} | Ulysses by James Joyce",
    }


@pytest.mark.slow
def test_a_bundle_stores_the_counts_of_readers_only_if_they_are_a_feature(
    bundle: Path, tiny: Any, tmp_path: Path
) -> None:
    corpus = corpus_of(features=_features("readers"))
    folder = write_bundle(tmp_path / "b", tiny, corpus, model_cfg=TINY)
    assert pd.read_parquet(folder / "books.parquet")["n_readers"].tolist() == N_READERS.tolist()
    assert "n_readers" not in pd.read_parquet(bundle / "books.parquet")


@pytest.mark.slow
def test_a_bundle_of_format_1_renders_contexts_with_the_template_of_then(copied: Path) -> None:
    _edit(copied, format=1, contexts=CONTEXT)
    loaded = Reranker.from_folder(copied)
    assert loaded.rerank(None, [20, 30], history=[11, 40]) == loaded.rerank(READ, [20, 30])


@pytest.mark.slow
@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_bundle_of_an_older_format_scores_as_one_of_this_format(
    tiny: Any, tmp_path: Path, version: int
) -> None:
    """Older bundles have a flag for authors and genres, and texts that begin with `Readers: `."""
    corpus = corpus_of(features=_features(*LABELS))
    folder = write_bundle(tmp_path / "b", tiny, corpus, model_cfg=TINY)
    expected = Reranker.from_folder(folder).rerank(None, [20, 30], history=[11, 40])
    manifest = json.loads((folder / "bundle.json").read_text())
    del manifest["text_features"]
    (folder / "bundle.json").write_text(json.dumps(manifest))
    levels = [f"Readers: {level} | " for level in readers_level(N_READERS)]
    _write_books(folder, BOOKS.assign(book_text=levels + BOOKS["book_text"]))
    _edit(folder, format=version, shows_match=True)
    assert Reranker.from_folder(folder).rerank(None, [20, 30], history=[11, 40]) == expected


@pytest.mark.slow
def test_an_old_bundle_without_flags_has_the_books_own_texts(copied: Path) -> None:
    expected = Reranker.from_folder(copied).rerank(READ, [20, 30])
    manifest = json.loads((copied / "bundle.json").read_text())
    del manifest["text_features"]
    (copied / "bundle.json").write_text(json.dumps(manifest | {"format": 2}))
    assert Reranker.from_folder(copied).rerank(READ, [20, 30]) == expected


def _write_books(folder: Path, books: pd.DataFrame) -> None:
    """Replace the catalogue of a bundle, and the SHA-256 in its manifest."""
    path = folder / "books.parquet"
    books.to_parquet(path, index=False)
    files = json.loads((folder / "bundle.json").read_text())["files"]
    _edit(folder, files=files | {path.name: digest_file(path)})


@pytest.mark.slow
def test_a_bundle_contains_no_user_and_no_code(bundle: Path) -> None:
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
        (lambda f: _edit(f, format=6), r"bundle\.json: not a bundle of a format up to 5"),
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
def test_a_changed_bundle_is_refused(
    copied: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(copied)
    with pytest.raises(ModelError, match=message):
        Reranker.from_folder(copied)
