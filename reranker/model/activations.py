"""Activations of `model.activation`: functions of the logit that give the score.

Training uses logits. An activation changes scores only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

# model.activation -> the class in torch.nn, which sentence-transformers stores with the weights.
MODULES = {
    "identity": "Identity",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "relu": "ReLU",
    "silu": "SiLU",
}


def module(activation: str) -> torch.nn.Module:
    """Return the activation as a module of torch."""
    import torch

    made: torch.nn.Module = getattr(torch.nn, MODULES[activation])()
    return made


def name_of(made: torch.nn.Module) -> str:
    """Return the `model.activation` of a module that `module` made."""
    return next(name for name, of_torch in MODULES.items() if of_torch == type(made).__name__)


def apply(activation: str, logits: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the scores of logits, without torch.

    Example:
        >>> apply("relu", np.array([-1.0, 2.0]))
        array([0., 2.])
    """
    from scipy.special import expit

    match activation:
        case "identity":
            return logits
        case "sigmoid":
            return np.asarray(expit(logits))
        case "tanh":
            return np.tanh(logits)
        case "relu":
            return np.maximum(logits, 0)
        case "silu":
            return np.asarray(logits * expit(logits))
    raise ValueError(f"activation={activation!r} is unknown; choose one of {', '.join(MODULES)}.")


def threshold(activation: str) -> float:
    """Return the score of the logit 0. A score is above it exactly if the logit is above 0."""
    return float(apply(activation, np.zeros(1))[0])


def probability(activation: str, scores: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return the probability of a positive that scores represent: the sigmoid of the logit.

    ReLU and SiLU have no inverse, so their scores are taken as logits. These probabilities are at
    least .5 (relu) and .43 (silu), also for the most certain negative.

    Args:
        scores: Any shape, after the activation.
    """
    from scipy.special import expit

    values = np.asarray(scores, dtype=np.float64)
    if activation == "sigmoid":
        return values
    if activation == "tanh":
        with np.errstate(divide="ignore"):  # a score that was rounded to 1 is an infinite logit
            values = np.arctanh(values)
    return np.asarray(expit(values))
