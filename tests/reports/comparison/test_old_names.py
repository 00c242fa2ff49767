"""Runs of earlier versions are read under today's names."""

from __future__ import annotations

import pandas as pd

from reranker.config.schema import added_defaults
from reranker.reports.comparison.configurations import configurations
from reranker.reports.comparison.old_names import rename_hash, rename_params, rename_rows
from reranker.tracking.metric_names import params
from tests.helpers.tracked import config

OLD = {
    "eval.kinds": "uniform,seed",
    "eval.baselines": "random,numbers,bm25",
    "sampling.context": "split",
    "trainer.teacher": "numbers",
    "data.shows_match": "True",
    "data.shows_ratings": "False",
    "data.shows_readers": "True",
}
NEW = {
    "eval.list_kinds": "uniform,bookdb",
    "eval.baselines": "random,features_lr,bm25",
    "sampling.context": "holdout",
    "trainer.teacher": "features_lr",
    "data.text_features": "authors,genres,readers",
}


def test_old_params_get_new_keys_and_values() -> None:
    assert rename_params(OLD) == NEW


def test_new_params_and_unknown_ones_stay_as_they_are() -> None:
    params = NEW | {"data.context_template": "Likes: {titles}, {genres}", "data.text": "split"}
    assert rename_params(params) == params


def test_a_key_that_was_added_later_is_a_difference_only_if_it_is_set() -> None:
    assert "trainer.evaluation_steps" in added_defaults()
    before = params(config())
    old = {key: value for key, value in before.items() if key not in added_defaults()}
    assert rename_params(before) == rename_params(old)
    assert rename_params(old | {"trainer.evaluation_steps": "5"}) != rename_params(old)


def test_an_earlier_run_with_its_own_seeds_is_one_with_the_seed_0() -> None:
    own = {"data.seed": "0", "trainer.seed": "1"}
    assert rename_params(own) == own | {"seed": "0"}
    assert rename_params(own | {"seed": "3"}) == own | {"seed": "3"}


def test_the_order_of_text_features_is_no_difference() -> None:
    renamed = rename_params({"data.text_features": "readers,ease"})
    assert renamed == {"data.text_features": "ease,readers"}


def test_a_run_without_text_features_has_an_empty_list() -> None:
    off = {key: "False" for key in OLD if key.startswith("data.shows")}
    assert rename_params(off) == {"data.text_features": ""}


def test_an_old_and_a_new_run_with_equal_settings_differ_in_nothing() -> None:
    old, new = configurations({"a" * 8: rename_params(OLD), "b" * 8: rename_params(NEW)})
    assert old.settings == new.settings == {}


def test_hashes_of_the_original_systems_lists_are_renamed() -> None:
    names = ("lists/test/seed", "lists/test/uniform", "lists/dev")
    assert [rename_hash(name) for name in names] == [
        "lists/test/bookdb",
        "lists/test/uniform",
        "lists/dev",
    ]


def test_scorers_and_list_kinds_of_per_user_values_are_renamed() -> None:
    rows = pd.DataFrame(
        {
            "scorer": ["before", "numbers", "fine_tuned"],
            "kind": ["seed", "uniform", "seed"],
            "ndcg_10": [0.1, 0.2, 0.3],
        }
    )
    renamed = rename_rows(rows)
    assert renamed["scorer"].tolist() == ["untrained", "features_lr", "fine_tuned"]
    assert renamed["kind"].tolist() == ["bookdb", "uniform", "bookdb"]
    assert renamed["ndcg_10"].tolist() == [0.1, 0.2, 0.3]
