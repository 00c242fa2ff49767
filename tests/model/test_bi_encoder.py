"""Tests of the bi-encoder's embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from reranker.model import resolve
from reranker.model.bi_encoder import embed
from tests.helpers.weights import WHEEL


@pytest.mark.slow
def test_embeddings_are_the_normalised_mean_of_token_states(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reference: transformers' model, one text at a time, with mean pooling in numpy."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = [
        "A whale and its captain.",
        "Moby Dick",
        "Cooking for two: " + "soups, stews and sauces. " * 80,
    ]
    folder = resolve(WHEEL).folder
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
    monkeypatch.setattr("reranker.model.bi_encoder.BLOCK", 1)
    vectors = embed(texts, batch_size=2)  # two calls of the model
    assert (vectors.shape, vectors.dtype) == ((3, 384), np.float32)
    for text, vector in zip(texts, vectors, strict=True):
        with torch.no_grad():
            tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
            mean = model(**tokens).last_hidden_state[0].numpy().mean(axis=0)
        np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-6)
