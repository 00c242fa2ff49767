"""A local model hub, and two tiny checkpoints with the architectures of the pinned models."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf

CONF = Path(__file__).resolve().parents[2] / "conf"
LFS = {".safetensors", ".bin"}
CHARACTERS = string.ascii_lowercase + string.digits + string.punctuation

Repository = tuple[str, str]  # hub id, revision


def pinned(name: str) -> Repository:
    """Return the hub id and revision that `conf/model/<name>.yaml` pins."""
    cfg = OmegaConf.load(CONF / "model" / f"{name}.yaml")
    return cfg.hub_id, cfg.revision


def write_both(root: Path) -> dict[Repository, Path]:
    """Write tiny checkpoints of both pinned models under `root`; return them for `serve`."""
    write_minilm(root / "minilm")
    write_bge(root / "bge")
    return {pinned("minilm"): root / "minilm", pinned("bge"): root / "bge"}


def write_minilm(folder: Path, *, n_labels: int = 1, n_layers: int = 2) -> None:
    """Write a random BERT cross-encoder with a WordPiece vocabulary of characters."""
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = [*special, *CHARACTERS, *(f"##{c}" for c in CHARACTERS)]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=512)
    config = BertConfig(
        vocab_size=len(tokens), **_sizes(), num_hidden_layers=n_layers, max_position_embeddings=512
    )
    _save(folder, BertForSequenceClassification, config, tokenizer, n_labels)


def write_bge(folder: Path, *, n_layers: int = 1) -> None:
    """Write a random XLM-RoBERTa cross-encoder with a Unigram vocabulary of characters."""
    from transformers import (
        XLMRobertaConfig,
        XLMRobertaForSequenceClassification,
        XLMRobertaTokenizer,
    )

    tokens = ["<s>", "<pad>", "</s>", "<unk>", "\u2581", *CHARACTERS, "<mask>"]
    tokenizer = XLMRobertaTokenizer(
        vocab=[(token, -float(i)) for i, token in enumerate(tokens)], model_max_length=512
    )
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
    config = XLMRobertaConfig(
        vocab_size=len(tokens),
        **_sizes(),
        **special,
        num_hidden_layers=n_layers,
        max_position_embeddings=514,
        type_vocab_size=1,
    )
    _save(folder, XLMRobertaForSequenceClassification, config, tokenizer, 1)


def _sizes() -> dict[str, float]:
    return {
        "hidden_size": 32,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "initializer_range": 0.2,
    }


def _save(folder, model_class, config, tokenizer, n_labels):
    import torch

    from reranker.model.weights import quiet

    config.num_labels = n_labels
    with torch.random.fork_rng(devices=[]), quiet():
        torch.random.default_generator.manual_seed(0)
        model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("# A model\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle, to be left where it is")


@contextmanager
def serve(repositories: Mapping[Repository, Path]) -> Iterator[str]:
    """Serve folders as hub models on a free local port; yield the endpoint's URL.

    Args:
        repositories: The folder of each hub id and revision.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.repositories = dict(repositories)
    poll_interval = 0.01
    thread = Thread(target=server.serve_forever, args=(poll_interval,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answer `/api/models/ID/tree/REVISION` and `/ID/resolve/REVISION/FILE`.

    Weights have the headers of LFS files.
    """

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, *args: object) -> None:
        pass

    def _answer(self) -> None:
        match urlsplit(self.path).path.strip("/").split("/"):
            case ["api", "models", owner, name, "tree", revision]:
                folder = self._folder(f"{owner}/{name}", revision)
                if folder is not None:
                    listing = [_entry(f, folder) for f in sorted(folder.rglob("*")) if f.is_file()]
                    self._send(json.dumps(listing).encode(), {"Content-Type": "application/json"})
            case [owner, name, "resolve", revision, *parts]:
                folder = self._folder(f"{owner}/{name}", revision)
                if folder is not None:
                    self._resolve(folder, "/".join(parts), revision)
            case _:
                self._refuse("EntryNotFound")

    def _folder(self, model: str, revision: str) -> Path | None:
        folder = self.server.repositories.get((model, revision))
        if folder is None:
            known = any(model == name for name, _ in self.server.repositories)
            self._refuse("RevisionNotFound" if known else "RepoNotFound")
        return folder

    def _resolve(self, folder: Path, name: str, revision: str) -> None:
        path = folder / name
        if not path.is_file():
            return self._refuse("EntryNotFound")
        entry = _entry(path, folder)
        headers = {"X-Repo-Commit": revision, "ETag": f'"{entry["oid"]}"'}
        if "lfs" in entry:
            headers |= {
                "X-Linked-Etag": f'"{entry["lfs"]["oid"]}"',
                "X-Linked-Size": str(entry["size"]),
            }
        self._send(path.read_bytes(), headers)

    def _refuse(self, code: str) -> None:
        self._send(b"", {"X-Error-Code": code}, HTTPStatus.NOT_FOUND)

    def _send(
        self, body: bytes, headers: Mapping[str, str], status: HTTPStatus = HTTPStatus.OK
    ) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(path: Path, folder: Path) -> dict[str, Any]:
    data = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    entry: dict[str, Any] = {
        "type": "file",
        "path": path.relative_to(folder).as_posix(),
        "size": len(data),
        "oid": oid,
    }
    if path.suffix in LFS:
        entry["lfs"] = {
            "oid": hashlib.sha256(data).hexdigest(),
            "size": len(data),
            "pointerSize": 130,
        }
    return entry
