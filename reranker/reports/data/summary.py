"""The data report: what a run's pairs are made of, in numbers. It is the seed's verification step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from reranker.data import Tables
from reranker.data.draws import IntArray, bits
from reranker.reports.data.distributions import Spread, Truncation, auc, spread, truncation
from reranker.reports.data.pair_texts import CountTokens, Texts, read_texts
from reranker.sampling import Pairs

# Pairs whose tokens are counted: 1,666 users at 12 pairs each, so that a share is known to 2.4 points (95 %) even where
# the pairs of a user are cut all or none, and a fast tokenizer needs seconds.
MAX_MEASURED = 20_000
N_EXAMPLES = 5
MAX_NEGATIVES = 8  # shown of an example
# What leaves with something else: rows in, less rows dropped for a reason of their own, less rows out.
WITH_OTHERS = {"ratings": "rated by dropped users", "books": "other editions of a kept book"}


@dataclass(frozen=True)
class Step:
    """A line of the funnel: how many of a unit came into a stage, went out, and were dropped, by reason."""

    stage: str
    unit: str
    n_in: int
    n_out: int
    dropped: dict[str, int]

    @property
    def kept(self) -> float:
        """The share that went on."""
        return self.n_out / self.n_in if self.n_in else 0.0


@dataclass(frozen=True)
class Source:
    """The pairs of one source: positive, or where a negative was drawn from.

    Attributes:
        popularity: How many known ratings by *other* users the book of a pair has.
        popularity_auc: Of popularity as a scorer of the positives against this source's negatives: at 0.5 there is no
            shortcut; None for the positives themselves.
    """

    name: str
    n_pairs: int
    popularity: Spread
    popularity_auc: float | None


@dataclass(frozen=True)
class Example:
    """A group: a context, a positive, and its negatives as (source, text); n_more negatives are not shown."""

    user_id: str
    context: str
    positive: str
    negatives: list[tuple[str, str]]
    n_more: int


@dataclass(frozen=True)
class DataSummary:
    """The numbers of the data report.

    Attributes:
        counts: Of the stages and of the audit, flat, as these gave them.
        funnel: The same in order, from raw rows to refined pairs.
        n: Pairs, positives, negatives, users, books, contexts, duplicate_pairs, and catalogue_books to choose from.
        sources: Positives, then negatives by source.
        per_user: Spread over the users in the pairs of `positives` and `negatives`.
        chars: Spread over pairs of the characters of `user_ctx`, `book_text` and `pair`.
        tokens: Likewise, of tokens over the measured pairs, special tokens left out.
        truncation: What the model does not see.
        n_null, n_blank: By column of the pairs file.
        books: Share of the catalogue's books whose text was `given`, was `rendered`, and that have `genres` and so on.
        examples: A handful of groups.
    """

    counts: dict[str, int]
    funnel: list[Step]
    n: dict[str, int]
    sources: list[Source]
    per_user: dict[str, Spread]
    chars: dict[str, Spread]
    tokens: dict[str, Spread]
    truncation: Truncation
    n_null: dict[str, int]
    n_blank: dict[str, int]
    books: dict[str, float]
    examples: list[Example]


def summarise(
    tables: Tables,
    pairs: Pairs,
    audit_counts: Mapping[str, int],
    tokens: CountTokens,
    *,
    max_tokens: int,
) -> DataSummary:
    """The numbers of the data report, from the pairs as they stand in codes and in the file.

    All pairs are looked at, but for tokens: those are counted for all pairs of some users, chosen by a hash of their
    id, of at most MAX_MEASURED pairs (and of one user at least). Nothing here depends on the machine.

    Args:
        audit_counts: Rows that the leakage audit checked, by check.
        tokens: Tokens of texts, without special tokens.
        max_tokens: Tokens that the model takes of context and book together.
    """
    codes = pairs.codes
    user, label = codes["user"].to_numpy(), codes["label"].to_numpy()
    hashed = _hashed_users(tables, user)
    measured = np.isin(user, _measured_users(user, hashed))
    starts = _example_rows(codes, hashed[:N_EXAMPLES])
    shown = np.concatenate([np.arange(low, high) for low, high in starts])
    texts = read_texts(pairs.path, user, tokens, measured=measured, shown=shown)
    n_rows = {"positives": label > 0, "negatives": label == 0}
    per_user = {
        name: np.bincount(user[rows], minlength=len(tables.users)) for name, rows in n_rows.items()
    }
    return DataSummary(
        counts=_counts(tables=tables.counts, pairs=pairs.counts, audit=audit_counts),
        funnel=funnel(tables.counts, pairs.counts),
        n=_sizes(codes, texts.context, len(tables.books)),
        sources=_sources(tables, codes),
        per_user={name: spread(n[hashed]) for name, n in per_user.items()},
        chars=_lengths(texts.chars),
        tokens=_lengths(texts.tokens),
        truncation=truncation(
            texts.tokens["user_ctx"], texts.tokens["book_text"], max_tokens, user[measured]
        ),
        n_null=texts.n_null,
        n_blank=texts.n_blank,
        books=_book_shares(tables),
        examples=[_example(tables, codes, low, high, texts) for low, high in starts],
    )


def metrics(summary: DataSummary) -> dict[str, float]:
    """The numbers as flat metrics `data/…`, all finite; positives have no popularity_auc."""
    groups: dict[str, Mapping[str, float]] = {
        "n_null": summary.n_null,
        "n_blank": summary.n_blank,
        "truncation": vars(summary.truncation),
        "books": {f"{name}_fraction": share for name, share in summary.books.items()},
    }
    spreads = {"per_user": summary.per_user, "chars": summary.chars, "tokens": summary.tokens}
    for group, named in spreads.items():
        groups |= {f"{group}/{name}": values.stats() for name, values in named.items()}
    for source in summary.sources:
        groups[f"source/{source.name}"] = {
            "n_pairs": source.n_pairs,
            "pair_fraction": source.n_pairs / summary.n["pairs"],
        }
        groups[f"source/{source.name}/popularity"] = source.popularity.stats()
    flat = {
        f"{group}/{name}": value
        for group, values in groups.items()
        for name, value in values.items()
    }
    flat |= {f"n_{name}": n for name, n in summary.n.items()}
    flat |= {
        f"source/{s.name}/popularity_auc": s.popularity_auc
        for s in summary.sources
        if s.popularity_auc is not None
    }
    return {f"data/{key}": float(value) for key, value in (summary.counts | flat).items()}


def funnel(tables: Mapping[str, int], pairs: Mapping[str, int]) -> list[Step]:
    """Raw rows to tables, users to splits, train users and their positives to those in the pairs."""
    splits = {split: tables[f"users_{split}"] for split in ("dev", "test")}
    return [
        *_steps("tables", tables),
        Step("train users", "users", tables["users"], tables["users_train"], splits),
        *_steps("pairs", pairs),
    ]


def _steps(stage: str, counts: Mapping[str, int]) -> list[Step]:
    units = [key.removesuffix("_in") for key in counts if key.endswith("_in")]
    return [_step(stage, unit, counts) for unit in units if unit in counts]


def _step(stage: str, unit: str, counts: Mapping[str, int]) -> Step:
    prefix = f"{unit}_dropped_"
    dropped = {key.removeprefix(prefix): n for key, n in counts.items() if key.startswith(prefix)}
    reasons = {
        reason.replace("by_max", "over_max").replace("_", " "): n for reason, n in dropped.items()
    }
    rest = counts[f"{unit}_in"] - counts[unit] - sum(reasons.values())
    if rest > 0:
        reasons[WITH_OTHERS.get(unit, "for other reasons")] = rest
    return Step(stage, unit, counts[f"{unit}_in"], counts[unit], reasons)


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


def _lengths(lengths: Mapping[str, IntArray]) -> dict[str, Spread]:
    both = {**lengths, "pair": lengths["user_ctx"] + lengths["book_text"]}
    return {name: spread(values) for name, values in both.items()}


def _sources(tables: Tables, codes: pd.DataFrame) -> list[Source]:
    """The positives, then the negatives of every source, in order of their names."""
    name = source_names(codes)
    label = codes["label"].to_numpy()
    popularity = popularity_by_others(tables, codes)
    positive = popularity[label > 0]
    out = [Source("positive", len(positive), spread(positive), None)]
    for source in sorted(set(name.cat.categories) - {"positive"}):
        drawn = popularity[(name == source).to_numpy()]
        if len(drawn):
            out.append(Source(source, len(drawn), spread(drawn), auc(positive, drawn)))
    return out


def source_names(codes: pd.DataFrame) -> pd.Series:
    """The source of every pair, categorical; without such a column a negative is `uniform`."""
    if "source" in codes:
        return codes["source"].astype("category")
    names = pd.Categorical.from_codes(
        (codes["label"] == 0).astype(np.int8), categories=["positive", "uniform"]
    )
    return pd.Series(names, index=codes.index)


def popularity_by_others(tables: Tables, codes: pd.DataFrame) -> IntArray:
    """(n_pairs,) known ratings of a pair's book by other users: the pair's own would tell its label."""
    known, n_books = tables.known(), len(tables.books)
    n_ratings = np.bincount(known["book"], minlength=n_books)
    rated, asked = (
        f["user"].to_numpy().astype(np.int64) * n_books + f["book"].to_numpy()
        for f in (known, codes)
    )
    place = np.minimum(
        np.searchsorted(rated, asked), len(rated) - 1
    )  # histories are sorted by (user, book)
    return n_ratings[codes["book"].to_numpy()] - (rated[place] == asked)


def _book_shares(tables: Tables) -> dict[str, float]:
    books = tables.books
    given = tables.counts["books_with_given_text"] / len(books)
    blank = float((books["book_text"].str.strip() == "").mean())
    columns = ("description", "genres", "authors", "series")
    shares = {name: float((books[name].str.strip() != "").mean()) for name in columns}
    return {"given": given, "rendered": 1 - given - blank} | shares


def _hashed_users(tables: Tables, user: IntArray) -> IntArray:
    """The users in the pairs, in the order of a hash of their ids."""
    present = np.unique(user)
    keys = tables.users["key"].to_numpy()[present]
    return present[np.argsort(bits(0, "data report", keys), kind="stable")]


def _measured_users(user: IntArray, hashed: IntArray) -> IntArray:
    """The first of the hashed users whose pairs are at most MAX_MEASURED together; the first in any case."""
    total = np.cumsum(np.bincount(user)[hashed])
    return hashed[: max(1, int(np.searchsorted(total, MAX_MEASURED, side="right")))]


def _example_rows(codes: pd.DataFrame, users: IntArray) -> list[tuple[int, int]]:
    """First and last row + 1 of the first group of every user given: a positive, and rows up to the next."""
    user, label = codes["user"].to_numpy(), codes["label"].to_numpy()
    out = []
    for low, high in zip(
        np.searchsorted(user, users), np.searchsorted(user, users, side="right"), strict=True
    ):
        positives = np.flatnonzero(label[low:high] > 0)
        end = low + positives[1] if len(positives) > 1 else high
        out.append((int(low + positives[0]), int(end)))
    return out


def _example(tables: Tables, codes: pd.DataFrame, low: int, high: int, texts: Texts) -> Example:
    source = source_names(codes.iloc[low:high]).tolist()
    context, positive = texts.shown[low]
    negatives = [(source[row - low], texts.shown[row][1]) for row in range(low + 1, high)]
    user_id = str(tables.users["user_id"].iloc[int(codes["user"].iloc[low])])
    return Example(
        user_id,
        context,
        positive,
        negatives[:MAX_NEGATIVES],
        max(0, len(negatives) - MAX_NEGATIVES),
    )
