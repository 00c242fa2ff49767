"""Objectives equal sentence-transformers' losses and do not depend on micro-batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.cross_encoder import CrossEncoder
from sentence_transformers.cross_encoder import losses as stock

from reranker.config import CHOICES
from reranker.trainer.losses import choose

pytestmark = pytest.mark.slow
NAMES = CHOICES["trainer.loss"]
SIZES = [4, 1, 7, 2, 3]  # one group has a single pair


class Stub(CrossEncoder):
    """A cross-encoder for which a document's text is the index of its score."""

    num_labels = 1
    device = torch.device("cpu")

    def __init__(self, scores: torch.Tensor) -> None:
        torch.nn.Module.__init__(self)
        self.scores = scores

    def preprocess(self, pairs: list[tuple[str, str]], **kwargs: object) -> dict[str, torch.Tensor]:
        return {"row": torch.tensor([int(document) for _, document in pairs])}

    def __call__(self, features: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"scores": self.scores[features["row"]]}


def random_batch(
    seed: int, *, graded: bool = False
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return scores, labels and groups in random order; groups of 2 or more have both labels."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(len(SIZES)), SIZES)
    place = np.concatenate([np.arange(n) for n in SIZES])
    label = (place % 3).astype(float) if graded else (place % 3 == 0).astype(float)
    order = rng.permutation(len(group))
    scores = torch.tensor(rng.normal(0, 2, len(group)), dtype=torch.float32)[order]
    return (
        scores.requires_grad_(),
        torch.tensor(label, dtype=torch.float32)[order],
        torch.tensor(group)[order],
    )


def expected(loss: Any, labels: torch.Tensor, group: torch.Tensor) -> torch.Tensor:
    """Return the value of a listwise loss of sentence-transformers for the same groups."""
    rows = [torch.nonzero(group == g).flatten() for g in group.unique()]
    documents = [[str(int(i)) for i in r] for r in rows]
    return loss([["reader"] * len(rows), documents], [labels[r] for r in rows])


LISTWISE = {
    "listnet": stock.ListNetLoss,
    "ranknet": stock.RankNetLoss,
    "lambdaloss": stock.LambdaLoss,
    "plistmle": lambda model: stock.PListMLELoss(model, respect_input_order=False),
}


@pytest.mark.parametrize("name", LISTWISE)
@pytest.mark.parametrize("graded", [False, True])
def test_listwise_losses_and_gradients_equal_sentence_transformers(name: str, graded: bool) -> None:
    scores, labels, group = random_batch(1, graded=graded)
    if name == "plistmle":  # the stock sort is not stable, so all labels must differ
        labels = labels + torch.arange(len(labels)) / 100
    theirs = expected(LISTWISE[name](Stub(scores)), labels, group)
    (expected_gradient,) = torch.autograd.grad(theirs, scores)
    total, n = choose(name)(scores, labels, group)
    (gradient,) = torch.autograd.grad(total / n, scores)
    torch.testing.assert_close(total / n, theirs, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("pos_weight", [1.0, 3.0])
def test_bce_equals_sentence_transformers(pos_weight: float) -> None:
    scores, labels, group = random_batch(2)
    theirs = stock.BinaryCrossEntropyLoss(Stub(scores), pos_weight=torch.tensor(pos_weight))
    documents = [str(i) for i in range(len(scores))]
    total, n = choose("bce", pos_weight=pos_weight)(scores, labels, group)
    torch.testing.assert_close(total / n, theirs([["reader"] * len(scores), documents], labels))


def test_mse_and_margin_mse_equal_sentence_transformers_on_two_candidates() -> None:
    scores, _, _ = random_batch(3)
    scores = scores[:12]
    teacher = torch.linspace(-3, 4, 12)
    group = torch.arange(6).repeat(2)  # row i and row i + 6 are the two candidates of query i
    theirs = stock.MSELoss(Stub(scores))([["reader"] * 12, [str(i) for i in range(12)]], teacher)
    total, n = choose("mse")(scores, teacher, group)
    torch.testing.assert_close(total / n, theirs)
    texts = [["reader"] * 6, [str(i) for i in range(6)], [str(i) for i in range(6, 12)]]
    theirs = stock.MarginMSELoss(Stub(scores))(texts, teacher[:6] - teacher[6:])
    total, n = choose("margin_mse")(scores, teacher, group)
    assert n == 6
    torch.testing.assert_close(total / n, theirs)


def test_margin_mse_compares_every_two_pairs_of_a_group() -> None:
    scores, teacher = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([0.0, 3.0, 3.0])
    total, n = choose("margin_mse")(scores, teacher, torch.zeros(3, dtype=torch.long))
    assert (float(total), int(n)) == ((-1 + 3) ** 2 + (-3 + 3) ** 2 + (-2 - 0) ** 2, 3)


def test_softmax_is_cross_entropy_with_the_groups_labels_scaled_to_one() -> None:
    scores, labels, group = random_batch(4, graded=True)
    terms = []
    for g in group.unique():
        s, y = scores[group == g], labels[group == g]
        if y.sum() > 0:
            terms.append(torch.nn.functional.cross_entropy(s[None], (y / y.sum())[None]))
    total, n = choose("softmax")(scores, labels, group)
    assert int(n) == len(terms) == 4  # the group with a single pair has no positive
    torch.testing.assert_close(total / n, torch.stack(terms).mean())


@pytest.mark.parametrize("name", NAMES)
@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=10, deadline=None)
def test_a_loss_is_the_same_for_any_micro_batches(name: str, seed: int) -> None:
    scores, labels, group = random_batch(seed)
    batch_of_group = np.random.default_rng(seed).integers(0, 3, len(SIZES))
    batch = torch.tensor(batch_of_group)[group]
    loss = choose(name, pos_weight=2.0)
    expected_total, n = loss(scores, labels, group)
    masks = [batch == i for i in batch.unique()]
    parts = [loss(scores[mask], labels[mask], group[mask]) for mask in masks]
    assert sum(float(m) for _, m in parts) == float(n)
    found = sum(total for total, _ in parts)
    torch.testing.assert_close(found, expected_total, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "name", [name for name in NAMES if name not in ("bce", "mse", "margin_mse")]
)
def test_equal_labels_give_a_finite_gradient(name: str) -> None:
    scores = torch.tensor([3.0, -60.0, 60.0], requires_grad=True)
    total, n = choose(name)(scores, torch.zeros(3), torch.tensor([0, 0, 1]))
    assert int(n) == (2 if name in ("listnet", "plistmle") else 0)
    total.backward()
    assert scores.grad is not None
    assert torch.isfinite(scores.grad).all()
    assert int(n) or not scores.grad.any()
