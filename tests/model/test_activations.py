"""Activations of the logit: one meaning in torch, numpy, saved folders, ranking and calibration."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit

from reranker.config import CHOICES
from reranker.model import activations, load
from tests.helpers.weights import CANDIDATES, QUERIES, TINY, at

NAMES = CHOICES["model.activation"]
LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=20)


def test_every_choice_has_an_activation() -> None:
    assert set(activations.MODULES) == set(NAMES)
    with pytest.raises(ValueError, match="activation='gelu' is unknown; choose one of identity"):
        activations.apply("gelu", np.zeros(1))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_numpy_and_torch_agree(name: str) -> None:
    import torch

    logits = np.linspace(-20, 20, 401, dtype=np.float32)
    module = activations.module(name)
    expected = module(torch.from_numpy(logits)).numpy()
    np.testing.assert_allclose(activations.apply(name, logits), expected, atol=1e-6)
    assert activations.name_of(module) == name


@pytest.mark.parametrize("name", ["identity", "sigmoid", "tanh"])
@given(logits=LOGITS)
def test_a_monotone_activation_never_reverses_two_logits(name: str, logits: list[float]) -> None:
    scores = activations.apply(name, np.sort(np.array(logits)))
    assert (np.diff(scores) >= 0).all()


def test_relu_ties_negative_logits_and_silu_reverses_those_below_its_minimum() -> None:
    relu = activations.apply("relu", np.array([-3.0, -0.1, 0.5]))
    assert relu.tolist() == [0, 0, 0.5]
    silu = activations.apply("silu", np.array([-8.0, -4.0, -1.28, 0.0, 1.0]))
    assert silu.argsort().tolist() == [2, 1, 0, 3, 4]


@pytest.mark.parametrize("name", NAMES)
@given(logit=st.floats(-30, 30).filter(lambda value: abs(value) > 1e-6))
def test_a_score_is_above_the_threshold_exactly_if_the_logit_is_positive(
    name: str, logit: float
) -> None:
    score = activations.apply(name, np.array([logit]))[0]
    assert (score > activations.threshold(name)) == (logit > 0)


@given(logits=LOGITS)
def test_the_probability_is_the_sigmoid_of_the_logit_where_it_can_be_known(
    logits: list[float],
) -> None:
    exact = np.array(logits)
    for name in ("identity", "sigmoid", "tanh"):
        scores = activations.apply(name, exact)
        np.testing.assert_allclose(activations.probability(name, scores), expit(exact), atol=1e-4)
    for name, lowest in (("relu", 0.5), ("silu", 0.43)):
        assert activations.probability(name, activations.apply(name, exact)).min() >= lowest
    assert activations.probability("tanh", np.array([-1.0, 1.0])).tolist() == [0, 1]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_sentence_transformers_gives_a_saved_model_the_same_scores(
    name: str, tmp_path: Path
) -> None:
    from sentence_transformers.cross_encoder import CrossEncoder

    encoder = load(dataclasses.replace(TINY, activation=name))
    encoder.save(tmp_path)
    scores = encoder.score(QUERIES, CANDIDATES)
    stock = CrossEncoder(str(tmp_path), local_files_only=True, device="cpu")
    pairs = list(zip(QUERIES, CANDIDATES, strict=True))
    np.testing.assert_allclose(stock.predict(pairs, show_progress_bar=False), scores, atol=1e-5)
    again = load(dataclasses.replace(at(tmp_path, max_length=64), activation=name))
    np.testing.assert_array_equal(again.score(QUERIES, CANDIDATES), scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_scores_are_the_activation_of_the_logits(name: str) -> None:
    logits = load(TINY).score(QUERIES, CANDIDATES)
    scores = load(dataclasses.replace(TINY, activation=name)).score(QUERIES, CANDIDATES)
    np.testing.assert_allclose(scores, activations.apply(name, logits), atol=1e-6)
