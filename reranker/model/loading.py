"""Load a cross-encoder from checked weights, and reject weights that do not fit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.config import ModelConfig
from reranker.errors import ModelError
from reranker.model import activations
from reranker.model.layers import truncate_layers
from reranker.model.weights import WEIGHTS, Weights, quiet, resolve

if TYPE_CHECKING:
    from sentence_transformers.base.modules import Transformer
    from transformers import PreTrainedModel

    from reranker.model.encoder import Encoder

# Names of the head's weight, (n_labels, hidden), in different architectures.
HEADS = ("classifier.weight", "classifier.out_proj.weight", "score.weight")
# Key of config.json: the `model.attention` with which the weights were trained.
ATTENTION = "reranker_attention"


def load(cfg: ModelConfig, weights: Weights | None = None, *, device: str = "cpu") -> Encoder:
    """Return the configured encoder, in fp32, with one label.

    A head that the checkpoint lacks is initialised with `cfg.seed`; torch's global random state
    does not change. With `cfg.layers` the encoder keeps that many of the checkpoint's layers, and
    saves only these.

    Args:
        weights: The result of `resolve(cfg)`, if the caller has it already.
        device: A torch device, such as `cpu` or `cuda:0`.

    Raises:
        ModelError: `resolve` fails, or the weights do not load, have a head of several labels, lack
            more than a head, do not fit their tokenizer, have fewer positions than
            `model.max_length` or fewer layers than `model.layers`, or were trained with another
            `model.attention`.

    Example:
        >>> encoder = load(ModelConfig(name="local", source="path", path="weights"))
        >>> encoder.score(["Liked: Dune."], ["Solaris: a planet that thinks."])
    """
    weights = weights or resolve(cfg)
    _check_attention(cfg, weights.folder)
    shapes = _shapes(weights.folder)

    # Imported after the checks, so that their errors appear at once.
    import torch
    from sentence_transformers.cross_encoder import CrossEncoder

    from reranker.model.encoder import Encoder

    with quiet(), torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(cfg.seed)
        transformer = _transformer(cfg, weights.folder)
    # `Encoder.save` writes this into config.json.
    setattr(transformer.model.config, ATTENTION, cfg.attention)
    new = _new_names(transformer.model, set(shapes), weights.folder)
    _check_fit(transformer, cfg, weights.folder)
    if cfg.layers is not None:
        truncate_layers(transformer.model, cfg.layers, weights.folder)
    activation = activations.module(cfg.activation)
    model = CrossEncoder(
        modules=[transformer], device=device, activation_fn=activation, local_files_only=True
    )
    encoder = Encoder(
        model.eval(),
        activation,
        weights,
        new_head=bool(new),
        attention=cfg.attention,
        scores_in_bf16=cfg.scoring == "bf16",
    )
    _check_packed(encoder)
    return encoder


def trained_attention(folder: Path) -> str | None:
    """Return the `model.attention` with which a folder's weights were trained; None if unknown."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    trained: str | None = config.get(ATTENTION)
    return trained


def _check_attention(cfg: ModelConfig, folder: Path) -> None:
    trained = trained_attention(folder)
    if trained not in (None, cfg.attention):
        raise ModelError(
            f"{folder} was trained with model.attention={trained}, and with "
            f"model.attention={cfg.attention} its scores would be different. Set "
            f"model.attention={trained}, or choose other weights."
        )


def _check_packed(encoder: Encoder) -> None:
    if encoder.packed:
        return
    architecture = type(encoder.model[0].model).__name__
    if encoder.attention == "shared_context":
        raise ModelError(
            f"model.attention=shared_context needs a BERT, RoBERTa or XLM-RoBERTa classifier, but "
            f"{encoder.weights.folder} is a {architecture}. Set model.attention=full."
        )
    # A logger would not work: MLflow's migrations disable all existing loggers.
    print(f"{architecture} has no packed forward pass; its batches are padded.", file=sys.stderr)


def _shapes(folder: Path) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / WEIGHTS, framework="numpy") as file:
            names = file.keys()
            shapes = {name: file.get_slice(name).get_shape() for name in names}
    except SafetensorError as error:
        raise ModelError(
            f"{folder / WEIGHTS}: not a complete safetensors file ({error}). Save it again."
        ) from error
    for name in HEADS:
        if name in shapes and shapes[name][0] != 1:
            raise ModelError(
                f"{folder / WEIGHTS} has a head of {shapes[name][0]} labels ({name}); a scorer "
                "needs 1. Choose a cross-encoder with one label, or weights without a head."
            )
    return shapes


def _transformer(cfg: ModelConfig, folder: Path) -> Transformer:
    """Load only the folder's transformer; its list of modules (modules.json) is not used."""
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
        raise ModelError(
            f"{folder} does not load as a cross-encoder: {error}. Choose other weights."
        ) from error


def _new_names(model: PreTrainedModel, stored: set[str], folder: Path) -> list[str]:
    """Return the parameters that the file lacks; they may only be the classifier and the pooler."""
    prefix = f"{model.base_model_prefix}."
    # The first BERT checkpoints use .gamma and .beta.
    names = {name.replace(".gamma", ".weight").replace(".beta", ".bias") for name in stored}
    parameters = [name for name, _ in model.named_parameters()]
    new = [name for name in parameters if not {name, name.removeprefix(prefix)} & names]
    body = [name for name in new if name.startswith(prefix) and ".pooler." not in name]
    if body:
        raise ModelError(
            f"{folder / WEIGHTS} lacks {len(body)} weights of the {model.config.model_type} that "
            f"its config.json describes (first: {body[0]}). Choose complete weights."
        )
    return new


def _check_fit(transformer: Transformer, cfg: ModelConfig, folder: Path) -> None:
    model: Any = transformer.model
    tokenizer: Any = transformer.tokenizer
    embeddings = getattr(model.base_model, "embeddings", None)
    table = getattr(embeddings, "position_embeddings", None)
    if table is not None:
        # RoBERTa's positions start after the padding id.
        offset = 0 if table.padding_idx is None else table.padding_idx + 1
        n_positions = table.num_embeddings - offset
        if cfg.max_length > n_positions:
            raise ModelError(
                f"model.max_length={cfg.max_length} is above the {n_positions} positions of "
                f"{folder}. Set model.max_length to at most that number."
            )
    n_tokens, n_rows = len(tokenizer), model.get_input_embeddings().num_embeddings
    if not n_rows // 2 < n_tokens <= n_rows:
        raise ModelError(
            f"{folder}: the tokenizer has {n_tokens} tokens, and the model embeds {n_rows}; they "
            "do not belong together. Choose other weights."
        )
    if cfg.dropout is not None and not hasattr(model.config, "hidden_dropout_prob"):
        raise ModelError(
            f"model.dropout={cfg.dropout} cannot be set for a {model.config.model_type}. "
            "Set it to null."
        )
