"""Compute the numbers of the data report from the tables, the training pairs and their texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd

from reranker.data import Tables
from reranker.data.draws import IntArray, bits
from reranker.reports.data.distributions import (
    Distribution,
    Truncation,
    auc,
    distribution,
    truncation,
)
from reranker.reports.data.funnel import Step, funnel
from reranker.reports.data.pair_texts import PAIR, PairTexts, read_texts
from reranker.sampling import Pairs

# Pairs whose tokens are counted, which takes seconds. With 12 pairs per user these are 1,666
# users, so a fraction has a 95 % margin of 2.4 points even if all pairs of a user are alike.
MAX_MEASURED = 20_000
N_EXAMPLES = 5
MAX_NEGATIVES = 8  # per example


class TokenCounter(Protocol):
    """The methods of an encoder that the data report needs."""

    @property
    def max_tokens(self) -> int:
        """Tokens that the model takes of context and book together."""

    def count_tokens(self, texts: list[str]) -> IntArray:
        """Return (n_texts,) tokens of each text, without special tokens."""

    def kept_tokens(
        self, query_lengths: IntArray, candidate_lengths: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Return (n_pairs,) tokens of contexts and of book texts that truncation keeps."""


@dataclass(frozen=True)
class Source:
    """The pairs of one source: the positives, or the negatives of one sampler.

    Attributes:
        name: `positive`, or the sampler's name.
        n_pairs: Number of pairs.
        popularity: Known ratings of a pair's book by *other* users.
        popularity_auc: AUC of popularity as a scorer of the positives against these negatives;
            0.5 means that popularity is no shortcut. None for the positives.
    """

    name: str
    n_pairs: int
    popularity: Distribution
    popularity_auc: float | None


@dataclass(frozen=True)
class Example:
    """A context, a positive, and its negatives as (source, text); n_more of them are left out."""

    user_id: str
    context: str
    positive: str
    negatives: list[tuple[str, str]]
    n_more: int


@dataclass(frozen=True)
class DataSummary:
    """The numbers of the data report.

    Attributes:
        counts: Counts of the stages and of the audit, as `stage/name`.
        funnel: The same from raw rows to refined pairs, in order.
        n: Numbers of pairs, positives, negatives, users, books, contexts, duplicate_pairs, and of
            the catalogue_books.
        sources: Positives, then negatives by source.
        per_user: Distributions of `positives` and `negatives` over the users in the pairs.
        chars: Distributions of the characters of `user_ctx`, `book_text` and `pair` over pairs.
        tokens: The same for tokens without special tokens, over the measured pairs.
        truncation: What the model does not see.
        n_null, n_blank: Missing values by column of the pairs file.
        books: Fractions of the catalogue's books whose text was `given` or `rendered`, and that
            have `genres` and so on.
        examples: A few groups.
    """

    counts: dict[str, int]
    funnel: list[Step]
    n: dict[str, int]
    sources: list[Source]
    per_user: dict[str, Distribution]
    chars: dict[str, Distribution]
    tokens: dict[str, Distribution]
    truncation: Truncation
    n_null: dict[str, int]
    n_blank: dict[str, int]
    books: dict[str, float]
    examples: list[Example]


def summarise(
    tables: Tables, pairs: Pairs, audit_counts: Mapping[str, int], *, encoder: TokenCounter
) -> DataSummary:
    """Return the numbers of the data report, from the pairs' codes and their file.

    All pairs are used, except for tokens: these are counted for all pairs of some users, who are
    chosen by a hash of their id, up to MAX_MEASURED pairs (but at least one user). The result does
    not depend on the machine.

    Args:
        tables: The tables that the pairs were made from.
        pairs: The training pairs.
        audit_counts: Rows that the leakage audit checked, by check.
        encoder: Counts and truncates tokens.
    """
    codes = pairs.codes
    user, label = codes["user"].to_numpy(), codes["label"].to_numpy()
    hashed = _hashed_users(tables, user)
    measured_users = _measured_users(user, hashed)
    measured = np.isin(user, measured_users)
    starts = _example_rows(codes, hashed[:N_EXAMPLES])
    shown = np.concatenate([np.arange(low, high) for low, high in starts])
    texts = read_texts(pairs.path, user, encoder.count_tokens, measured=measured, shown=shown)
    n_rows = {"positives": label > 0, "negatives": label == 0}
    n_users = len(tables.users)
    per_user = {name: np.bincount(user[rows], minlength=n_users) for name, rows in n_rows.items()}
    context, book = (texts.tokens[name] for name in PAIR)
    return DataSummary(
        counts=_counts(tables=tables.counts, pairs=pairs.counts, audit=audit_counts),
        funnel=funnel(tables.counts, pairs.counts),
        n=_sizes(codes, texts.context, len(tables.books)),
        sources=_sources(tables, codes),
        per_user={name: distribution(n[hashed]) for name, n in per_user.items()},
        chars=_lengths(texts.chars),
        tokens=_lengths(texts.tokens),
        truncation=truncation(
            (context, book),
            encoder.kept_tokens(context, book),
            max_tokens=encoder.max_tokens,
            n_users=len(measured_users),
        ),
        n_null=texts.n_null,
        n_blank=texts.n_blank,
        books=_book_fractions(tables),
        examples=[_example(tables, codes, low, high, texts=texts) for low, high in starts],
    )


def metrics(summary: DataSummary) -> dict[str, float]:
    """Return the numbers as flat metrics `data/…`, all finite."""
    groups: dict[str, Mapping[str, float]] = {
        "n_null": summary.n_null,
        "n_blank": summary.n_blank,
        "truncation": vars(summary.truncation),
        "books": {f"{name}_fraction": value for name, value in summary.books.items()},
    }
    lengths = {"per_user": summary.per_user, "chars": summary.chars, "tokens": summary.tokens}
    for group, named in lengths.items():
        groups |= {f"{group}/{name}": values.stats() for name, values in named.items()}
    for source in summary.sources:
        groups[f"source/{source.name}"] = {
            "n_pairs": source.n_pairs,
            "pair_fraction": source.n_pairs / summary.n["pairs"],
        }
        groups[f"source/{source.name}/popularity"] = source.popularity.stats()
    flat = {f"{g}/{name}": value for g, values in groups.items() for name, value in values.items()}
    flat |= {f"n_{name}": n for name, n in summary.n.items()}
    aucs = {f"source/{s.name}/popularity_auc": s.popularity_auc for s in summary.sources}
    flat |= {key: value for key, value in aucs.items() if value is not None}
    return {f"data/{key}": float(value) for key, value in (summary.counts | flat).items()}


def _counts(**stages: Mapping[str, int]) -> dict[str, int]:
    return {
        f"{stage}/{name}": int(n) for stage, counts in stages.items() for name, n in counts.items()
    }


def _sizes(codes: pd.DataFrame, context: IntArray, n_books: int) -> dict[str, int]:
    book, label = codes["book"].to_numpy(), codes["label"].to_numpy()
    pair = np.sort(context.astype(np.int64) * n_books + book)
    n_positives = int((label > 0).sum())
    return {
        "pairs": len(codes),
        "positives": n_positives,
        "negatives": len(codes) - n_positives,
        "users": codes["user"].nunique(),
        "books": codes["book"].nunique(),
        "contexts": int(context[-1]) + 1,
        "duplicate_pairs": int((np.diff(pair) == 0).sum()),
        "catalogue_books": n_books,
    }


def _lengths(lengths: Mapping[str, IntArray]) -> dict[str, Distribution]:
    both = {**lengths, "pair": lengths["user_ctx"] + lengths["book_text"]}
    return {name: distribution(values) for name, values in both.items()}


def _sources(tables: Tables, codes: pd.DataFrame) -> list[Source]:
    """Return the positives, then the negatives of every source, sorted by name."""
    name = source_names(codes)
    label = codes["label"].to_numpy()
    popularity = popularity_by_others(tables, codes)
    positive = popularity[label > 0]
    out = [Source("positive", len(positive), distribution(positive), None)]
    for source in sorted(set(name.cat.categories) - {"positive"}):
        drawn = popularity[(name == source).to_numpy()]
        if len(drawn):
            out.append(Source(source, len(drawn), distribution(drawn), auc(positive, drawn)))
    return out


def source_names(codes: pd.DataFrame) -> pd.Series:
    """Return (n_pairs,) the source of every pair; `uniform` for negatives if there is no column."""
    if "source" in codes:
        return codes["source"].astype("category")
    is_negative = (codes["label"] == 0).astype(np.int8)
    names = pd.Categorical.from_codes(is_negative, categories=["positive", "uniform"])
    return pd.Series(names, index=codes.index)


def popularity_by_others(tables: Tables, codes: pd.DataFrame) -> IntArray:
    """Return (n_pairs,) known ratings of a pair's book by other users.

    The user's own rating would reveal the label.
    """
    known, n_books = tables.known(), len(tables.books)
    n_ratings = np.bincount(known["book"], minlength=n_books)
    rated, pair = (
        f["user"].to_numpy().astype(np.int64) * n_books + f["book"].to_numpy()
        for f in (known, codes)
    )
    # `rated` is sorted, because histories are sorted by (user, book).
    place = np.minimum(np.searchsorted(rated, pair), len(rated) - 1)
    return n_ratings[codes["book"].to_numpy()] - (rated[place] == pair)


def _book_fractions(tables: Tables) -> dict[str, float]:
    books = tables.books
    given = tables.counts["books_with_given_text"] / len(books)
    blank = float((books["book_text"].str.strip() == "").mean())
    columns = ("description", "genres", "authors", "series")
    filled = {name: float((books[name].str.strip() != "").mean()) for name in columns}
    return {"given": given, "rendered": 1 - given - blank} | filled


def _hashed_users(tables: Tables, user: IntArray) -> IntArray:
    """Return the users in the pairs, sorted by a hash of their ids."""
    present = np.unique(user)
    keys = tables.users["key"].to_numpy()[present]
    return present[np.argsort(bits(0, "data report", keys), kind="stable")]


def _measured_users(user: IntArray, hashed: IntArray) -> IntArray:
    """Return the first users with at most MAX_MEASURED pairs together, but at least one user."""
    total = np.cumsum(np.bincount(user)[hashed])
    return hashed[: max(1, int(np.searchsorted(total, MAX_MEASURED, side="right")))]


def _example_rows(codes: pd.DataFrame, users: IntArray) -> list[tuple[int, int]]:
    """Return first and last row + 1 of each user's first group: a positive and its negatives."""
    user, label = codes["user"].to_numpy(), codes["label"].to_numpy()
    starts, ends = (np.searchsorted(user, users, side=side) for side in ("left", "right"))
    out = []
    for low, high in zip(starts, ends, strict=True):
        positives = np.flatnonzero(label[low:high] > 0)
        end = low + positives[1] if len(positives) > 1 else high
        out.append((int(low + positives[0]), int(end)))
    return out


def _example(
    tables: Tables, codes: pd.DataFrame, low: int, high: int, *, texts: PairTexts
) -> Example:
    source = source_names(codes.iloc[low:high]).tolist()
    context, positive = texts.shown[low]
    negatives = [(source[row - low], texts.shown[row][1]) for row in range(low + 1, high)]
    [user_id] = tables.user_ids(codes["user"].to_numpy()[[low]])
    n_more = max(0, len(negatives) - MAX_NEGATIVES)
    return Example(str(user_id), context, positive, negatives[:MAX_NEGATIVES], n_more)
