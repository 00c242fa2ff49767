"""The schedule rises and falls, biases do not decay, the head has a rate of its own and may learn alone."""

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


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("linear", [0.5, 1.0, 1.0, 0.75, 0.5, 0.25]),
        (
            "cosine",
            [
                0.5,
                1.0,
                1.0,
                (1 - math.cos(math.pi * 0.75)) / 2,
                0.5,
                (1 - math.cos(math.pi * 0.25)) / 2,
            ],
        ),
    ],
)
def test_the_rate_rises_over_the_warm_up_and_falls_to_the_last_step(
    schedule: str, expected: list[float]
) -> None:
    cfg = TrainerConfig(warmup_fraction=0.3, schedule=schedule)  # 0.3 * 6 steps, rounded up: 2
    assert [rate_factor(step, 6, cfg) for step in range(6)] == pytest.approx(expected)


def gradients(encoder: Encoder, value: float) -> None:
    for parameter in encoder.model.parameters():
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, value)


@pytest.mark.slow
def test_the_head_learns_alone_at_first_and_at_its_own_rate() -> None:
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
        gradients(encoder, 1.0)
        optimiser.finish(1)
        moved = {
            n: float((p.detach() - before[n]).abs().max())
            for n, p in encoder.model.named_parameters()
        }
        for (
            name,
            distance,
        ) in moved.items():  # AdamW moves by the rate where the gradient stays the same
            assert distance == pytest.approx(head if is_head(encoder, name) else body, rel=1e-3), (
                name
            )
    assert (
        sum(is_head(encoder, name) for name, _ in encoder.model.named_parameters()) == 4
    )  # pooler and classifier
    optimiser.close()
    assert all(p.requires_grad and p.grad is None for p in encoder.model.parameters())


@pytest.mark.slow
def test_a_head_that_came_with_the_weights_learns_at_the_bodys_rate(tmp_path: Path) -> None:
    load(TINY).save(tmp_path)
    encoder = load(
        ModelConfig(name="path", source="path", path=str(tmp_path), max_length=TINY.max_length)
    )
    optimiser = Optimiser(
        encoder, TrainerConfig(learning_rate=1e-3, head_learning_rate=1e-2), n_steps=2
    )
    assert {group["full_rate"] for group in optimiser.adamw.param_groups} == {1e-3}


@pytest.mark.slow
def test_a_body_that_thaws_late_has_a_warm_up_of_its_own() -> None:
    cfg = TrainerConfig(learning_rate=1.0, warmup_fraction=0.2, freeze_body_fraction=0.4)
    optimiser = Optimiser(
        load(TINY), cfg, n_steps=10
    )  # 2 steps of warm-up, 4 in which the head learns alone
    found = [optimiser.begin(step) for step in range(10)]
    assert found == pytest.approx(
        [0, 0, 0, 0, 1 / 2, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    )  # at step 4 of 6 / 8
    optimiser.begin(4)
    assert {g["is_head"]: g["lr"] for g in optimiser.adamw.param_groups} == pytest.approx(
        {True: 6 / 8, False: 1 / 2}
    )


@pytest.mark.slow
def test_weights_decay_and_biases_and_layer_norms_do_not() -> None:
    encoder = load(TINY)
    before = {name: p.detach().clone() for name, p in encoder.model.named_parameters()}
    optimiser = Optimiser(
        encoder, TrainerConfig(learning_rate=0.1, weight_decay=0.5, warmup_fraction=0), n_steps=1
    )
    optimiser.begin(0)
    gradients(encoder, 0.0)
    optimiser.finish(1)
    for name, parameter in encoder.model.named_parameters():
        kept = 1 - 0.1 * 0.5 if "LayerNorm" not in name and not name.endswith("bias") else 1.0
        torch.testing.assert_close(parameter.detach(), before[name] * kept)


@pytest.mark.slow
@pytest.mark.parametrize("most", [None, 1.0])
def test_summed_gradients_are_divided_then_shortened(most: float | None) -> None:
    encoder = load(TINY)
    optimiser = Optimiser(encoder, TrainerConfig(max_grad_norm=most), n_steps=1)
    n = sum(p.numel() for p in encoder.model.parameters())
    seen: list[torch.Tensor] = []
    bias = encoder.model.get_parameter(
        next(name for name, _ in encoder.model.named_parameters() if "bias" in name)
    )
    optimiser.adamw.register_step_pre_hook(lambda *_: seen.append(bias.grad.clone()))
    optimiser.begin(0)
    gradients(encoder, 6.0)
    assert optimiser.finish(3) == pytest.approx(2 * math.sqrt(n))
    torch.testing.assert_close(
        seen[0], torch.full_like(bias, 2.0 if most is None else 1 / math.sqrt(n))
    )


@pytest.mark.slow
@pytest.mark.parametrize(("value", "n_terms"), [(math.nan, 1), (math.inf, 1), (1.0, 0)])
def test_no_step_is_taken_on_a_gradient_that_is_not_finite_or_of_no_terms(
    value: float, n_terms: int
) -> None:
    encoder = load(TINY)
    before = [p.detach().clone() for p in encoder.model.parameters()]
    optimiser = Optimiser(encoder, TrainerConfig(), n_steps=1)
    optimiser.begin(0)
    gradients(encoder, value)
    norm = optimiser.finish(n_terms)
    assert norm == 0 if not n_terms else not math.isfinite(norm)
    assert all(torch.equal(a, b) for a, b in zip(before, encoder.model.parameters(), strict=True))
