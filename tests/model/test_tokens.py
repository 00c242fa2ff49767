"""Tests that packed pairs equal the tokenizer's, with every length and truncation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.errors import ModelError
from reranker.model import tokens
from tests.helpers import hub

TEXTS = st.lists(st.text(alphabet="ab c,?[SEP]", max_size=40), min_size=1, max_size=6)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from transformers import AutoTokenizer

    folders: list[Path] = list(hub.write_both(tmp_path_factory.mktemp("tokenizers")).values())
    return {
        name: AutoTokenizer.from_pretrained(f)
        for name, f in zip(("bert", "xlm-r"), folders, strict=True)
    }


@settings(max_examples=60, deadline=None)
@given(
    queries=TEXTS,
    candidates=TEXTS,
    max_length=st.integers(5, 60),
    left=st.booleans(),
    data=st.data(),
)
@pytest.mark.parametrize("name", ["bert", "xlm-r"])
def test_a_packed_pair_equals_the_tokenizers_with_any_truncation(
    name: str,
    tokenizers,
    queries: list[str],
    candidates: list[str],
    max_length: int,
    left: bool,
    data: st.DataObject,
) -> None:
    tokenizer = tokenizers[name]
    tokenizer.model_max_length, tokenizer.truncation_side = max_length, "left" if left else "right"
    n = data.draw(st.integers(1, 8))
    query, candidate = (
        np.array(data.draw(st.lists(st.integers(0, len(side) - 1), min_size=n, max_size=n)))
        for side in (queries, candidates)
    )
    sides = tokens.tokenise(tokenizer, queries), tokens.tokenise(tokenizer, candidates)
    batch = tokens.assemble(tokens.template(tokenizer), *sides, query, candidate)
    expected = tokenizer(
        [queries[i] for i in query],
        [candidates[i] for i in candidate],
        truncation="longest_first",
        return_token_type_ids=True,
        verbose=False,
    )
    for row, (start, end) in enumerate(zip(batch.start, batch.start[1:], strict=False)):
        assert batch.ids[start:end].tolist() == expected["input_ids"][row]
        assert batch.positions[start:end].tolist() == list(range(end - start))
        if name == "bert":
            assert batch.types[start:end].tolist() == expected["token_type_ids"][row]
    if name == "xlm-r":
        assert set(batch.types.tolist()) == {0}  # the model has one type, unlike its tokenizer


@settings(max_examples=60, deadline=None)
@given(queries=TEXTS, candidates=TEXTS, max_length=st.integers(8, 60))
@pytest.mark.parametrize("name", ["bert", "xlm-r"])
def test_a_shared_context_and_its_candidate_equal_the_joined_truncated_pair(
    name: str, tokenizers, queries: list[str], candidates: list[str], max_length: int
) -> None:
    """Reference: the joined pair of the truncated query and candidate, built by hand."""
    tokenizer = tokenizers[name]
    tokenizer.model_max_length, tokenizer.truncation_side = max_length, "right"
    form = tokens.template(tokenizer)
    sides = tokens.tokenise(tokenizer, queries), tokens.tokenise(tokenizer, candidates)
    query, candidate = (g.ravel() for g in np.meshgrid(range(len(queries)), range(len(candidates))))
    batch = tokens.assemble_shared(form, *sides, query, candidate)
    assert np.flatnonzero(batch.context == -1).tolist() == list(range(len(queries)))
    for q, c, segment in zip(query, candidate, batch.pair, strict=True):
        rows = [np.arange(*batch.start[s : s + 2]) for s in (batch.context[segment], segment)]
        order = np.concatenate([rows[1][: len(form.before)], rows[0], rows[1][len(form.before) :]])
        q_ids, c_ids = (
            side.ids[side.start[text] : side.start[text + 1]]
            for side, text in zip(sides, (q, c), strict=True)
        )
        q_ids = q_ids[: form.max_tokens // 2]
        c_ids = c_ids[: form.max_tokens - len(q_ids)]
        expected = [*form.before, *q_ids, *form.between, *c_ids, *form.after]
        assert batch.ids[order].tolist() == expected
        assert batch.positions[order].tolist() == list(range(len(expected)))
        if name == "bert":
            n_first = 1 + len(q_ids) + 1
            assert batch.types[order].tolist() == [0] * n_first + [1] * (len(expected) - n_first)


def test_no_texts_and_no_pairs_have_no_tokens(tokenizers) -> None:
    none = tokens.tokenise(tokenizers["bert"], [])
    assert (len(none), none.ids.tolist(), none.lengths.tolist()) == (0, [], [])
    nothing = np.empty(0, dtype=np.int64)
    for assemble in (tokens.assemble, tokens.assemble_shared):
        assert (
            assemble(tokens.template(tokenizers["bert"]), none, none, nothing, nothing).n_tokens
            == 0
        )


def test_a_slow_tokenizer_raises() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"Slow is not a fast tokenizer.*tokenizer.json"):
        tokens.template(Slow())
