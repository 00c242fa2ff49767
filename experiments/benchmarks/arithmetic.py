"""Count the operations of a pair's matrix products, and measure how many a CPU does per second."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from reranker.model import Encoder

# The shape of the feed-forward layers, and one that suits the library best.
PEAK_SHAPES = ((2048, 384, 1536), (1024, 1024, 1024))
PEAK_S = 1.0  # seconds of repeated products per shape

Lengths = npt.NDArray[np.integer[Any]]


def peak_per_s() -> float:
    """Return the highest rate of fp32 matrix products on this CPU, in operations per second."""
    return max(_products_per_s(*shape) for shape in PEAK_SHAPES)


def _products_per_s(n: int, n_in: int, n_out: int) -> float:
    import torch

    x, weight = torch.ones(n, n_in), torch.ones(n_out, n_in)
    spent = []
    start = time.perf_counter()
    while not spent or time.perf_counter() - start < PEAK_S:
        begun = time.perf_counter()
        torch.nn.functional.linear(x, weight)
        spent.append(time.perf_counter() - begun)
    return 2 * n * n_in * n_out / min(spent)


def operations(
    encoder: Encoder, queries: Sequence[str], candidates: Sequence[str], *, is_stock: bool
) -> float:
    """Return the multiplications and additions in the matrix products of all pairs.

    Padding and the head are not counted. A stock model puts every token through every layer. Our
    encoder with `full` attention puts only [CLS] through the last layer. With a shared context it
    also puts each distinct context through the other layers only once.
    """
    distinct, query = np.unique(np.array(queries, dtype=object), return_inverse=True)
    tokens = encoder.tokenise(distinct.tolist())
    pair = encoder.lengths(tokens, encoder.tokenise(candidates), query, np.arange(len(candidates)))
    config = encoder.model[0].model.config
    shape = config.num_hidden_layers, config.hidden_size, config.intermediate_size
    if is_stock:
        return stock(pair, *shape)
    if encoder.attention == "full":
        return shared(pair[:0], np.zeros_like(pair), pair, *shape, config.num_attention_heads)
    context = np.minimum(tokens.lengths, encoder.max_tokens // 2) + 1  # with the [SEP] after it
    return shared(context, context[query], pair, *shape, config.num_attention_heads)


def stock(pair: Lengths, n_layers: int, hidden: int, inner: int) -> float:
    """Return the operations if every token of (n_pairs,) pairs passes through every layer."""
    return n_layers * float((pair * _linears(hidden, inner) + 4 * hidden * pair**2).sum())


def shared(
    contexts: Lengths,
    context: Lengths,
    pair: Lengths,
    n_layers: int,
    hidden: int,
    inner: int,
    n_heads: int,
) -> float:
    """Return the operations if distinct contexts are computed once, and [CLS] in the last layer.

    Args:
        contexts: (n_contexts,) tokens of the distinct contexts.
        context: (n_pairs,) tokens of each pair's context, 0 where none is shared.
        pair: (n_pairs,) tokens of each pair including its context.
    """
    own = pair - context
    n_tokens = contexts.sum() + own.sum()
    n_scores = (contexts**2).sum() + (own * pair).sum()  # attention scores: queries times keys
    last = len(pair) * _linears(hidden, inner) + 4 * hidden * n_heads * pair.sum()
    return float(
        (n_layers - 1) * (n_tokens * _linears(hidden, inner) + 4 * hidden * n_scores) + last
    )


def _linears(hidden: int, inner: int) -> int:
    """Return the operations of a token in a layer's linears: q, k, v, output, feed-forward."""
    return 8 * hidden**2 + 4 * hidden * inner
