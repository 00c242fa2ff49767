"""Measure the pairs per second of trained models, for example of a teacher and its student.

    python experiments/benchmarks/students.py models:/book-reranker/1 models:/book-reranker/2

Each argument is a model URI or a folder of weights. Pairs and rounds are those of inference.py;
ratios are to the first model. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from arithmetic import operations, peak_per_s
from inference import ROOT, make_texts, print_table, rounds, summarise, tasks

if TYPE_CHECKING:
    from reranker.model import Encoder

MAX_LENGTH = 256  # for weights that are not in a bundle


def load_model(name: str) -> Encoder:
    """Return the encoder of a model URI or a folder, which scores in fp32."""
    from reranker.model import load
    from reranker.serving.model_lookup import find_teacher

    found = find_teacher(name, max_length=MAX_LENGTH)
    assert found is not None
    return load(found)


def main() -> None:
    """Measure every model on both tasks, print tables and then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cache = ROOT / "outputs" / "cache"
    parser.add_argument("models", nargs="+")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of every model")
    parser.add_argument("--cache", type=Path, default=cache, help="folder of the cached demo world")
    args = parser.parse_args()
    encoders = {name: load_model(name) for name in args.models}
    sides = {name: encoder.score for name, encoder in encoders.items()}
    result, peak = {}, peak_per_s()
    for task, pairs in tasks(make_texts(args.cache), 100, 300).items():
        spent, scores = rounds(sides, pairs, args.repeats)
        costs = {n: operations(encoder, *pairs, is_stock=False) for n, encoder in encoders.items()}
        result[task] = summarise(spent, scores, costs, peak)
        title = f"{task}: {len(pairs[0])} pairs, medians of {args.repeats} rounds"
        print_table(title, result[task])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
