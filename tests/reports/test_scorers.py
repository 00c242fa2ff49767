"""Every scorer and list kind has a name, and scorers that appear together differ in colour."""

from __future__ import annotations

from reranker.config import BASELINES, LIST_KINDS
from reranker.reports.scorers import find_list_kind, find_scorer, scorer_name
from reranker.tracking.metric_names import MODELS

ALL = ("fine_tuned", "fused", "untrained", "retriever", *BASELINES)


def test_every_scorer_has_its_own_name_and_colour() -> None:
    scorers = [find_scorer(key) for key in ALL]
    assert [s.key for s in scorers] == list(ALL)
    assert len({s.name for s in scorers}) == len({s.colour for s in scorers}) == len(ALL)
    assert scorer_name("features_lr") == "numeric features only"


def test_the_scorers_that_come_from_fine_tuning_are_models() -> None:
    models = [find_scorer(key) for key in ALL if find_scorer(key).is_model]
    assert {s.key for s in models} == set(MODELS)
    assert [s.full_name for s in models] == ["the fine-tuned model", "the fused model"]


def test_an_unknown_scorer_is_named_after_its_key() -> None:
    assert (scorer_name("new_one"), find_scorer("new_one").is_model) == ("new one", False)


def test_every_list_kind_has_its_own_title_and_description() -> None:
    kinds = [find_list_kind(key) for key in LIST_KINDS]
    assert [k.key for k in kinds] == list(LIST_KINDS)
    assert len({k.title for k in kinds}) == len({k.description for k in kinds}) == len(kinds)
    assert find_list_kind("new").title == "new lists"
