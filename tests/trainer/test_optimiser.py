"""The learning-rate schedule, weight decay, clipping, and a head with its own rate."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from reranker.config import ModelConfig, TrainerConfig
from reranker.model import Encoder, load
from reranker.trainer.optimiser import Optimiser, is_head, rate_factor

TINY = ModelConfig(name="tiny", source="random", max_length=32)


def half_cosine(x: float) -> float:
    return (1 - math.cos(math.pi * x)) / 2


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        ("cosine", [0.5, 1.0, 1.0, half_cosine(0.75), 0.5, half_cosine(0.25)]),
    ],
)
def test_the_rate_rises_during_the_warm_up_and_then_falls(
    schedule: str, expected: list[float]
) -> None:
    cfg = TrainerConfig(warmup_fraction=0.3, schedule=schedule)  # 0.3 * 6 steps, rounded up: 2
    assert [rate_factor(step, 6, cfg) for step in range(6)] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        (0, [1.0, 2 / 3, 1 / 3]),
        (1, [1.0, 1.0, 0.5]),
        (2, [0.5, 1.0, 1.0]),
        (6, [1 / 6, 1 / 3, 0.5]),  # longer than the training: the rate never stops rising
    ],
)
def test_a_number_of_warm_up_steps_replaces_the_fraction(steps: int, expected: list[float]) -> None:
    cfg = TrainerConfig(warmup_fraction=0.9, warmup_steps=steps)
    assert [rate_factor(step, 3, cfg) for step in range(3)] == pytest.approx(expected)


def set_gradients(encoder: Encoder, value: float) -> None:
    for parameter in encoder.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, value)


@pytest.mark.slow
def test_only_the_head_is_trained_while_the_body_is_frozen() -> None:
    encoder = load(TINY)
    encoder.new_head = True
    cfg = TrainerConfig(
        learning_rate=1e-3,
        head_learning_rate=1e-2,
        weight_decay=0,
        warmup_fraction=0,
        max_grad_norm=None,
    )
    optimiser = Optimiser(encoder, dataclasses.replace(cfg, freeze_body_fraction=0.5), n_steps=2)
    for step, (body, head) in enumerate([(0.0, 1e-2), (0.5e-3, 0.5e-2)]):
        before = {name: p.detach().clone() for name, p in encoder.model.named_parameters()}
        optimiser.begin(step)
        set_gradients(encoder, 1.0)
        optimiser.finish(1)
        for name, parameter in encoder.model.named_parameters():
            # With a constant gradient, a step of AdamW has the length of the rate.
            distance = float((parameter.detach() - before[name]).abs().max())
            rate = head if is_head(encoder, name) else body
            assert distance == pytest.approx(rate, rel=1e-3), name
    names = [name for name, _ in encoder.model.named_parameters() if is_head(encoder, name)]
    assert len(names) == 4  # weights and biases of pooler and classifier
    optimiser.close()
    assert all(p.requires_grad and p.grad is None for p in encoder.model.parameters())


@pytest.mark.slow
def test_a_head_from_the_checkpoint_has_the_bodys_rate(tmp_path: Path) -> None:
    load(TINY).save(tmp_path)
    encoder = load(ModelConfig(name="path", source="path", path=str(tmp_path), max_length=32))
    cfg = TrainerConfig(learning_rate=1e-3, head_learning_rate=1e-2)
    optimiser = Optimiser(encoder, cfg, n_steps=2)
    assert {group["full_rate"] for group in optimiser.adamw.param_groups} == {1e-3}


@pytest.mark.slow
def test_a_body_that_is_unfrozen_later_has_its_own_warm_up() -> None:
    cfg = TrainerConfig(learning_rate=1.0, warmup_fraction=0.2, freeze_body_fraction=0.4)
    # 2 steps of warm-up, and 4 steps in which only the head is trained.
    optimiser = Optimiser(load(TINY), cfg, n_steps=10)
    found = [optimiser.begin(step) for step in range(10)]
    assert found == pytest.approx([0, 0, 0, 0, 1 / 2, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8])
    optimiser.begin(4)
    rates = {group["is_head"]: group["lr"] for group in optimiser.adamw.param_groups}
    assert rates == pytest.approx({True: 6 / 8, False: 1 / 2})


@pytest.mark.slow
def test_weight_decay_excludes_biases_and_layer_norms() -> None:
    encoder = load(TINY)
    before = {name: p.detach().clone() for name, p in encoder.model.named_parameters()}
    cfg = TrainerConfig(learning_rate=0.1, weight_decay=0.5, warmup_fraction=0)
    optimiser = Optimiser(encoder, cfg, n_steps=1)
    optimiser.begin(0)
    set_gradients(encoder, 0.0)
    optimiser.finish(1)
    for name, parameter in encoder.model.named_parameters():
        decays = "LayerNorm" not in name and not name.endswith("bias")
        factor = 1 - 0.1 * 0.5 if decays else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * factor)


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 1.0])
def test_summed_gradients_are_divided_then_clipped(limit: float | None) -> None:
    encoder = load(TINY)
    optimiser = Optimiser(encoder, TrainerConfig(max_grad_norm=limit), n_steps=1)
    n = sum(p.numel() for p in encoder.model.parameters())
    seen: list[torch.Tensor] = []
    names = [name for name, _ in encoder.model.named_parameters()]
    bias = encoder.model.get_parameter(next(name for name in names if "bias" in name))
    optimiser.adamw.register_step_pre_hook(lambda *_: seen.append(bias.grad.clone()))
    optimiser.begin(0)
    set_gradients(encoder, 6.0)
    assert optimiser.finish(3) == pytest.approx(2 * math.sqrt(n))
    expected = 2.0 if limit is None else 1 / math.sqrt(n)
    torch.testing.assert_close(seen[0], torch.full_like(bias, expected))


@pytest.mark.slow
@pytest.mark.parametrize(("value", "n_terms"), [(math.nan, 1), (math.inf, 1), (1.0, 0)])
def test_no_step_is_taken_without_terms_or_with_a_gradient_that_is_not_finite(
    value: float, n_terms: int
) -> None:
    encoder = load(TINY)
    before = [p.detach().clone() for p in encoder.model.parameters()]
    optimiser = Optimiser(encoder, TrainerConfig(), n_steps=1)
    optimiser.begin(0)
    set_gradients(encoder, value)
    norm = optimiser.finish(n_terms)
    assert norm == 0 if not n_terms else not math.isfinite(norm)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.model.parameters(), strict=True))
