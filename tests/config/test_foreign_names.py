"""Names that users of the original system or of sentence-transformers try."""

from __future__ import annotations

import re

import pytest

from reranker.config import compose
from reranker.config.composing import check_overrides
from reranker.config.foreign_names import KEYS, foreign_message
from reranker.errors import ConfigError


@pytest.mark.parametrize("name", sorted(KEYS))
@pytest.mark.parametrize("group", ["trainer.", "model.", ""])
def test_a_foreign_name_is_refused_with_what_to_use(name: str, group: str) -> None:
    key = f"{group}{name}"
    if key in ("output_dir",):  # the project's own key
        return check_overrides([f"{key}=somewhere"])
    with pytest.raises(ConfigError, match=re.escape(f"{key} is not a key here; use ")):
        check_overrides([f"{key}=1"])


def test_capitals_do_not_matter() -> None:
    assert foreign_message("sampling.MAX_POSITIVES_TO_SAMPLE") == (
        "sampling.MAX_POSITIVES_TO_SAMPLE is not a key here; use sampling.max_positives."
    )


def test_every_key_that_is_named_exists() -> None:
    names = {word for text in KEYS.values() for word in re.findall(r"\b[a-z]+\.[a-z_]+\b", text)}
    assert len(names) > 15
    for name in names:
        check_overrides([f"{name}=null"])


def test_own_keys_are_not_foreign() -> None:
    assert compose(["sampling.negatives_per_positive=2"]).sampling.negatives_per_positive == 2
