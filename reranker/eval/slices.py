"""NDCG@10 by slices of users and of positives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from reranker.config import EvalConfig
from reranker.data import Tables
from reranker.data.draws import BoolArray, FloatArray, IntArray
from reranker.eval import metrics, statistics
from reranker.eval.eval_set import EvalSet

N_DECILES = 10
Bin = tuple[str, str, int, BoolArray]  # slice, bin, step, which positives


class Truncates(Protocol):
    """The part of `model.Encoder` that knows which pairs it truncates."""

    def count_tokens(self, texts: Sequence[str]) -> IntArray: ...

    def truncates(self, query_lengths: IntArray, candidate_lengths: IntArray) -> BoolArray: ...


def truncated_rows(eval_set: EvalSet, encoder: Truncates) -> BoolArray:
    """Return (n_rows,) whether the encoder truncates the row's context or book text.

    Each distinct text is tokenised once.
    """
    user, book = eval_set.rows["user"].to_numpy(), eval_set.rows["book"].to_numpy()
    contexts, context_row = np.unique(eval_set.context, return_inverse=True)
    candidates = eval_set.contexts.candidates(eval_set.tables.books, user, book)
    texts, text_row = np.unique(candidates.to_numpy(zero_copy_only=False), return_inverse=True)
    n_context = encoder.count_tokens([eval_set.contexts.text[i] for i in contexts])
    n_book = encoder.count_tokens(texts.tolist())
    return encoder.truncates(n_context[context_row], n_book[text_row])


def describe_positives(
    tables: Tables, rows: pd.DataFrame, truncated: BoolArray | None
) -> pd.DataFrame:
    """Return a row per positive, indexed by its position in `rows`.

    Columns: user, n_context_books (the user's), popularity (the book's known ratings),
    same_author (whether an author of the book wrote a context book), and truncated if it is given.

    Args:
        rows: user, book, label of the candidates.
        truncated: (n_rows,) from `truncated_rows`.
    """
    place = np.flatnonzero(rows["label"] > 0)
    positives = rows.iloc[place][["user", "book"]].set_axis(place)
    popularity = np.bincount(tables.known()["book"], minlength=len(tables.books))
    out = pd.DataFrame(
        {
            "user": positives["user"],
            "n_context_books": count_context_books(tables)[positives["user"]],
            "popularity": popularity[positives["book"]],
            "same_author": _same_author(tables, positives),
        }
    )
    return out if truncated is None else out.assign(truncated=truncated[place])


def count_context_books(tables: Tables) -> IntArray:
    """Return the (n_users,) number of context books of every user."""
    h = tables.histories
    return np.bincount(h["user"][~h["is_target"]], minlength=len(tables.users))


def _same_author(tables: Tables, positives: pd.DataFrame) -> BoolArray:
    names = tables.books["authors"].str.split(", ").explode()
    names = names[names != ""]
    wrote = pd.DataFrame({"book": names.index.astype(np.int32), "author": pd.factorize(names)[0]})
    h = tables.histories
    context = h[~h["is_target"] & h["user"].isin(positives["user"])][["user", "book"]].merge(
        wrote, on="book"
    )
    offered = positives.assign(row=np.arange(len(positives))).merge(wrote, on="book")
    n_authors = len(wrote) + 1
    read, candidate = (
        f["user"].to_numpy().astype(np.int64) * n_authors + f["author"] for f in (context, offered)
    )
    out = np.zeros(len(positives), dtype=bool)
    out[offered["row"][candidate.isin(read)]] = True
    return out


def user_columns(
    tables: Tables, users: IntArray, positives: pd.DataFrame
) -> dict[str, FloatArray | IntArray]:
    """Return the (n_users,) columns that slices are based on.

    n_context_books, and over the positives of a user's list mean_target_popularity (known ratings;
    NaN without a positive), has_same_author, n_cold (positives without known ratings).

    Args:
        users: Codes of the users of one list kind.
        positives: From `describe_positives`, for that kind.
    """
    by_user = positives.assign(cold=positives["popularity"] == 0).groupby("user")
    return {
        "n_context_books": count_context_books(tables)[users],
        "mean_target_popularity": by_user["popularity"].mean().reindex(users).to_numpy(),
        "has_same_author": by_user["same_author"].any().reindex(users, fill_value=False).to_numpy(),
        "n_cold": by_user["cold"].sum().reindex(users, fill_value=0).to_numpy(),
    }


def evaluate_slices(
    rows: pd.DataFrame, positives: pd.DataFrame, scores: Mapping[str, FloatArray], cfg: EvalConfig
) -> pd.DataFrame:
    """Return the mean NDCG@10 of every scorer in every bin of every slice of one list kind.

    A bin holds positives, not users. A list keeps the positives of the bin and all its negatives;
    its other positives are dropped, and the rest is ranked again. A user without a positive in the
    bin is left out. A bin with few positives per user therefore has a lower chance level than the
    complete lists. Compare scorers within a bin, or with its `chance`.

    history_length: context books of the user, in powers of two. target_popularity: deciles of the
    known ratings of the positives; equal ones share a decile. same_author: positives by an author
    of a context book; without_same_author: the lists without them. cold_books: positives without
    known ratings, and the others. truncated: positives whose pair the model truncates, and the
    others.

    Args:
        rows: user, label of one list kind.
        positives: From `describe_positives`, for these rows.
        scores: Scorer name -> (n_rows,) scores.

    Returns:
        scorer, slice, bin, step, n_users, ndcg_10, low, high (95 % over users), chance. Bins are
        in ascending order.
    """
    out: list[dict[str, object]] = []
    user, label = rows["user"].to_numpy(), rows["label"].to_numpy()
    for name, text, step, chosen in _bins(positives):
        keep = (label == 0) & np.isin(user, positives["user"][chosen])
        keep[positives.index[chosen]] = True
        part = user[keep], label[keep]
        row = {"slice": name, "bin": text, "step": step, "n_users": len(np.unique(part[0]))}
        chance = float(_ndcg_10(*part, np.zeros(len(part[0]))).mean())
        for scorer, values in scores.items():
            mean, low, high = statistics.bootstrap_mean(
                _ndcg_10(*part, values[keep]), n_resamples=cfg.n_bootstrap, seed=cfg.seed
            )
            value = {"ndcg_10": mean, "low": low, "high": high, "chance": chance}
            out.append({"scorer": scorer, **row, **value})
    return pd.DataFrame(out)


def _ndcg_10(user: IntArray, label: IntArray, score: FloatArray) -> FloatArray:
    return metrics.ndcg(metrics.rank(user, label, score), k=10)


def _bins(positives: pd.DataFrame) -> Iterator[Bin]:
    """Yield every bin that has a positive."""
    same, cold = positives["same_author"].to_numpy(), (positives["popularity"] == 0).to_numpy()
    both: list[Bin] = [("same_author", "yes", 1, same), ("without_same_author", "all", 0, ~same)]
    both += [("cold_books", "yes", 1, cold), ("cold_books", "no", 0, ~cold)]
    if "truncated" in positives:
        cut = positives["truncated"].to_numpy()
        both += [("truncated", "yes", 1, cut), ("truncated", "no", 0, ~cut)]
    yield from _history_bins(positives["n_context_books"].to_numpy())
    yield from _popularity_bins(positives["popularity"].to_numpy())
    yield from (one for one in both if one[3].any())


def _history_bins(n_books: IntArray) -> Iterator[Bin]:
    """Yield 1, 2-3, 4-7, …: fixed edges, so that runs on other data have the same steps."""
    n_books = np.maximum(n_books, 1)  # lists of a pairs file have no context books
    lower = 1 << np.floor(np.log2(n_books)).astype(np.int64)
    for low in np.unique(lower).tolist():
        yield "history_length", f"{low}-{2 * low - 1}" if low > 1 else "1", low, lower == low


def _popularity_bins(n_ratings: IntArray) -> Iterator[Bin]:
    decile = 1 + ((rankdata(n_ratings) - 0.5) * N_DECILES / max(1, len(n_ratings))).astype(np.int64)
    for step in np.unique(decile).tolist():
        mine = n_ratings[decile == step]
        yield (
            "target_popularity",
            f"{step} ({mine.min()}-{mine.max()} ratings)",
            step,
            decile == step,
        )
