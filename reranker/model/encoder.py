"""The cross-encoder: it scores texts tokenised once, without padding, and saves itself without training text."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.errors import ModelError
from reranker.model import tokens
from reranker.model.throughput import Work
from reranker.model.tokens import Batch, BoolArray, IntArray, Tokens
from reranker.model.validation import check_finite, check_pairs
from reranker.model.weights import Weights, quiet
from reranker.terminal import with_progress

if TYPE_CHECKING:
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

TOKENS_AT_ONCE = 2048  # of one forward, about, when scoring on a CPU: 1k to 4k were best
TOKENS_AT_ONCE_CUDA = 65536
DIVERGED = "The weights have diverged: train again with a lower trainer.learning_rate, or load other weights."


class Encoder:
    """A cross-encoder of one label. `load` makes one.

    With `attention="full"` a pair is what the tokenizer makes of it, and every token attends to all. With
    `"shared_context"` the pair has the same tokens, positions and types, but the query's tokens, and the special
    tokens between query and candidate, attend to one another alone: not to the leading [CLS], nor to the candidate.
    [CLS] and the candidate's tokens attend to all of the pair. What a context becomes is then the same for every
    candidate, and is computed once per batch. So that it is, truncation leaves the query at most half of the room.

    Attributes:
        model: The sentence-transformers model; its parameters are fp32, and are what a trainer changes.
        activation: Applied to the logits by `score`.
        weights: What it was loaded from.
        new_head: Whether the weights had no scoring head, so that it starts from a draw with `model.seed`.
        attention: `full` or `shared_context`; `save` writes it beside the weights.
        packed: Whether its forwards have no padding; otherwise the module's own forward is used.
        scores_in_bf16: Whether `score` computes its linear layers in bf16 rather than fp32.
        scored: What the last `score` took, tokenising included.
    """

    def __init__(
        self,
        model: CrossEncoder,
        activation: torch.nn.Module,
        weights: Weights,
        *,
        new_head: bool,
        attention: str = "full",
        scores_in_bf16: bool = False,
    ) -> None:
        from reranker.model.packed import forward_of

        self.model = model
        self.activation = activation
        self.weights = weights
        self.new_head = new_head
        self.attention = attention
        self.scores_in_bf16 = scores_in_bf16
        self.scored = self.work = Work()
        self._template = tokens.template(model.tokenizer)
        self._forward, self.packed = forward_of(model)

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """The tokens of every text, untruncated and without special tokens."""
        return tokens.tokenise(self.model.tokenizer, texts)

    def lengths(
        self, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
    ) -> IntArray:
        """(n_pairs,) tokens of each pair after truncation, special tokens and the whole context included.

        Args:
            query: (n_pairs,) rows of `queries`.
            candidate: (n_pairs,) rows of `candidates`.
        """
        kept = self.kept_tokens(queries.lengths[query], candidates.lengths[candidate])
        return kept[0] + kept[1] + self._template.n_special

    def kept_tokens(
        self, query_lengths: IntArray, candidate_lengths: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Return the tokens of queries and of candidates that truncation keeps, (n_pairs,) each.

        With `attention="full"` the longer text is truncated first, as the tokenizers'
        `longest_first` does it. With `"shared_context"` the query keeps at most half of
        `max_tokens`, and the candidate the rest.

        Args:
            query_lengths: (n_pairs,) tokens of the queries, without special tokens.
            candidate_lengths: (n_pairs,) tokens of the candidates, without special tokens.
        """
        shared = self.attention == "shared_context"
        kept = tokens.kept_shared if shared else tokens.kept_longest_first
        return kept(query_lengths, candidate_lengths, self.max_tokens)

    def truncates(self, query_lengths: IntArray, candidate_lengths: IntArray) -> BoolArray:
        """Return (n_pairs,) whether a pair loses tokens of its query or its candidate.

        Args:
            query_lengths: (n_pairs,) tokens of the queries, without special tokens.
            candidate_lengths: (n_pairs,) tokens of the candidates, without special tokens.
        """
        query, candidate = self.kept_tokens(query_lengths, candidate_lengths)
        truncated: BoolArray = (query < query_lengths) | (candidate < candidate_lengths)
        return truncated

    def assemble(
        self, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
    ) -> Batch:
        """The packed pairs for `logits`; with a shared context each distinct query stands there once.

        Args:
            query: (n_pairs,) rows of `queries`.
            candidate: (n_pairs,) rows of `candidates`.
        """
        make = tokens.assemble_shared if self.attention == "shared_context" else tokens.assemble
        return make(self._template, queries, candidates, query, candidate)

    def logits(
        self, batch: Batch, *, bf16: bool = False, recompute: bool = False, compiled: bool = False
    ) -> torch.Tensor:
        """One logit per pair, (n_pairs,) float32, in the order of the pairs.

        Autograd follows it wherever it is enabled, and dropout acts while `model` is in training mode. Autocast does
        not reach it.

        Args:
            bf16: Compute linear layers (attention between them) on bf16 copies of the fp32 weights, which stay the
                ones to train: their gradients arrive in fp32. Embeddings, norms, pooler and head stay in fp32.
            recompute: Compute each layer again in the backward pass, with the same dropout, to save memory.
            compiled: Use what torch.compile makes of the forward. Dropout then draws other numbers.
        """
        import torch

        if batch.n_pairs == 0:
            return torch.empty(0, device=self.model.device)
        with torch.autocast(self.model.device.type, enabled=False):
            forward = self._compiled if compiled else self._forward
            return forward(batch, bf16=bf16, recompute=recompute)

    @cached_property
    def _compiled(self) -> Callable[..., torch.Tensor]:
        return self._forward.compiled()

    def cost(self, batch: Batch) -> tuple[int, float]:
        """The tokens that `logits` computes, padding among them, and its FLOPs over real tokens (see `Cost.flops`)."""
        return self._forward.cost(batch)

    def gemm_flops_per_s(self, *, bf16: bool) -> float:
        """What a matrix product of the model's hidden size reaches on its device, measured once per process."""
        from reranker.model.precision import gemm_flops_per_s

        return gemm_flops_per_s(self._forward.sizes.hidden, str(self.model.device), bf16)

    def score(
        self, queries: Sequence[str], candidates: Sequence[str], *, progress: str | None = None
    ) -> npt.NDArray[np.float32]:
        """One score per pair: the logit, through the activation that the configuration names.

        Every distinct text is tokenised once, and pairs of like length share a forward. A pair's score moves by less
        than 1e-5 with what stands beside it. It is computed in fp32 (but see `scores_in_bf16`), also under autocast.

        Args:
            queries: (n_pairs,) user contexts.
            candidates: (n_pairs,) book texts, aligned with the queries.
            progress: The label of a progress bar, which a terminal shows and nothing else; None shows none.

        Returns:
            (n_pairs,) float32, in the order given.

        Raises:
            ValueError: The two lengths differ.
            ModelError: A logit is NaN or infinite.
        """
        import torch

        from reranker.model.thread_pool import parallel_map

        check_pairs(queries, candidates)
        begin = time.perf_counter()
        logits = np.empty(len(queries), dtype=np.float32)
        sides = *self._distinct(queries), *self._distinct(candidates)
        self.model.eval()
        forwards = self._forwards(*sides)

        def forward(rows: IntArray) -> tuple[IntArray, npt.NDArray[np.float32], Work]:
            with torch.inference_mode():
                batch = self.assemble(sides[0], sides[2], sides[1][rows], sides[3][rows])
                n_tokens = self.lengths(sides[0], sides[2], sides[1][rows], sides[3][rows]).sum()
                n_rows, flops = self.cost(batch)
                work = Work(len(rows), float(n_tokens), n_rows, flops)
                return rows, self.logits(batch, bf16=self.scores_in_bf16).cpu().numpy(), work

        work = Work()
        done = (
            parallel_map(forward, forwards)
            if self.model.device.type == "cpu"
            else map(forward, forwards)
        )
        for rows, values, spent in with_progress(done, progress, len(forwards)):
            logits[rows] = values
            work += spent
        self.scored = work + Work(seconds=time.perf_counter() - begin)
        self.work += self.scored
        check_finite(logits, "scores", DIVERGED)
        return self.activation(torch.from_numpy(logits)).numpy()

    def take_work(self) -> Work:
        """Return the work of all `score` calls since the last `take_work`, and start from zero.

        Example:
            >>> peak = encoder.gemm_flops_per_s(bf16=encoder.scores_in_bf16)
            >>> encoder.take_work().speeds(peak)["pairs_per_s"]
        """
        work, self.work = self.work, Work()
        return work

    @property
    def max_tokens(self) -> int:
        """The tokens that a query and a candidate may have together: the maximal length less the special tokens."""
        return self._template.max_tokens

    @property
    def n_layers(self) -> int:
        """The transformer's layers: the checkpoint's, or the `model.layers` that were kept of them."""
        module: Any = self.model[0].model
        return int(module.config.num_hidden_layers)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """The tokens of every text, (n_texts,), untruncated and without special tokens."""
        return self.tokenise(texts).lengths.astype(np.int32)

    def _distinct(self, texts: Sequence[str]) -> tuple[Tokens, IntArray]:
        """The tokens of each distinct text, and (n_texts,) which of them each text is."""
        rows: dict[str, int] = {}
        of = np.array([rows.setdefault(text, len(rows)) for text in texts], dtype=np.int64)
        return self.tokenise(list(rows)), of

    def _forwards(
        self, queries: Tokens, query: IntArray, candidates: Tokens, candidate: IntArray
    ) -> list[IntArray]:
        """The pairs of one forward after another."""
        lengths = self.lengths(queries, candidates, query, candidate)
        shared = self.attention == "shared_context"
        order = np.lexsort((-lengths, query) if shared else (-lengths,))
        return np.split(order, _cuts(lengths[order], self._n_forwards(int(lengths.sum()))))

    def _n_forwards(self, n_tokens: int) -> int:
        """On a CPU every core has as many."""
        import torch

        on_cpu = self.model.device.type == "cpu"
        n_cores, budget = (
            (torch.get_num_threads(), TOKENS_AT_ONCE) if on_cpu else (1, TOKENS_AT_ONCE_CUDA)
        )
        return n_cores * max(1, round(n_tokens / n_cores / budget))

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer. No model card: its examples quote training text."""
        with quiet():
            self.model.save_pretrained(str(folder), create_model_card=False)


def _cuts(lengths: IntArray, n_forwards: int) -> IntArray:
    """Where a new forward begins, so that all have about as many tokens; none is empty."""
    middle = np.cumsum(lengths) - lengths / 2
    return np.flatnonzero(np.diff((middle * n_forwards / lengths.sum()).astype(np.int64))) + 1


def device(name: str) -> str:
    """The torch device for `auto` (the GPU when there is one), `cpu` or `cuda`; under torchrun this process's own GPU.

    Raises:
        ModelError: `cuda` is asked for and there is none, or fewer than the processes of this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            "trainer.device=cuda, but torch sees no CUDA GPU here; choose auto or cpu."
        )
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "cpu" or local == 0:
        return name
    if local >= torch.cuda.device_count():
        raise ModelError(
            f"process {local} of this machine has no GPU of its own: torch sees {torch.cuda.device_count()}. Start "
            f"torchrun with --nproc_per_node={torch.cuda.device_count()}, or set trainer.device=cpu."
        )
    return f"cuda:{local}"
