"""The cross-encoder: it tokenises and scores pairs, and saves its weights without training text."""

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

# Approximate tokens per forward pass when scoring. On a CPU 1k to 4k were fastest.
TOKENS_AT_ONCE = 2048
TOKENS_AT_ONCE_CUDA = 65536
DIVERGED = (
    "The weights have diverged: train again with a lower trainer.learning_rate, or load other "
    "weights."
)


class Encoder:
    """A cross-encoder with one label; `load` creates it.

    With `attention="full"` a pair is joined by the tokenizer, and every token attends to all.

    With `"shared_context"` a pair has the same tokens, positions and types, but the query's tokens
    and the special tokens between query and candidate attend only to one another, and neither to
    the leading [CLS] nor to the candidate. [CLS] and the candidate's tokens attend to the entire
    pair. The hidden states of a query are then the same for every candidate and are computed once
    per batch. For the same reason, truncation keeps at most half of `max_tokens` of a query,
    whatever the candidate.

    Attributes:
        model: The sentence-transformers model; its parameters are fp32 and are updated by training.
        activation: Applied to the logits by `score`.
        weights: The weights from which it was loaded.
        new_head: Whether the weights had no scoring head; it is then initialised with `model.seed`.
        attention: `full` or `shared_context`; `save` writes it into config.json.
        packed: Whether forward passes are packed without padding. Otherwise the module's own
            forward is used, with padding.
        scores_in_bf16: Whether `score` computes its linear layers in bf16 instead of fp32.
        work: The work of all `score` calls since the last `take_work`.

    Example:
        >>> encoder = load(ModelConfig(name="tiny", source="random"))
        >>> encoder.score(["Liked: Dune."], ["Solaris: a planet that thinks."])
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
        self.work = Work()
        self._template = tokens.template(model.tokenizer)
        self._forward, self.packed = forward_of(model)

    def tokenise(self, texts: Sequence[str]) -> Tokens:
        """Return the tokens of every text, untruncated and without special tokens."""
        return tokens.tokenise(self.model.tokenizer, texts)

    def lengths(
        self, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
    ) -> IntArray:
        """Return (n_pairs,) tokens after truncation, with special tokens and complete contexts.

        Args:
            query: (n_pairs,) rows of `queries`.
            candidate: (n_pairs,) rows of `candidates`.
        """
        n_query, n_candidate = self.kept_tokens(
            queries.lengths[query], candidates.lengths[candidate]
        )
        return n_query + n_candidate + self._template.n_special

    def kept_tokens(
        self, query_lengths: IntArray, candidate_lengths: IntArray
    ) -> tuple[IntArray, IntArray]:
        """Return how many tokens truncation keeps of the queries and of the candidates.

        With `attention="full"` the longer text is truncated first, like `longest_first` in the
        tokenizers library. With `"shared_context"` the query keeps at most half of `max_tokens`,
        and the candidate at most the rest.

        Args:
            query_lengths: (n_pairs,) tokens of the queries, without special tokens.
            candidate_lengths: (n_pairs,) tokens of the candidates, without special tokens.

        Returns:
            (n_pairs,) kept tokens of the queries and (n_pairs,) kept tokens of the candidates.
        """
        shared = self.attention == "shared_context"
        kept = tokens.kept_shared if shared else tokens.kept_longest_first
        return kept(query_lengths, candidate_lengths, self.max_tokens)

    def truncates(self, query_lengths: IntArray, candidate_lengths: IntArray) -> BoolArray:
        """Return a (n_pairs,) mask of the pairs that lose tokens of their query or candidate.

        Args:
            query_lengths: (n_pairs,) tokens of the queries, without special tokens.
            candidate_lengths: (n_pairs,) tokens of the candidates, without special tokens.

        Example:
            >>> n_query, n_candidate = encoder.count_tokens(contexts), encoder.count_tokens(books)
            >>> encoder.truncates(n_query, n_candidate).mean()
        """
        query, candidate = self.kept_tokens(query_lengths, candidate_lengths)
        truncated: BoolArray = (query < query_lengths) | (candidate < candidate_lengths)
        return truncated

    def assemble(
        self, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
    ) -> Batch:
        """Return the packed pairs for `logits`; if contexts are shared, each query occurs once.

        Args:
            query: (n_pairs,) rows of `queries`.
            candidate: (n_pairs,) rows of `candidates`.
        """
        shared = self.attention == "shared_context"
        assemble = tokens.assemble_shared if shared else tokens.assemble
        return assemble(self._template, queries, candidates, query, candidate)

    def logits(
        self, batch: Batch, *, bf16: bool = False, recompute: bool = False, compiled: bool = False
    ) -> torch.Tensor:
        """Return (n_pairs,) float32 logits in the order of the pairs.

        They are differentiable if autograd is enabled, and dropout is applied while `model` is in
        training mode. Autocast has no effect.

        Args:
            batch: The result of `assemble`.
            bf16: Compute linear layers and attention with bf16 copies of the fp32 weights. The fp32
                weights are trained, and their gradients are fp32. Embeddings, norms, pooler and
                head stay in fp32.
            recompute: Compute each layer again in the backward pass, with the same dropout, to save
                memory (gradient checkpointing).
            compiled: Use the forward pass compiled by torch.compile. Dropout then uses other
                random numbers.
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
        """Return the tokens that `logits` computes, including padding, and its FLOPs.

        The FLOPs are those of the real tokens; see `Cost.flops`.
        """
        return self._forward.cost(batch)

    def gemm_flops_per_s(self, *, bf16: bool) -> float:
        """Return FLOPs per second of a matrix product of the model's hidden size on its device.

        It is measured once per process.
        """
        from reranker.model.precision import gemm_flops_per_s

        return gemm_flops_per_s(self._forward.sizes.hidden, str(self.model.device), bf16)

    def score(
        self, queries: Sequence[str], candidates: Sequence[str], *, progress: str | None = None
    ) -> npt.NDArray[np.float32]:
        """Return one score per pair: the logit after the configured activation.

        Each distinct text is tokenised once, and pairs of similar length share a forward pass. A
        pair's score changes by less than 1e-5 with the other pairs of its batch. Scores are
        computed in fp32 (see `scores_in_bf16` for bf16), also under autocast.

        Args:
            queries: (n_pairs,) user contexts.
            candidates: (n_pairs,) book texts, aligned with the queries.
            progress: Label of a progress bar, which is shown only in a terminal; None shows none.

        Returns:
            (n_pairs,) float32, in the order of the arguments.

        Raises:
            ValueError: The two lengths differ.
            ModelError: A logit is NaN or infinite.

        Example:
            >>> scores = encoder.score(["Liked: Dune."] * 2, ["Solaris", "Emma"])
            >>> best = int(scores.argmax())
        """
        import torch

        from reranker.model.thread_pool import parallel_map

        check_pairs(queries, candidates)
        begin = time.perf_counter()
        logits = np.empty(len(queries), dtype=np.float32)
        left, query = self._distinct(queries)
        right, candidate = self._distinct(candidates)
        self.model.eval()
        forwards = self._forwards(left, right, query, candidate)

        def forward(rows: IntArray) -> tuple[IntArray, npt.NDArray[np.float32], Work]:
            pairs = left, right, query[rows], candidate[rows]
            with torch.inference_mode():
                batch = self.assemble(*pairs)
                work = Work(len(rows), float(self.lengths(*pairs).sum()), *self.cost(batch))
                return rows, self.logits(batch, bf16=self.scores_in_bf16).cpu().numpy(), work

        work = Work()
        on_cpu = self.model.device.type == "cpu"
        done = parallel_map(forward, forwards) if on_cpu else map(forward, forwards)
        for rows, values, spent in with_progress(done, progress, len(forwards)):
            logits[rows] = values
            work += spent
        self.work += work + Work(seconds=time.perf_counter() - begin)
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
        """The maximum tokens of query and candidate together: `max_length` minus special tokens."""
        return self._template.max_tokens

    @property
    def n_layers(self) -> int:
        """The number of transformer layers: that of the checkpoint, or `model.layers`."""
        module: Any = self.model[0].model
        return int(module.config.num_hidden_layers)

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """Return (n_texts,) numbers of tokens, untruncated and without special tokens."""
        return self.tokenise(texts).lengths.astype(np.int32)

    def _distinct(self, texts: Sequence[str]) -> tuple[Tokens, IntArray]:
        """Return the tokens of each distinct text, and (n_texts,) the row of each text in them."""
        rows: dict[str, int] = {}
        row = np.array([rows.setdefault(text, len(rows)) for text in texts], dtype=np.int64)
        return self.tokenise(list(rows)), row

    def _forwards(
        self, queries: Tokens, candidates: Tokens, query: IntArray, candidate: IntArray
    ) -> list[IntArray]:
        """Return the rows of the pairs of each forward pass."""
        lengths = self.lengths(queries, candidates, query, candidate)
        shared = self.attention == "shared_context"
        order = np.lexsort((-lengths, query) if shared else (-lengths,))
        n_forwards = self._n_forwards(int(lengths.sum()))
        return np.split(order, _forward_starts(lengths[order], n_forwards))

    def _n_forwards(self, n_tokens: int) -> int:
        """Return the number of forward passes.

        On a CPU it is a multiple of the number of threads, so that threads finish together.
        """
        import torch

        n_threads, budget = 1, TOKENS_AT_ONCE_CUDA
        if self.model.device.type == "cpu":
            n_threads, budget = torch.get_num_threads(), TOKENS_AT_ONCE
        return n_threads * max(1, round(n_tokens / n_threads / budget))

    def save(self, folder: Path) -> None:
        """Write the weights (safetensors), the configuration and the tokenizer.

        No model card is written, because its examples would quote training text.
        """
        with quiet():
            self.model.save_pretrained(str(folder), create_model_card=False)


def _forward_starts(lengths: IntArray, n_forwards: int) -> IntArray:
    """Return where new forward passes begin, so that they have similar sizes; none is empty."""
    middle = np.cumsum(lengths) - lengths / 2
    return np.flatnonzero(np.diff((middle * n_forwards / lengths.sum()).astype(np.int64))) + 1


def device(name: str) -> str:
    """Return the torch device for `auto`, `cpu` or `cuda`.

    `auto` is the GPU if there is one, else the CPU. Under torchrun each process has its own GPU.

    Raises:
        ModelError: `cuda` is set and there is no GPU, or fewer GPUs than processes on this machine.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("trainer.device=cuda, but torch sees no CUDA GPU. Set it to auto or cpu.")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if name == "cpu" or local == 0:
        return name
    if local >= (n_gpus := torch.cuda.device_count()):
        raise ModelError(
            f"process {local} of this machine has no GPU: torch sees {n_gpus}. Start torchrun with "
            f"--nproc_per_node={n_gpus}, or set trainer.device=cpu."
        )
    return f"cuda:{local}"
