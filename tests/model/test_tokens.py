"""Pairs laid out here are the tokenizer's own, to the last id, wherever truncation cuts them."""

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
def test_a_packed_pair_is_the_tokenizers_own_wherever_it_is_cut(
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
        assert set(batch.types.tolist()) == {0}  # it has one type, whatever its tokenizer says


@settings(max_examples=60, deadline=None)
@given(queries=TEXTS, candidates=TEXTS, max_length=st.integers(8, 60))
@pytest.mark.parametrize("name", ["bert", "xlm-r"])
def test_a_context_and_a_candidate_make_the_pair_that_the_tokenizer_makes_of_what_is_left_of_them(
    name: str, tokenizers, queries: list[str], candidates: list[str], max_length: int
) -> None:
    """Oracle: the joined pair of the cut query and candidate; the context's segment is a stretch from its inside."""
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
        q_ids = sides[0].ids[sides[0].start[q] : sides[0].start[q + 1]][: form.max_tokens // 2]
        c_ids = sides[1].ids[sides[1].start[c] : sides[1].start[c + 1]][
            : form.max_tokens - len(q_ids)
        ]
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
    for make in (tokens.assemble, tokens.assemble_shared):
        assert make(tokens.template(tokenizers["bert"]), none, none, nothing, nothing).n_tokens == 0


def test_a_tokenizer_that_cannot_say_what_its_tokens_are_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(ModelError, match=r"Slow is no fast tokenizer.*tokenizer.json"):
        tokens.template(Slow())
