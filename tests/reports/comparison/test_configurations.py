"""Runs are grouped by settings across seeds, and every difference appears in a name."""

from __future__ import annotations

from reranker.reports.comparison.configurations import (
    ABSENT,
    configurations,
    differ_only_in_seeds,
)

BASE = {
    "model.name": "minilm",
    "model.source": "wheel x",
    "sampling.neg_ratio": "3",
    "trainer.seed": "0",
}


def runs(*changes: dict[str, str]) -> dict[str, dict[str, str]]:
    """Runs `run0`, `run1`, … of the base with these changes."""
    return {f"run{i}": BASE | c for i, c in enumerate(changes)}


def test_runs_that_differ_only_in_seeds_are_one_configuration_ordered_by_seed() -> None:
    ratio = "sampling.neg_ratio"
    given = runs(
        {"trainer.seed": "2"},
        {"trainer.seed": "1"},
        {ratio: "5", "trainer.seed": "1"},
        {ratio: "5"},
    )
    first, second = configurations(given)
    assert (first.name, first.run_ids, first.seeds) == (
        "sampling.neg_ratio=3",
        ("run1", "run0"),
        ("trainer.seed=1", "trainer.seed=2"),
    )
    assert (second.name, second.run_ids) == ("sampling.neg_ratio=5", ("run3", "run2"))
    assert second.settings == {"sampling.neg_ratio": "5"}


def test_without_other_settings_every_seed_is_a_configuration() -> None:
    given = runs({}, {"trainer.seed": "1"})
    assert differ_only_in_seeds(given)
    assert [c.name for c in configurations(given)] == ["trainer.seed=0", "trainer.seed=1"]


def test_a_seed_that_follows_is_not_shown() -> None:
    def of(seed: str, trainer: str) -> dict[str, str]:
        return {"seed": seed, "data.seed": seed, "trainer.seed": trainer}

    given = runs(of("0", "0"), of("1", "1"))
    assert [c.name for c in configurations(given)] == ["seed=0", "seed=1"]
    given = runs(of("0", "0"), of("0", "1"))
    assert [c.name for c in configurations(given)] == ["trainer.seed=0", "trainer.seed=1"]
    given = runs(of("1", "1") | {"sampling.neg_ratio": "5"}, of("0", "0"), of("1", "1"))
    assert [c.seeds for c in configurations(given)] == [("seed=1",), ("seed=0", "seed=1")]


def test_the_seed_of_random_weights_is_a_seed() -> None:
    names = [
        {"model.source": f"random seed {seed}", "sampling.neg_ratio": n}
        for n in "35"
        for seed in "01"
    ]
    assert [len(c.run_ids) for c in configurations(runs(*names))] == [2, 2]


def test_a_repeated_run_is_not_averaged_with_the_first() -> None:
    given = runs({}, {})
    assert not differ_only_in_seeds(given)
    assert [c.name for c in configurations(given)] == ["run run0", "run run1"]
    again = configurations(runs({}, {}, {"sampling.neg_ratio": "5"}))
    assert [c.name for c in again] == [
        "sampling.neg_ratio=3 run run0",
        "sampling.neg_ratio=3 run run1",
        "sampling.neg_ratio=5",
    ]


def test_every_differing_key_is_in_the_name_except_a_source_implied_by_the_model_name() -> None:
    given = runs({}, {"model.name": "bge", "model.source": "hub b", "sampling.neg_ratio": "5"})
    assert [c.name for c in configurations(given)] == [
        "model.name=minilm sampling.neg_ratio=3",
        "model.name=bge sampling.neg_ratio=5",
    ]
    folders = runs({"model.source": "path /a"}, {"model.source": "path /b"})
    assert [c.name for c in configurations(folders)] == [
        "model.source=path /a",
        "model.source=path /b",
    ]


def test_keys_that_change_together_are_one_setting_and_others_are_not() -> None:
    mixed = {"sampling.strategy": "mix", "sampling.mix": "{'uniform': 1.0}"}
    plain = {"sampling.strategy": "uniform", "sampling.mix": "{}"}
    given = runs(*({**s, "sampling.neg_ratio": n} for s in (plain, mixed) for n in "35"))
    settings = [c.settings for c in configurations(given)]
    assert settings[0] == {
        "sampling.mix, sampling.strategy": "{}, uniform",
        "sampling.neg_ratio": "3",
    }
    assert settings[3] == {
        "sampling.mix, sampling.strategy": "{'uniform': 1.0}, mix",
        "sampling.neg_ratio": "5",
    }


def test_a_param_that_a_run_lacks_is_a_difference() -> None:
    given = runs({}, {"eval.retriever": "ease"})
    assert [c.settings for c in configurations(given)] == [
        {"eval.retriever": ABSENT},
        {"eval.retriever": "ease"},
    ]


def test_long_values_are_cut_and_names_stay_distinct() -> None:
    given = runs(*({"data.root": "/data/" + "x" * 60 + end} for end in "ab"))
    names = [c.name for c in configurations(given)]
    assert len(set(names)) == 2
    assert all(name.startswith("data.root=/data/xxx") and "… run run" in name for name in names)
