"""The cross-encoder: loaded from checked weights, it scores pairs in fp32 and saves itself without training text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model.source import WEIGHTS, Weights, quiet, resolve

if TYPE_CHECKING:
    import torch
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.cross_encoder import CrossEncoder
    from transformers import PreTrainedModel

TEXTS_AT_ONCE = 1024  # counted together: their ids stay below 10 MB
BLOCK = 64  # batches that are tokenised and sorted together: little padding is left, and memory stays flat
HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")  # (n_labels, hidden) where it is stored


class Encoder:
    """A cross-encoder of one label. `load` makes one.

    Attributes:
        model: The sentence-transformers model, for the trainer.
        activation: Applied to the logits by `score`.
        weights: What it was loaded from.
        new_head: Whether the weights had no scoring head, so that it starts from a draw with `model.seed`.
        batch_size: Pairs per forward pass.
    """

    def __init__(
        self,
        model: CrossEncoder,
        activation: torch.nn.Module,
        weights: Weights,
        *,
        new_head: bool,
        batch_size: int,
    ) -> None:
        self.model = model
        self.activation = activation
        self.weights = weights
        self.new_head = new_head
        self.batch_size = batch_size

    def score(
        self, queries: Sequence[str], candidates: Sequence[str], *, progress: str | None = None
    ) -> npt.NDArray[np.float32]:
        """One score per pair: the logit, through the activation that the configuration names.

        Pairs are batched by token length. A pair's score moves by less than 1e-5 with what stands beside it. It is
        computed in fp32, also under autocast and while the trainer holds the model in bf16.

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

        if len(queries) != len(candidates):
            raise ValueError(f"{len(queries)} queries beside {len(candidates)} candidates; a pair has one of each.")
        logits = np.empty(len(queries), dtype=np.float32)
        device = self.model.device
        forward = type(self.model).forward  # not the instance's: accelerate lays autocast over that one
        self.model.eval()
        with torch.inference_mode(), torch.autocast(device.type, enabled=False):
            for rows, batch in self._batches(queries, candidates, progress):
                features = {name: values.to(device) for name, values in batch.items()}
                logits[rows] = forward(self.model, features)["scores"].squeeze(-1).float().cpu().numpy()
        bad = np.flatnonzero(~np.isfinite(logits))
        if len(bad):
            raise ModelError(
                f"{len(bad)} of {len(logits)} scores are NaN or infinite (first: pair {bad[0]}). The weights have "
                "diverged: train again with a lower trainer.learning_rate, or load other weights."
            )
        return self.activation(torch.from_numpy(logits)).numpy()

    @property
    def max_tokens(self) -> int:
        """The tokens that a query and a candidate may have together: the maximal length less the special tokens."""
        tokenizer = self.model.tokenizer
        return int(tokenizer.model_max_length - tokenizer.num_special_tokens_to_add(pair=True))

    def count_tokens(self, texts: Sequence[str]) -> npt.NDArray[np.int32]:
        """The tokens of every text, (n_texts,), untruncated and without special tokens."""
        counts = np.empty(len(texts), dtype=np.int32)
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            block = list(texts[start : start + TEXTS_AT_ONCE])
            tokens = self.model.tokenizer(
                block,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,  # else a warning that a text is longer than the model takes
            )
            counts[start : start + len(block)] = [len(ids) for ids in tokens["input_ids"]]
        return counts

    def _batches(
        self, queries: Sequence[str], candidates: Sequence[str], progress: str | None
    ) -> Iterable[tuple[npt.NDArray[Any], Any]]:
        """Rows and padded tokens of one batch after another, with a bar where there is a label and a terminal."""
        from rich import get_console
        from rich.progress import track

        batches = self._padded(queries, candidates)
        if progress is None or not get_console().is_interactive:
            return batches
        n_batches = -(-len(queries) // self.batch_size)
        return track(batches, progress, total=n_batches, console=get_console(), transient=True)

    def _padded(self, queries: Sequence[str], candidates: Sequence[str]) -> Iterator[tuple[npt.NDArray[Any], Any]]:
        """Rows and padded tokens of one batch after another, longest first within each block."""
        from transformers import DataCollatorWithPadding

        tokenizer = self.model.tokenizer
        pad = DataCollatorWithPadding(tokenizer)
        block = BLOCK * self.batch_size
        for start in range(0, len(queries), block):
            tokens = tokenizer(
                list(queries[start : start + block]),
                list(candidates[start : start + block]),
                truncation="longest_first",
            )
            order = np.argsort([-len(ids) for ids in tokens["input_ids"]], kind="stable")
            for first in range(0, len(order), self.batch_size):
                rows = order[first : first + self.batch_size]
                yield start + rows, pad([{name: values[row] for name, values in tokens.items()} for row in rows])

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), configuration and tokenizer. No model card: its examples quote training text."""
        with quiet():
            self.model.save_pretrained(str(folder), create_model_card=False)


def device(name: str) -> str:
    """The torch device for `auto` (the GPU when there is one), `cpu` or `cuda`.

    Raises:
        ModelError: `cuda` is asked for and there is none.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise ModelError("trainer.device=cuda, but torch sees no CUDA GPU here; choose auto or cpu.")
    return name


def load(cfg: ModelConfig, weights: Weights | None = None, *, device: str = "cpu", batch_size: int = 64) -> Encoder:
    """The encoder that the configuration names, in fp32, with one label.

    Weights that the checkpoint lacks (a head) are drawn from `cfg.seed`; torch's own random state is left as it was.

    Args:
        weights: What `resolve(cfg)` gave, where a caller has had them checked already.
        device: Where it scores, as torch names it.
        batch_size: Pairs per forward pass when scoring.

    Raises:
        ModelError: The weights cannot be had (see `resolve`), do not load, have a head of several labels, lack more
            than a head, do not fit their tokenizer, or have fewer positions than `model.max_length`.
    """
    weights = weights or resolve(cfg)
    shapes = _shapes(weights.folder)

    import torch  # after the checks: a refusal need not wait for it
    from sentence_transformers.cross_encoder import CrossEncoder

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(cfg.seed)
        transformer = _transformer(cfg, weights.folder)
    new = _new_names(transformer.model, set(shapes), weights.folder)
    _check_fit(transformer, cfg, weights.folder)
    activation = {"identity": torch.nn.Identity, "sigmoid": torch.nn.Sigmoid}[cfg.activation]()
    model = CrossEncoder(modules=[transformer], device=device, activation_fn=activation, local_files_only=True)
    return Encoder(model.eval(), activation, weights, new_head=bool(new), batch_size=batch_size)


def _shapes(folder: Path) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ModelError(f"{folder / WEIGHTS}: not a whole safetensors file ({error}). Save it again.") from error
    for name in HEADS:
        if name in shapes and shapes[name][0] != 1:
            raise ModelError(
                f"{folder / WEIGHTS} has a head of {shapes[name][0]} labels ({name}); a scorer needs 1. Choose a "
                "cross-encoder of one label, or weights without a head."
            )
    return shapes


def _transformer(cfg: ModelConfig, folder: Path) -> Transformer:
    """The folder's transformer alone: a folder's own list of modules (modules.json) is not followed."""
    import torch
    from sentence_transformers.base.modules import Transformer

    local = {"local_files_only": True, "trust_remote_code": False}
    rates = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
    dropout = {} if cfg.dropout is None else dict.fromkeys(rates, cfg.dropout)
    try:
        return Transformer(
            str(folder),
            transformer_task="sequence-classification",
            model_kwargs={**local, "use_safetensors": True, "dtype": torch.float32},
            processor_kwargs={**local, "model_max_length": cfg.max_length},
            config_kwargs={**local, "num_labels": 1, **dropout},
        )
    except (ImportError, KeyError, OSError, RuntimeError, ValueError) as error:
        raise ModelError(f"{folder} does not load as a cross-encoder: {error}. Choose other weights.") from error


def _new_names(model: PreTrainedModel, stored: set[str], folder: Path) -> list[str]:
    """Parameters that the file lacks; without a head those are the classifier and the pooler, and nothing else."""
    prefix = f"{model.base_model_prefix}."
    names = {name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in stored}  # BERT's first spelling
    new = [name for name, _ in model.named_parameters() if not {name, name.removeprefix(prefix)} & names]
    body = [name for name in new if name.startswith(prefix) and ".pooler." not in name]
    if body:
        raise ModelError(
            f"{folder / WEIGHTS} lacks {len(body)} weights of the {model.config.model_type} that its config.json "
            f"describes (first: {body[0]}). Choose whole weights."
        )
    return new


def _check_fit(transformer: Transformer, cfg: ModelConfig, folder: Path) -> None:
    model: Any = transformer.model
    tokenizer: Any = transformer.tokenizer
    embeddings = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if table is not None:
        offset = 0 if table.padding_idx is None else table.padding_idx + 1  # RoBERTa counts from after the padding id
        n_positions = table.num_embeddings - offset
        if cfg.max_length > n_positions:
            raise ModelError(f"model.max_length={cfg.max_length} is above the {n_positions} positions of {folder}.")
    n_tokens, n_rows = len(tokenizer), model.get_input_embeddings().num_embeddings
    if not n_rows // 2 < n_tokens <= n_rows:
        raise ModelError(
            f"{folder}: the tokenizer has {n_tokens} tokens, and the model embeds {n_rows}; they are not a pair."
        )
    if cfg.dropout is not None and not hasattr(model.config, "hidden_dropout_prob"):
        raise ModelError(f"model.dropout={cfg.dropout} cannot be set for a {model.config.model_type}; set it to null.")
