"""The leakage audit: it looks again, by another way than the code that built the pairs, and stops the run."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reranker.data import Contexts, Tables
from reranker.data.contexts import context_names, shows_book
from reranker.data.features import work_keys
from reranker.errors import LeakError
from reranker.sampling.pairs import Pairs


def audit(tables: Tables, contexts: Contexts, pairs: Pairs, *lists: pd.DataFrame) -> dict[str, int]:
    """Check pairs and frozen lists for answers that stand in their own question.

    Args:
        contexts: The contexts that pairs and lists are asked with.
        lists: Frames of frozen lists: user, book, label.

    Returns:
        Rows checked, by check.

    Raises:
        LeakError: A target stands in its own context (by id, by work, or by its title in the text), a negative was
            rated by its user, a pair repeats, a user has positives only, or a list user gave training pairs. The
            first offending user and book are named.
    """
    ranked = pd.concat([frame[["user", "book", "label"]] for frame in lists], ignore_index=True)
    asked = pd.concat([pairs.codes, ranked], ignore_index=True).drop_duplicates()
    targets = asked[asked["label"] > 0]
    _check_context_ids(tables, contexts, targets)
    _check_context_works(tables, contexts, targets)
    _check_context_titles(tables, contexts, targets)
    _check_negatives(tables, asked[asked["label"] == 0])
    _check_repeats(tables, pairs.codes)
    _check_folds(tables, pairs.codes, ranked)
    return {"pairs_checked": len(pairs.codes), "list_rows_checked": len(ranked), "targets_checked": len(targets)}


def _fail(tables: Tables, rows: pd.DataFrame, what: str) -> None:
    if len(rows):
        user, book = rows.iloc[0][["user", "book"]]
        user_id, book_id = tables.users["user_id"].iloc[user], tables.books["book_id"].iloc[book]
        raise LeakError(
            f"{len(rows)} {what} (first: user_id={user_id}, book_id={book_id}, title="
            f"{tables.books['title'].iloc[book]!r}). This leaks the answer; the run stops."
        )


def _check_context_ids(tables: Tables, contexts: Contexts, targets: pd.DataFrame) -> None:
    context = set(zip(contexts.rows["user"].tolist(), contexts.rows["book"].tolist(), strict=True))
    inside = [pair in context for pair in zip(targets["user"].tolist(), targets["book"].tolist(), strict=True)]
    _fail(tables, targets[inside], "targets stand in their own context")


def _check_context_works(tables: Tables, contexts: Contexts, targets: pd.DataFrame) -> None:
    work = work_keys(tables.books).to_numpy()
    left = contexts.rows[["user"]].assign(work=work[contexts.rows["book"]]).drop_duplicates()
    right = targets.assign(work=work[targets["book"]])
    _fail(tables, right.merge(left, on=["user", "work"]), "targets have another edition in their own context")


def _check_context_titles(tables: Tables, contexts: Contexts, targets: pd.DataFrame) -> None:
    """A title that another volume of the context shares (`Naruto #1`, `Naruto #2`) is no leak."""
    name = context_names(tables.books)
    allowed = set(zip(contexts.rows["user"].tolist(), [name[b] for b in contexts.rows["book"]], strict=True))
    leaked = [
        (u, name[b]) not in allowed and shows_book(contexts.text[u], name[b], contexts.template)
        for u, b in zip(targets["user"].tolist(), targets["book"].tolist(), strict=True)
    ]
    _fail(tables, targets[leaked], "targets have their title in the text of their own context")


def _check_negatives(tables: Tables, negatives: pd.DataFrame) -> None:
    rated = tables.histories[["user", "book"]]
    _fail(tables, negatives.merge(rated, on=["user", "book"]), "negatives were rated by their user")


def _check_repeats(tables: Tables, codes: pd.DataFrame) -> None:
    repeated = codes[codes.duplicated(["user", "book"])]
    _fail(tables, repeated, "pairs stand twice")


def _check_folds(tables: Tables, codes: pd.DataFrame, ranked: pd.DataFrame) -> None:
    fold = tables.users["fold"].to_numpy()
    _fail(tables, codes[fold[codes["user"]] != "train"], "pairs belong to users outside the train fold")
    _fail(tables, ranked[fold[ranked["user"]] == "train"], "list rows belong to train users")
    both = np.intersect1d(codes["user"], ranked["user"])
    _fail(tables, ranked[ranked["user"].isin(both)], "list rows belong to users who gave training pairs")
