"""AdamW with a learning-rate schedule, a separate rate for the head, and gradient accumulation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from reranker.config import TrainerConfig
from reranker.model import Encoder

if TYPE_CHECKING:
    from torch.nn import Parameter


class Optimiser:
    """Fused AdamW over an encoder's parameters, in fp32.

    Biases and LayerNorms have no weight decay. The head is everything after the body's last layer:
    pooler and classifier.

    Attributes:
        adamw: The torch optimiser.
        parameters: All parameters of the model, in the model's order.
        n_steps: Total number of steps.
        n_frozen: Number of initial steps in which only the head is trained.
    """

    def __init__(self, encoder: Encoder, cfg: TrainerConfig, n_steps: int) -> None:
        import torch

        named = list(encoder.model.named_parameters())
        self.cfg = cfg
        self.n_steps = n_steps
        self.n_frozen = math.floor(cfg.freeze_body_fraction * n_steps)
        self.parameters = [p for _, p in named]
        self._body = [p for name, p in named if not is_head(encoder, name)]
        groups = _groups(encoder, cfg, named)
        self.adamw = torch.optim.AdamW(groups, lr=cfg.learning_rate, fused=True)

    def begin(self, step: int) -> float:
        """Set the learning rates of step `step`, counted from 0, and return the body's rate.

        The body's rate is 0 while the body is frozen. When it is unfrozen, its moments are empty,
        so it has a separate warm-up, as long as the head's.
        """
        head = rate_factor(step, self.n_steps, self.cfg)
        body = min(head, warmup_factor(step - self.n_frozen, self.n_steps, self.cfg))
        for group in self.adamw.param_groups:
            group["lr"] = group["full_rate"] * (head if group["is_head"] else body)
        for parameter in self._body:
            parameter.requires_grad_(step >= self.n_frozen)
        return self.cfg.learning_rate * body

    def finish(self, n_terms: float) -> float:
        """Divide the summed gradients by the number of terms, clip them and take the step.

        No step is taken if the norm is not finite, or if there are no terms.

        Returns:
            The norm of the gradient before clipping; 0 without terms.
        """
        import torch

        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) / n_terms if n_terms else 0.0
        if n_terms and math.isfinite(norm):
            limit = self.cfg.max_grad_norm
            clip = 1.0 if limit is None else min(1.0, limit / (norm + 1e-6))
            torch._foreach_mul_(gradients, clip / n_terms)
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def close(self) -> None:
        """Drop all gradients and unfreeze all parameters."""
        self.adamw.zero_grad(set_to_none=True)
        for parameter in self._body:
            parameter.requires_grad_(True)

    def state(self) -> dict[str, Any]:
        """Return AdamW's moments and step counts, for a checkpoint."""
        return self.adamw.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Load a state that `state` returned."""
        self.adamw.load_state_dict(state)


def rate_factor(step: int, n_steps: int, cfg: TrainerConfig) -> float:
    """Return the learning rate of a step, counted from 0, as a fraction of the full rate.

    It rises linearly during the warm-up, and then falls linearly or as a half cosine. It is in
    (0, 1], even in the last step.
    """
    n_warmup = warmup_steps(n_steps, cfg)
    if step < n_warmup:
        return warmup_factor(step, n_steps, cfg)
    left = (n_steps - step) / max(n_steps - n_warmup, 1)
    return left if cfg.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def warmup_steps(n_steps: int, cfg: TrainerConfig) -> int:
    """Return the number of warm-up steps of a training of n_steps steps."""
    if cfg.warmup_steps is not None:
        return cfg.warmup_steps
    return math.ceil(cfg.warmup_fraction * n_steps)


def warmup_factor(n_done: int, n_steps: int, cfg: TrainerConfig) -> float:
    """Return the factor in [0, 1] after n_done steps of a warm-up; 0 if n_done < 0."""
    n_warmup = warmup_steps(n_steps, cfg)
    return 0.0 if n_done < 0 else min((n_done + 1) / max(n_warmup, 1), 1.0)


def is_head(encoder: Encoder, name: str) -> bool:
    """Return whether a parameter of `encoder.model` comes after the body's last layer."""
    body: Any = encoder.model[0].model
    return ".pooler." in name or f".{body.base_model_prefix}." not in f".{name}"


def _groups(
    encoder: Encoder, cfg: TrainerConfig, named: list[tuple[str, Parameter]]
) -> list[dict[str, Any]]:
    """Return parameter groups by head and weight decay, with their rates; no group is empty."""
    groups: dict[tuple[bool, bool], list[Parameter]] = {}
    for name, parameter in named:  # biases and LayerNorms have one dimension
        groups.setdefault((is_head(encoder, name), parameter.ndim > 1), []).append(parameter)
    head_rate = (cfg.head_learning_rate if encoder.new_head else None) or cfg.learning_rate
    return [
        {
            "params": parameters,
            "weight_decay": cfg.weight_decay if decays else 0.0,
            "is_head": head,
            "full_rate": head_rate if head else cfg.learning_rate,
        }
        for (head, decays), parameters in groups.items()
    ]
