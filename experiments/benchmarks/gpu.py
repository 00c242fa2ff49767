"""Compare training and scoring on a GPU with the CPU: losses of every objective, and throughput.

Usage: python experiments/benchmarks/gpu.py [--device cuda]

The losses are those of a random BERT of 2 layers on 240 random pairs, 20 steps, without dropout.
The throughput is that of a BERT of MiniLM's shape (6 layers, 384 wide) on pairs of 123 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

from reranker.config import CHOICES, ON_SCORES, ModelConfig, TrainerConfig
from reranker.model import Encoder, load, resolve
from reranker.trainer import fit

LETTERS = list("abcdefghijklmnopqrstuvwxyz")


def main() -> None:
    """Print the differences of the losses, then pairs per second."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args().device
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(LETTERS, 5)) for _ in range(2000)]
    with tempfile.TemporaryDirectory() as temp:
        small = write_pairs(Path(temp) / "small.parquet", rng, words, n_users=60, n_words=8)
        for loss in CHOICES["trainer.loss"]:
            both = [train(one, small, loss) for one in ("cpu", device)]
            print(f"{loss}: largest difference of a loss {np.abs(both[0] - both[1]).max():.1e}")
        large = write_pairs(Path(temp) / "large.parquet", rng, words, n_users=4000, n_words=60)
        folder = write_minilm(Path(temp) / "minilm", words)
        measure(folder, large, device)


def write_pairs(path: Path, rng: Any, words: list[str], *, n_users: int, n_words: int) -> Path:
    """Write one positive and three negatives per user, with random texts and teacher scores."""
    rows = []
    for user in range(n_users):
        context, *books = (" ".join(rng.choice(words, n_words)) for _ in range(5))
        rows += [(f"u{user}", context, book, int(i == 0)) for i, book in enumerate(books)]
    frame = pd.DataFrame(rows, columns=["user_id", "user_ctx", "book_text", "label"])
    frame.assign(score=rng.normal(size=len(frame)).astype(np.float32)).to_parquet(path)
    return path


def train(device: str, pairs: Path, loss: str) -> np.ndarray:
    """Return the losses of 20 steps in fp32."""
    model = ModelConfig(name="random", source="random", max_length=64, dropout=0.0)
    teacher = "given" if loss in ON_SCORES else None
    cfg = TrainerConfig(
        loss=loss, teacher=teacher, max_steps=20, n_evaluations=1, log_steps=1, precision="fp32"
    )
    history = fit(load(model, resolve(model), device=device), pairs, _no_metrics, cfg=cfg)
    return np.array([row["loss"] for row in history.logs if "loss" in row])


def _no_metrics() -> dict[str, float]:
    return {"ndcg_10": 0.0}


def write_minilm(folder: Path, words: list[str]) -> Path:
    """Write a random checkpoint of MiniLM's shape whose vocabulary has the words."""
    folder.mkdir()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate([*special, *dict.fromkeys(words)])}
    cfg = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    cfg.num_labels = 1
    cfg.architectures = [BertForSequenceClassification.__name__]
    torch.manual_seed(0)
    state = BertForSequenceClassification(cfg).state_dict()
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    cfg.save_pretrained(folder)
    BertTokenizer(vocab=vocabulary, model_max_length=512).save_pretrained(folder)
    return folder


def minilm(folder: Path, device: str, scoring: str = "fp32") -> Encoder:
    """Load the checkpoint without dropout."""
    path = str(folder)
    cfg = ModelConfig(
        name="minilm", source="path", path=path, max_length=128, dropout=0.0, scoring=scoring
    )
    return load(cfg, resolve(cfg), device=device)


def measure(folder: Path, pairs: Path, device: str) -> None:
    """Print pairs per second of scoring and training, on the device and on the CPU."""
    texts = pd.read_parquet(pairs)
    for place, scoring, n in (
        (device, "fp32", 16_000),
        (device, "bf16", 16_000),
        ("cpu", "fp32", 800),
    ):
        encoder = minilm(folder, place, scoring)
        queries, books = (texts[name].tolist()[:n] for name in ("user_ctx", "book_text"))
        encoder.score(queries[:64], books[:64])
        begin = time.perf_counter()
        encoder.score(queries, books)
        print(f"score {place} {scoring}: {n / (time.perf_counter() - begin):.0f} pairs/s")
    for place, precision, batch, steps in (
        (device, "fp32", 16, 60),
        (device, "bf16", 16, 60),
        (device, "fp32", 128, 60),
        (device, "bf16", 128, 60),
        ("cpu", "fp32", 16, 8),
    ):
        cfg = TrainerConfig(
            max_steps=steps,
            n_evaluations=1,
            precision=precision,
            batch_size=batch,
            batch_tokens=8192 * max(1, batch // 16),
        )
        history = fit(minilm(folder, place), pairs, _no_metrics, cfg=cfg)
        print(f"train {place} {precision} batch {batch}: {history.pairs_per_s:.0f} pairs/s")


if __name__ == "__main__":
    main()
