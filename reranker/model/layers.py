"""A student cut from a checkpoint: some of its layers, the embeddings and the head as they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layer_indices(n_layers: int, n: int) -> list[int]:
    """The n of n_layers layers that a student takes: even distances, the first and the last among them.

    Of 12 layers 6 are 0, 2, 4, 7, 9, 11, of 6 layers 3 are 0, 3, 5; half a place is rounded up. One is the first.

    Source: the initialisation of DistilBERT, which takes these 6 of 12 (Sanh et al. 2019, section 3, and its script).
    """
    if n == 1:
        return [0]
    return [(2 * i * (n_layers - 1) + n - 1) // (2 * (n - 1)) for i in range(n)]


def truncate_layers(model: PreTrainedModel, n: int, folder: Path) -> None:
    """Leave the model n of its layers, and have its configuration say so, which goes with it when it is saved.

    Args:
        model: A BERT, RoBERTa or XLM-RoBERTa classifier, changed in place.
        folder: Where it came from, for the message.

    Raises:
        ModelError: Another architecture, or n is more than its layers.
    """
    from torch.nn import ModuleList

    from reranker.model.packed import is_packable

    if not is_packable(model):
        raise ModelError(
            f"model.layers={n} cuts a BERT, RoBERTa or XLM-RoBERTa classifier, but {folder} is a "
            f"{type(model).__name__}. Set model.layers=null, or choose other weights."
        )
    encoder: Any = model.base_model.encoder
    layers = encoder.layer
    if n > len(layers):
        raise ModelError(
            f"model.layers={n} is above the {len(layers)} layers of {folder}; give at most that, or null."
        )
    encoder.layer = ModuleList(layers[i] for i in layer_indices(len(layers), n))
    model.config.num_hidden_layers = n
