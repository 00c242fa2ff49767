"""Tokenise each text once, and pack pairs without padding as the tokenizer would join them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ModelError

# Texts per call of the tokenizer: its lists stay below 10 MB.
TEXTS_AT_ONCE = 1024

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Tokens:
    """The token ids of texts, untruncated and without special tokens.

    Attributes:
        ids: (n_tokens,) int32 ids of all texts, concatenated.
        start: (n_texts + 1,) int64; text i is `ids[start[i]:start[i + 1]]`.
    """

    ids: IntArray
    start: IntArray

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def lengths(self) -> IntArray:
        """The (n_texts,) int64 numbers of tokens."""
        return np.diff(self.start)


@dataclass(frozen=True)
class Template:
    """How a tokenizer joins a query and a candidate.

    Attributes:
        before, between, after: (n,) int64 ids of the special tokens before the query, between
            query and candidate, and after the candidate.
        types: The token types of before, query, between, candidate and after.
        max_tokens: Maximum tokens of query and candidate together, without special tokens.
        keeps_end: Whether truncation removes tokens at the beginning of a text.
    """

    before: IntArray
    between: IntArray
    after: IntArray
    types: tuple[int, ...]
    max_tokens: int
    keeps_end: bool

    @property
    def n_special(self) -> int:
        return len(self.before) + len(self.between) + len(self.after)


@dataclass(frozen=True)
class Batch:
    """Packed pairs: segments of tokens, each of which attends to itself and at most one other.

    Attributes:
        ids: (n_tokens,) int64 token ids.
        positions: (n_tokens,) int64 positions, from 0 in every pair. A segment that attends to a
            context continues with the position after the context's last.
        types: (n_tokens,) int64 token types.
        start: (n_segments + 1,) int64; segment s is the rows `start[s]:start[s + 1]`.
        context: (n_segments,) int64; the other segment to which segment s attends, or -1.
        pair: (n_pairs,) int64; the segment whose first token is the [CLS] of the pair.
    """

    ids: IntArray
    positions: IntArray
    types: IntArray
    start: IntArray
    context: IntArray
    pair: IntArray

    @property
    def n_pairs(self) -> int:
        return len(self.pair)

    @property
    def n_tokens(self) -> int:
        return len(self.ids)


def tokenise(tokenizer: Any, texts: Sequence[str]) -> Tokens:
    """Return the tokens of every text, untruncated and without special tokens."""
    lengths: list[int] = []
    parts: list[IntArray] = [np.empty(0, dtype=np.int32)]
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        tokens = tokenizer(
            list(texts[start : start + TEXTS_AT_ONCE]),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # no warning about texts longer than the model's maximum
        )["input_ids"]
        lengths += [len(ids) for ids in tokens]
        parts += [np.array(ids, dtype=np.int32) for ids in tokens]
    return Tokens(np.concatenate(parts), np.cumsum([0, *lengths], dtype=np.int64))


def template(tokenizer: Any) -> Template:
    """Return how a tokenizer joins a query and a candidate, inferred from one joined pair.

    Raises:
        ModelError: The tokenizer is not a fast one; only fast ones report to which text each
            token belongs.
    """
    if not tokenizer.is_fast:
        raise ModelError(
            f"{type(tokenizer).__name__} is not a fast tokenizer, so its pairs cannot be packed. "
            "Save the weights with a tokenizer.json, or choose other weights."
        )
    joined = tokenizer("a", "b", return_token_type_ids=True)
    side = np.array([-1 if s is None else s for s in joined.sequence_ids(0)])
    ids, types = np.array(joined["input_ids"], dtype=np.int64), joined["token_type_ids"]
    query, candidate = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    edges = [0, query[0], query[-1] + 1, candidate[0], candidate[-1] + 1, len(ids)]
    uses_types = "token_type_ids" in tokenizer.model_input_names
    return Template(
        before=ids[: query[0]],
        between=ids[query[-1] + 1 : candidate[0]],
        after=ids[candidate[-1] + 1 :],
        types=tuple(int(types[a]) if uses_types and a < b else 0 for a, b in pairwise(edges)),
        max_tokens=int(tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(pair=True)),
        keeps_end=tokenizer.truncation_side == "left",
    )


def kept_longest_first(
    query: IntArray, candidate: IntArray, max_tokens: int
) -> tuple[IntArray, IntArray]:
    """Return the tokens of each side that the tokenizers' `longest_first` truncation keeps.

    The longer side is truncated first. If both sides have more than half of max_tokens, each keeps
    half; the longer side (the candidate if they are equal) keeps the odd token.

    Args:
        query: (n_pairs,) tokens of the queries.
        candidate: (n_pairs,) tokens of the candidates.
        max_tokens: Maximum of both together.

    Returns:
        (n_pairs,) tokens of the queries and (n_pairs,) tokens of the candidates.
    """
    short, long = np.minimum(query, candidate), np.maximum(query, candidate)
    over = short + long > max_tokens
    half = max_tokens // 2
    new_short = np.where(over, np.minimum(short, half), short)
    new_long = np.where(over, max_tokens - new_short, long)
    swapped = query > candidate
    return np.where(swapped, new_long, new_short), np.where(swapped, new_short, new_long)


def kept_shared(query: IntArray, candidate: IntArray, max_tokens: int) -> tuple[IntArray, IntArray]:
    """Return the tokens of each side that are kept if pairs share their query.

    The query keeps at most half of max_tokens, whatever the candidate, so that it is the same in
    all its pairs. The candidate keeps at most the rest. Arguments and shapes are those of
    `kept_longest_first`.
    """
    new_query = np.minimum(query, max_tokens // 2)
    return new_query, np.minimum(candidate, max_tokens - new_query)


def assemble(
    form: Template, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
) -> Batch:
    """Return the pairs as the tokenizer would join and truncate them, one segment each.

    Args:
        query: (n_pairs,) rows of `queries`.
        candidate: (n_pairs,) rows of `candidates`.
    """
    n_query, n_candidate = kept_longest_first(
        queries.lengths[query], candidates.lengths[candidate], form.max_tokens
    )
    n = len(query)
    parts = [
        _constant(form.before, n),
        _rows(queries, query, n_query, keeps_end=form.keeps_end),
        _constant(form.between, n),
        _rows(candidates, candidate, n_candidate, keeps_end=form.keeps_end),
        _constant(form.after, n),
    ]
    ids, types, start = _interleave(parts, form.types)
    return Batch(ids, _count(start), types, start, np.full(n, -1), np.arange(n))


def assemble_shared(
    form: Template, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
) -> Batch:
    """Return the pairs with each distinct query once: first the contexts, then one segment a pair.

    The segment of a context is the query and the special tokens between query and candidate. The
    segment of a pair is [CLS], the candidate and the final special tokens. The two together have
    the ids, positions and types of the joined pair, truncated by `kept_shared`.

    Args:
        query: (n_pairs,) rows of `queries`.
        candidate: (n_pairs,) rows of `candidates`.
    """
    distinct, first, context_of = np.unique(query, return_index=True, return_inverse=True)
    n_query, n_candidate = kept_shared(
        queries.lengths[query], candidates.lengths[candidate], form.max_tokens
    )
    n_distinct, n_pairs, n_before = len(distinct), len(query), len(form.before)
    types = form.types
    context = _interleave(
        [
            _rows(queries, distinct, n_query[first], keeps_end=form.keeps_end),
            _constant(form.between, n_distinct),
        ],
        types[1:3],
    )
    pair = _interleave(
        [
            _constant(form.before, n_pairs),
            _rows(candidates, candidate, n_candidate, keeps_end=form.keeps_end),
            _constant(form.after, n_pairs),
        ],
        (types[0], types[3], types[4]),
    )
    position = _count(pair[2])
    after_context = np.repeat(n_query + len(form.between), np.diff(pair[2]))
    positions = [
        _count(context[2]) + n_before,
        position + np.where(position < n_before, 0, after_context),
    ]
    return Batch(
        ids=np.concatenate([context[0], pair[0]]),
        positions=np.concatenate(positions),
        types=np.concatenate([context[1], pair[1]]),
        start=np.concatenate([context[2], context[2][-1] + pair[2][1:]]),
        context=np.concatenate([np.full(n_distinct, -1), context_of]),
        pair=n_distinct + np.arange(n_pairs),
    )


def _rows(
    tokens: Tokens, text: IntArray, n_kept: IntArray, *, keeps_end: bool
) -> tuple[IntArray, IntArray]:
    """Return the first (or last) `n_kept` tokens of each text, concatenated, and `n_kept`."""
    first = tokens.start[text + 1] - n_kept if keeps_end else tokens.start[text]
    ends = np.cumsum(n_kept)
    return tokens.ids[np.arange(n_kept.sum()) + np.repeat(first - (ends - n_kept), n_kept)], n_kept


def _constant(ids: IntArray, n: int) -> tuple[IntArray, IntArray]:
    return np.tile(ids, n), np.full(n, len(ids))


def _interleave(
    parts: Sequence[tuple[IntArray, IntArray]], types: Sequence[int]
) -> tuple[IntArray, IntArray, IntArray]:
    """Concatenate row i of every part, for all i; return ids, types and the starts of the rows."""
    lengths = np.stack([n for _, n in parts], axis=1)
    ends = np.cumsum(lengths).reshape(lengths.shape)
    ids = np.empty(lengths.sum(), dtype=np.int64)
    for column, (values, n) in enumerate(parts):
        own = np.cumsum(n) - n
        ids[np.arange(n.sum()) + np.repeat(ends[:, column] - n - own, n)] = values
    all_types = np.repeat(np.tile(np.array(types, dtype=np.int64), len(lengths)), lengths.ravel())
    return ids, all_types, np.concatenate([[0], np.cumsum(lengths.sum(axis=1))]).astype(np.int64)


def _count(start: IntArray) -> IntArray:
    """Return 0, 1, 2, … within each segment."""
    return np.arange(start[-1]) - np.repeat(start[:-1], np.diff(start))
