"""The run's page puts intervals into words, is self-contained, and fits on a phone."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator
from html import unescape
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    StorageConfig,
    TrackingConfig,
)
from reranker.data import Corpus, build_contexts, load_tables
from reranker.eval import EvalSet, Evaluation, evaluate
from reranker.reports import svg
from reranker.reports.page import number, percent, signed
from reranker.reports.run.list_kinds import KindSummary, summarise_kind
from reranker.reports.run.page import RunSummary, find_examples, page, redacted
from reranker.reports.run.verdicts import check, verdict
from reranker.trainer import History
from tests.conftest import GENRES, some_ratings, write_raw
from tests.helpers.chromium import Measure, measured

EVIL = '<script>document.title = "owned"</script>'
MINUS = "\N{MINUS SIGN}"
NO_DIFFERENCE = "does not differ significantly from"
SECRET = "s3cr3t-canary"
KINDS = ["uniform", "popularity", "retriever"]
HISTORY = History(
    logs=[{"step": 5, "loss": 0.7}, {"step": 5, "dev_ndcg_10": 0.3}, {"step": 10, "loss": 0.5}],
    best_step=5, best_dev=0.3, n_steps=10, pairs_per_s=12.5,
)  # fmt: skip
RESULT: dict[str, Any] = {
    "run_id": "run17",
    "hashes": {"lists/test": "ab" * 32},
    "counts": {"pairs/users_in": 1234},
    "metrics": {"test/ndcg_10": 0.5, "first_stage/recall_12": 0.25},
    "seconds": {"train": 3.0, "evaluate": 1.0},
    "cache_hits": {"tables": True},
    "versions": {"python": "3.11"},
    "machine": {"cpu": "a <b>chip</b>"},
    "git_commit": None,
    "overrides": [f"tracking.uri=postgresql://me:{SECRET}@db/runs"],
    "weights": {"source": "random seed 0"},
}
CHECKS = pd.DataFrame(
    [
        ["uniform", name, "ndcg_10", 0.4, 0.6, 0.2, 0.1, 0.3]
        for name in ("shuffled_contexts", "blank_context")
    ],
    columns=["kind", "check", "metric", "value", "own_value", "gap", "low", "high"],
)
DEPTH = pd.DataFrame(
    [("fine_tuned", d, 0.3 + d / 500) for d in (10, 20, 50)]
    + [("retriever", d, 0.3) for d in (10, 20, 50)],
    columns=["scorer", "depth", "ndcg_10"],
)


def config() -> Config:
    return Config(
        data=DataConfig(
            name="demo", storage=StorageConfig(endpoint_url=f"https://key:{SECRET}@store.example")
        ),
        model=ModelConfig(name="tiny", source="random"),
        eval=EvalConfig(list_kinds=KINDS, n_candidates=12, n_bootstrap=100),
        tracking=TrackingConfig(uri=f"postgresql://me:{SECRET}@db.example/runs"),
        cache_dir="outputs/cache",
    )


def scored(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    """Scores of a model that is good on uniform lists and bad on others, and of six scorers."""
    rng = np.random.default_rng(7)
    label, uniform = frame["label"].to_numpy(), (frame["kind"] == "uniform").to_numpy()
    noise = {
        name: rng.normal(size=len(frame))
        for name in ("random", "popularity", "item_knn", "untrained", "new_one")
    }
    model = rng.normal(size=len(frame)) + np.where(uniform, 4.0, -4.0) * label
    fused = rng.normal(size=len(frame)) + 2.0 * label
    return {**noise, "fine_tuned": model, "fused": fused}


@pytest.fixture(scope="module")
def eval_set(tmp_path_factory: pytest.TempPathFactory) -> EvalSet:
    """Lists of three kinds with scores; titles and user ids are markup."""
    folder = tmp_path_factory.mktemp("run_page")
    ratings = [(f"<b>{user}", book, rating) for user, book, rating in some_ratings()]
    names = {i: f"{EVIL} Book {i}" for i in range(1, 41)}
    cfg = DataConfig(
        name="bookdb", root=str(write_raw(folder / "raw", ratings, titles=names)), genres=GENRES
    )
    cache = Cache(folder / "cache")
    tables = load_tables(cfg, cache)
    corpus = Corpus(tables, build_contexts(tables, cfg))
    made = dataclasses.replace(config().eval, list_kinds=KINDS[:2])
    lists = EvalSet.from_lists(corpus, made, cache, split="test").lists
    retrieved = lists.frame[lists.frame["kind"] == "uniform"].assign(kind="retriever")
    frame = pd.concat([lists.frame, retrieved], ignore_index=True)
    lists = dataclasses.replace(lists, frame=frame)
    return EvalSet(corpus, lists, config().eval, scored(frame))


def summarised(cfg: Config, eval_set: EvalSet) -> RunSummary:
    """Evaluate the scores and choose examples."""
    results = evaluate(eval_set)
    return RunSummary(cfg, results, find_examples(results, eval_set), HISTORY, RESULT)


@pytest.fixture(scope="module")
def summary(eval_set: EvalSet) -> RunSummary:
    made = summarised(config(), eval_set)
    warnings = ("uniform lists: saturation",)
    results = dataclasses.replace(made.evaluation, checks=CHECKS, depth=DEPTH, warnings=warnings)
    return dataclasses.replace(made, evaluation=results)


@pytest.fixture(scope="module")
def html(summary: RunSummary) -> str:
    return page(summary)


@pytest.fixture(scope="module")
def kinds(summary: RunSummary) -> dict[str, KindSummary]:
    """The summary of each list kind without figures, which take nearly all of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svg, "draw", lambda name, make: "<svg></svg>")
        return {key: summarise_kind(summary.evaluation, key) for key in KINDS}


def words(html: str) -> str:
    """The page's text, without figures."""
    text = re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL)
    return unescape(" ".join(text.split()))


def bare(evaluation: Evaluation) -> Evaluation:
    """The evaluation without its optional frames."""
    return Evaluation(evaluation.per_user, evaluation.summary, evaluation.curve, evaluation.lift)


# Words


@pytest.mark.parametrize(
    ("low", "value", "high", "relation", "difference", "outcome"),
    [
        (0.1, 0.2, 0.3, "beats", ", by 0.200 [0.100, 0.300] NDCG@10", "beats"),
        (-0.33, -0.29, -0.25, "loses to", ", by 0.290 [0.250, 0.330] NDCG@10", "loses"),
        (-0.1, 0.05, 0.2, NO_DIFFERENCE, f": +0.050 [{MINUS}0.100, +0.200]", "open"),
        (0.0, 0.1, 0.2, NO_DIFFERENCE, ": +0.100 [+0.000, +0.200]", "open"),
        (math.nan, 0.1, math.nan, "differs from", ", by +0.100 NDCG@10; an interval", "open"),
    ],
)
def test_the_verdict_follows_the_interval(
    low: float, value: float, high: float, relation: str, difference: str, outcome: str
) -> None:
    lift = {"model": "fine_tuned", "over": "item_knn", "lift": value, "low": low, "high": high}
    found = verdict(lift, "popularity", 1200)
    model = "On popularity-matched lists the fine-tuned model"
    assert found.text.startswith(f"{model} {relation} the best baseline, item kNN{difference}")
    assert found.outcome == outcome
    assert ("95 % over 1,200 users" in found.text) == (not math.isnan(low))


@pytest.mark.parametrize(
    ("low", "gap", "high", "change", "size"),
    [
        (0.1, 0.2, 0.3, "falls from 0.600 to 0.400", "+0.200 [+0.100, +0.300]: the ranking uses"),
        (0.0, 0.0, 0.0, "goes from 0.600 to 0.600", "+0.000 [+0.000, +0.000]: no evidence"),
        (
            -0.3,
            -0.2,
            -0.1,
            "rises from 0.600 to 0.800",
            f"{MINUS}0.200 [{MINUS}0.300, {MINUS}0.100]: the user's own context is harmful.",
        ),
    ],
)
def test_a_check_says_whether_the_context_matters(
    low: float, gap: float, high: float, change: str, size: str
) -> None:
    row = {"check": "shuffled_contexts", "own_value": 0.6, "value": 0.6 - gap}
    row |= {"gap": gap, "low": low, "high": high}
    start = f"With another user's context NDCG@10 {change}, a gap of"
    assert check(row).startswith(f"{start} {size}")


def test_nan_is_a_dash_differences_have_a_sign_and_small_fractions_are_not_zero() -> None:
    assert (number(1234.5678, 2), number(math.nan, 2)) == ("1,234.57", "\N{EN DASH}")
    assert (signed(0.05, 2), signed(-0.05, 2), signed(math.nan, 2)) == (
        "+0.05",
        "\N{MINUS SIGN}0.05",
        "\N{EN DASH}",
    )
    assert (percent(0.0), percent(0.0004), percent(0.9996), percent(1.0)) == (
        "0.0\u00a0%",
        "<\u00a00.1\u00a0%",
        ">\u00a099.9\u00a0%",
        "100.0\u00a0%",
    )


def test_secrets_are_masked_at_any_depth() -> None:
    uri = "https://me:word@host/x"
    safe = "https://***@host/x"
    assert redacted({"a": [uri, {"b": uri}], "c": (uri, 3), "d": None}) == {
        "a": [safe, {"b": safe}],
        "c": [safe, 3],
        "d": None,
    }


# The summary of a list kind


def test_scorers_are_sorted_best_first_with_the_models_lift_over_each_baseline(
    kinds: dict[str, KindSummary], summary: RunSummary
) -> None:
    means = summary.evaluation.summary.set_index(["kind", "scorer"])["ndcg_10"]
    for key, kind in kinds.items():
        values = [row["ndcg_10"] for row in kind.scorers]
        assert values == sorted(values, reverse=True) and len(values) == 7
        for row in kind.scorers:
            if row["scorer"] in ("fine_tuned", "fused"):
                assert math.isnan(row["lift"])
            else:
                assert row["lift"] == pytest.approx(
                    means[key, "fine_tuned"] - means[key, row["scorer"]]
                )
    assert kinds["uniform"].scorers[0]["scorer"] == "fine_tuned"
    assert kinds["popularity"].scorers[-1]["scorer"] == "fine_tuned"


def test_each_kind_has_a_verdict_per_model_and_the_best_baseline_is_no_model(
    kinds: dict[str, KindSummary],
) -> None:
    assert [v.outcome for v in kinds["uniform"].verdicts] == ["beats", "beats"]
    assert [v.outcome for v in kinds["popularity"].verdicts] == ["loses", "beats"]
    assert (
        kinds["popularity"]
        .verdicts[1]
        .text.startswith("On popularity-matched lists the fused model")
    )
    for kind in kinds.values():
        first = next(
            row["scorer"] for row in kind.scorers if row["scorer"] not in ("fine_tuned", "fused")
        )
        assert kind.best == first


def test_only_retrieved_lists_have_reranking_depths(kinds: dict[str, KindSummary]) -> None:
    assert [kinds[key].depths for key in KINDS] == [[], [], [10, 20, 50]]
    assert kinds["uniform"].depth_rows == []
    assert kinds["retriever"].depth_rows == [
        ("fine_tuned", [pytest.approx(0.32), pytest.approx(0.34), pytest.approx(0.4)]),
        ("retriever", [0.3, 0.3, 0.3]),
    ]
    assert [f.title for f in kinds["retriever"].figures][-1] == "NDCG@10 by reranking depth"
    assert "fine-tuned: 0.32 at 10, 0.34 at 20, 0.40 at 50." in kinds["retriever"].figures[-1].alt


def test_slices_have_the_evaluations_values_and_a_figure_from_three_bins_on(
    kinds: dict[str, KindSummary], summary: RunSummary
) -> None:
    rows = summary.evaluation.slices
    for key, kind in kinds.items():
        frame = rows[rows["kind"] == key]
        assert len(kind.slices) == frame["slice"].nunique()
        for one, (_, expected) in zip(kind.slices, frame.groupby("slice", sort=False), strict=True):
            assert one.scorers == ["fine_tuned", kind.best]
            assert (one.figure is not None) == (expected["bin"].nunique() >= 3)
            for row in one.rows:
                own = expected[expected["bin"] == row["bin"]].set_index("scorer")
                assert row["n_users"] == own["n_users"].iloc[0]
                assert row["cells"]["fine_tuned"][0] == own.loc["fine_tuned", "ndcg_10"]
    assert any(one.figure for one in kinds["uniform"].slices)
    assert any(one.figure is None for one in kinds["uniform"].slices)


# The page


def test_texts_of_the_data_are_escaped(html: str) -> None:
    assert html.count("&lt;script&gt;document.title") >= 2 * 5 * 10
    assert "<script" not in html and "<b>" not in re.sub(r'<div class="tile"><b>', "", html)
    assert "for user &lt;b&gt;user" in html and "a &lt;b&gt;chip" in html


def test_the_page_needs_no_other_file_and_is_small(html: str) -> None:
    targets = re.findall(r"(?:src|href|action|data|poster)\s*=\s*[\"']([^\"']*)", html)
    assert targets and all(target.startswith("#") for target in targets)
    assert re.findall(r"@import|url\((?!#)", html) == []
    ids = re.findall(r"\bid=\"([^\"]+)\"", html)
    assert {target[1:] for target in targets} <= set(ids)
    assert len(set(ids)) == len(ids)
    assert len(html.encode()) < 1_500_000


def test_the_verdicts_come_first_and_every_number_is_text(
    html: str, kinds: dict[str, KindSummary]
) -> None:
    text = words(html)
    for key, kind in kinds.items():
        for one in kind.verdicts:
            assert text.index(one.text) < text.index("NDCG@10, fine-tuned, uniform lists"), key
        for row in kind.scorers:
            assert (
                f"{row['ndcg_10']:.3f} [{row['ndcg_10_low']:.3f}, {row['ndcg_10_high']:.3f}]"
                in text
            )
        assert kind.chance and f"chance (all scores equal) {kind.chance['ndcg_10']:.3f}" in text
    assert "new one" in text and "item kNN" in text
    assert "10 steps; the weights of step 5 were kept, with NDCG@10 0.300 on the dev lists." in text
    assert (
        f"lists/test {'ab' * 32}" in text and "train 3.0" in text and "pairs/users in 1,234" in text
    )
    assert text.count("recall_12 0.250") == 1
    assert text.index("uniform lists: saturation") < text.index("beats")


def test_an_example_marks_its_positives_on_both_sides(html: str, summary: RunSummary) -> None:
    for key in KINDS:
        found = summary.examples[key]
        for one in (*found.gains, *found.losses):
            assert unescape(html).count(one.context) >= 1
    n_shown = sum(
        book.is_positive
        for found in summary.examples.values()
        for one in (*found.gains, *found.losses)
        for side in (one.ours, one.theirs)
        for book in side.top
    )
    assert html.count('<li class="yes"><span class="tag yes">positive</span>') == n_shown > 0


def test_no_secret_of_the_config_or_the_command_line_is_on_the_page(html: str) -> None:
    assert SECRET not in html
    assert "postgresql://***@db.example/runs" in html and "https://***@store.example" in html


def test_equal_numbers_give_equal_figures(html: str, summary: RunSummary) -> None:
    for drawn in summarise_kind(summary.evaluation, "popularity").figures:
        assert drawn.svg in html


def test_sections_without_numbers_are_left_out(
    html: str, summary: RunSummary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(svg, "draw", lambda name, make: "<svg></svg>")
    sections = (
        "Does it use the context?",
        "NDCG@10 by slice",
        "by number of reranked books",
        "Calibration in",
        "Scores in",
        "Largest gains",
        "chance (all",
    )
    evaluation = bare(summary.evaluation)
    less = words(
        page(dataclasses.replace(summary, evaluation=evaluation, examples={}, history=History()))
    )
    full = words(html)
    for heading in sections:
        assert heading in full and heading not in less
    assert "Training curve" not in less and "beats the best baseline" in less


def test_a_run_of_one_user_says_that_it_has_no_interval(eval_set: EvalSet) -> None:
    rows = eval_set.rows[eval_set.rows["user"] == eval_set.rows["user"].iloc[0]]
    lists = dataclasses.replace(eval_set.lists, frame=rows)
    cfg = config()
    cfg.eval.list_kinds = ["uniform"]
    one_user = EvalSet(eval_set.corpus, lists, cfg.eval, scored(rows))
    text = words(page(summarised(cfg, one_user)))
    assert "an interval needs at least two users with a positive" in text
    assert not re.search(r"\bnan\b", text)


def test_every_figure_has_its_numbers_in_words(html: str) -> None:
    figures = re.findall(
        r"<figure role=\"img\" aria-label=\"([^\"]+)\"><figcaption>([^<]+)</figcaption>", html
    )
    assert len(figures) == html.count("<figure") == html.count("<svg") > 3 * 3
    assert all(
        unescape(alt).startswith(unescape(title)) and len(alt) > len(title) + 10
        for alt, title in figures
    )
    assert any("Best dev NDCG@10 0.300 at step 5" in alt for alt, _ in figures)


@pytest.fixture(scope="module")
def browsed(
    html: str, chromium_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Measure]:
    path = tmp_path_factory.mktemp("browser") / "run_report.html"
    path.write_text(html, encoding="utf-8")
    script = """() => ({
        width: document.documentElement.scrollWidth,
        title: document.title,
        figures: [...document.querySelectorAll("figure svg")]
            .map(s => s.getBoundingClientRect().width),
        outside: [...document.querySelectorAll("table, pre, article")]
            .filter(e => !e.closest("details:not([open])") && !e.closest(".box, pre"))
            .filter(e => e.getBoundingClientRect().right > innerWidth).length,
        scrolled: [...document.querySelectorAll(".box")]
            .filter(b => b.scrollWidth > b.clientWidth).length,
        opened: [...document.querySelectorAll("details")]
            .map(d => { d.open = true; return d.offsetHeight; }),
        wide: document.documentElement.scrollWidth,
        ink: [...document.querySelectorAll("figure text")].map(t => getComputedStyle(t).fill),
    })"""
    with measured(chromium_path, path, script) as measure:
        yield measure


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_report_without_sideways_scrolling(browsed: Measure, scheme: str) -> None:
    found = browsed(390, scheme)
    assert (found["width"], found["wide"], found["outside"]) == (390, 390, 0)
    assert found["scrolled"] > 0  # wide tables scroll in their own box
    assert found["title"] == "Run report"  # scripts in titles did not run
    assert found["requests"] == [found["address"]]
    assert all(300 < width <= 358 for width in found["figures"])
    inks = {"light": "rgb(28, 33, 40)", "dark": "rgb(228, 232, 237)"}
    assert set(found["ink"]) == {inks[scheme]}


@pytest.mark.slow
@pytest.mark.browser
def test_a_wide_window_sets_both_rankings_side_by_side_and_fits(
    browsed: Measure,
) -> None:
    found = browsed(1300, "light")
    assert (found["width"], found["wide"]) == (1300, 1300)
