"""Draw random functions and docstrings of a package, for reading: a seeded sample in Markdown.

    python experiments/draw_samples.py                      10 functions and 10 docstrings
    python experiments/draw_samples.py --seed 1 -n 5 ROOT   of another checkout

A review of such a sample says more about a code base than one of the files that its author likes
to show. The script needs only the standard library.
"""

from __future__ import annotations

import argparse
import ast
import random
from pathlib import Path

from codebase_metrics import DOCUMENTED, Checkout


def functions(checkout: Checkout) -> list[tuple[str, str]]:
    """Return the place and the source of every function of the package."""
    return [
        (
            f"{path}:{node.lineno}",
            ast.get_source_segment(checkout.text(path), node, padded=True) or "",
        )
        for path, node, _ in checkout.functions
    ]


def docstrings(checkout: Checkout) -> list[tuple[str, str]]:
    """Return the place and the text of every docstring of the package."""
    return [
        (f"{path}:{getattr(node, 'lineno', 1)} {getattr(node, 'name', 'module')}", text)
        for path, tree in checkout.trees.items()
        for node in ast.walk(tree)
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node))
    ]


def sample(found: list[tuple[str, str]], n: int, *, seed: int) -> list[tuple[str, str]]:
    """Return n of the entries in random order, or all of them where there are fewer."""
    return random.Random(seed).sample(found, min(n, len(found)))


def main() -> None:
    """Print the sample."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("root", nargs="?", type=Path, default=here, help="a checkout (this one)")
    parser.add_argument("-n", type=int, default=10, help="functions, and as many docstrings")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    checkout = Checkout(args.root)
    for title, found, language in (
        ("Functions", functions(checkout), "python"),
        ("Docstrings", docstrings(checkout), "text"),
    ):
        print(f"# {title}: {args.n} of {len(found)}, seed {args.seed}")
        for place, text in sample(found, args.n, seed=args.seed):
            print(f"\n## {place}\n\n```{language}\n{text}\n```")
        print()


if __name__ == "__main__":
    main()
