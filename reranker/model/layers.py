"""Build a smaller student from a checkpoint by keeping only some of its layers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layer_indices(n_layers: int, n: int) -> list[int]:
    """Return the n of n_layers layers that a student keeps.

    They are evenly spaced and include the first and the last; halves are rounded up. With n = 1
    only the first layer is kept.

    Example:
        >>> layer_indices(12, 6)
        [0, 2, 4, 7, 9, 11]

    Source: the initialisation of DistilBERT, which keeps these 6 of 12 layers (Sanh et al. 2019,
    section 3, and its script).
    """
    if n == 1:
        return [0]
    return [(2 * i * (n_layers - 1) + n - 1) // (2 * (n - 1)) for i in range(n)]


def truncate_layers(model: PreTrainedModel, n: int, folder: Path) -> None:
    """Keep n of the model's layers, and set the number of layers in its configuration.

    Args:
        model: A BERT, RoBERTa or XLM-RoBERTa classifier; it is changed in place.
        n: Number of layers to keep.
        folder: The folder of the weights, for the error message.

    Raises:
        ModelError: The model has another architecture or fewer than n layers.
    """
    from torch.nn import ModuleList

    from reranker.model.packed import is_packable

    if not is_packable(model):
        raise ModelError(
            f"model.layers={n} needs a BERT, RoBERTa or XLM-RoBERTa classifier, but {folder} "
            f"is a {type(model).__name__}. Set model.layers=null, or choose other weights."
        )
    encoder: Any = model.base_model.encoder
    layers = encoder.layer
    if n > len(layers):
        raise ModelError(
            f"model.layers={n} is above the {len(layers)} layers of {folder}. Set "
            "model.layers to at most that number, or to null."
        )
    encoder.layer = ModuleList(layers[i] for i in layer_indices(len(layers), n))
    model.config.num_hidden_layers = n
