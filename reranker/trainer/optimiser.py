"""AdamW with a rate of its own for the head, a schedule, and gradients that are sums until the step is whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from reranker.config import TrainerConfig
from reranker.model import Encoder

if TYPE_CHECKING:
    from torch.nn import Parameter


class Optimiser:
    """Fused AdamW over an encoder's parameters, in fp32.

    Biases and LayerNorms do not decay. The head is what comes after the body's last layer: pooler and classifier.

    Attributes:
        adamw: What takes the steps.
        parameters: All of the model's, in its own order.
        n_steps: Steps of the whole training.
        n_frozen: The first of them, in which the head learns alone.
    """

    def __init__(self, encoder: Encoder, cfg: TrainerConfig, n_steps: int) -> None:
        import torch

        named = list(encoder.model.named_parameters())
        self.cfg = cfg
        self.n_steps = n_steps
        self.n_frozen = math.floor(cfg.freeze_body_fraction * n_steps)
        self.parameters = [p for _, p in named]
        self._body = [p for name, p in named if not is_head(encoder, name)]
        self.adamw = torch.optim.AdamW(
            _groups(encoder, cfg, named), lr=cfg.learning_rate, fused=True
        )

    def begin(self, step: int) -> float:
        """Set the learning rate of step `step`, from 0, and which parameters learn; returns the body's rate.

        The body, whose moments are empty when it thaws, then has a warm-up of its own, as long as the head's; while it
        is frozen its rate is 0.
        """
        share = scheduled(step, self.n_steps, self.cfg)
        body = min(share, warmed(step - self.n_frozen, self.n_steps, self.cfg))
        for group in self.adamw.param_groups:
            group["lr"] = group["full_rate"] * (share if group["is_head"] else body)
        for parameter in self._body:
            parameter.requires_grad_(step >= self.n_frozen)
        return self.cfg.learning_rate * body

    def finish(self, n_terms: float) -> float:
        """Divide the summed gradients by the number of terms, shorten them, take the step; returns their norm before.

        A norm that is not finite takes no step. Without terms there is nothing to learn: the norm is 0, and no step.
        """
        import torch

        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = float(torch.nn.utils.get_total_norm(gradients)) / n_terms if n_terms else 0.0
        if n_terms and math.isfinite(norm):
            most = self.cfg.max_grad_norm
            shorter = 1.0 if most is None else min(1.0, most / (norm + 1e-6))
            torch._foreach_mul_(gradients, shorter / n_terms)
            self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        return norm

    def close(self) -> None:
        """Leave the parameters as they came: without gradients, none frozen."""
        self.adamw.zero_grad(set_to_none=True)
        for parameter in self._body:
            parameter.requires_grad_(True)

    def state(self) -> dict[str, Any]:
        """AdamW's moments and step counts, for a checkpoint."""
        return self.adamw.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.adamw.load_state_dict(state)


def scheduled(step: int, n_steps: int, cfg: TrainerConfig) -> float:
    """The learning rate of a step, from 0, as a share of the full one: in (0, 1], for the last step too.

    It rises linearly over the first warmup_fraction of the steps, and then falls linearly or as a half cosine.
    """
    n_warmup = math.ceil(cfg.warmup_fraction * n_steps)
    if step < n_warmup:
        return warmed(step, n_steps, cfg)
    left = (n_steps - step) / max(n_steps - n_warmup, 1)
    return left if cfg.schedule == "linear" else (1 - math.cos(math.pi * left)) / 2


def warmed(n_done: int, n_steps: int, cfg: TrainerConfig) -> float:
    """How far a warm-up has come, in [0, 1], in the step after n_done of its own; below 0 it has not begun."""
    n_warmup = math.ceil(cfg.warmup_fraction * n_steps)
    return 0.0 if n_done < 0 else min((n_done + 1) / max(n_warmup, 1), 1.0)


def is_head(encoder: Encoder, name: str) -> bool:
    """Whether a parameter, by its name in `encoder.model`, comes after the body's last layer."""
    body: Any = encoder.model[0].model
    return ".pooler." in name or f".{body.base_model_prefix}." not in f".{name}"


def _groups(
    encoder: Encoder, cfg: TrainerConfig, named: list[tuple[str, Parameter]]
) -> list[dict[str, Any]]:
    """Parameters by head and decay, each with its rate; no group is empty."""
    groups: dict[tuple[bool, bool], list[Parameter]] = {}
    for name, parameter in named:  # biases and LayerNorms are the parameters of one dimension
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
