"""Pairs scored per second by models of the store, in turn: what the layers that a student lacks save.

python experiments/benchmarks/students.py models:/book-reranker/1 models:/book-reranker/2      a teacher, its student

Each is a model URI or a folder of weights. Pairs and rounds are those of inference.py; ratios are to the first model.
The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from inference import ROOT, make_texts, print_table, rounds, summarise, tasks
from scorers import Score

MAX_LENGTH = 256  # of weights that lie in no bundle


def scorer(name: str) -> Score:
    """The model's scores, in fp32."""
    from reranker.model import load
    from reranker.serving.teacher_lookup import find_teacher

    found = find_teacher(name, max_length=MAX_LENGTH)
    assert found is not None
    return load(found).score


def main() -> None:
    """Measure every model on both tasks, print tables, then one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--repeats", type=int, default=5, help="rounds of every model")
    parser.add_argument(
        "--cache",
        type=Path,
        default=ROOT / "outputs" / "cache",
        help="where the demo world is kept",
    )
    args = parser.parse_args()
    sides = {name: scorer(name) for name in args.models}
    result = {}
    for task, pairs in tasks(make_texts(args.cache), 100, 300).items():
        spent, scores = rounds(sides, pairs, args.repeats)
        result[task] = summarise(spent, scores, len(pairs[0]))
        print_table(
            f"{task}: {len(pairs[0])} pairs, medians of {args.repeats} rounds", result[task]
        )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
