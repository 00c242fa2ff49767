"""Choose a few users of streamed pairs by a hash of their ids, and keep some of their texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Hashes = npt.NDArray[np.uint64]
MAX_TEXTS = {1: 2, 0: 6}  # texts of an example by label


@dataclass(frozen=True)
class Example:
    """A user's first context and some of its book texts, by label."""

    user_id: str
    context: str
    texts: dict[int, list[str]] = field(default_factory=lambda: {1: [], 0: []})


class Examples:
    """The examples of the users with the lowest hashes; the order of the rows does not matter.

    A user who leaves the lowest never returns, because the others' hashes only get lower. So all
    rows of the users that remain have been seen.
    """

    def __init__(self, n_users: int) -> None:
        self.n_users = n_users
        self.found: dict[int, tuple[int, Example]] = {}  # user -> (context, example), as hashes

    def add(self, table: pa.Table, user: Hashes, context: Hashes) -> None:
        """Add rows, with the hashes of their users and contexts."""
        lowest = sorted({*self.found, *np.unique(user)[: self.n_users].tolist()})[: self.n_users]
        self.found = {key: self.found[key] for key in lowest if key in self.found}
        for key in lowest:
            rows = np.flatnonzero(user == np.uint64(key))
            if len(rows) and key not in self.found:
                first = table.slice(rows[0], 1).to_pylist()[0]
                example = Example(first["user_id"], first["user_ctx"])
                self.found[key] = int(context[rows[0]]), example
            if len(rows):
                own, example = self.found[key]
                _add_texts(example, table, rows[context[rows] == np.uint64(own)])

    def all(self) -> Sequence[Example]:
        """Return the examples, sorted by hash."""
        return [example for _, (_, example) in sorted(self.found.items())]


def _add_texts(example: Example, table: pa.Table, rows: npt.NDArray[np.int64]) -> None:
    label = table["label"].to_numpy()[rows]
    for value, limit in MAX_TEXTS.items():
        texts = example.texts[value]
        chosen = rows[label == value][: limit - len(texts)]
        texts += table["book_text"].take(pa.array(chosen, pa.int64())).to_pylist()
