"""A comparison's page is self-contained, has the table's numbers, and fits on a phone."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker.errors import ComparisonError
from reranker.reports.comparison.compare import Comparison, compare
from reranker.reports.comparison.page import page, write
from reranker.reports.comparison.runs import LoggedRun
from tests.helpers.chromium import measured

EVIL = '<script>document.title = "owned"</script>'
USERS = np.random.default_rng(0).uniform(0.1, 0.6, 60)


@pytest.fixture(scope="module")
def shown() -> Comparison:
    """Two models of two ratios under two seeds on uniform lists; popularity lists that differ."""
    grid = [(model, ratio, seed) for model in ("minilm", EVIL) for ratio in "35" for seed in "01"]
    runs = []
    for i, (model, ratio, seed) in enumerate(grid):
        noise = np.random.default_rng(i).normal(0, 0.05, len(USERS))
        values = np.clip(USERS + noise + 0.1 * (ratio == "5"), 0, 1)
        users = pd.DataFrame(
            {"user_id": [f"u{j:02d}" for j in range(len(USERS))], "ndcg_10": values}
        )
        hashes = {
            "lists/test/uniform": "aa",
            "lists/test/popularity": f"{i:02d}",
            "lists/dev": "dd",
        }
        per_user = pd.concat([users.assign(kind=kind) for kind in ("uniform", "popularity")])
        params = {"model.name": model, "sampling.neg_ratio": ratio, "trainer.seed": seed}
        runs.append(
            LoggedRun(
                f"{i}" * 32, f"{EVIL} {i}", params, hashes, 0.5 + i / 100, 10.0 + i, 90.0, per_user
            )
        )
    return compare(runs, ["uniform", "popularity"], metric="ndcg_10", scorer="fine_tuned")


@pytest.fixture(scope="module")
def html(shown: Comparison) -> str:
    return page(shown)


def test_names_of_runs_are_escaped(html: str) -> None:
    assert "<script" not in html and html.count("&lt;script&gt;document.title") >= 10


def test_the_page_needs_no_other_file_and_no_two_figures_share_an_id(html: str) -> None:
    targets = re.findall(r"(?:src|href|action|data|poster)\s*=\s*[\"']([^\"']*)", html)
    assert targets and all(target.startswith("#") for target in targets)
    assert re.findall(r"@import|url\((?!#)", html) == []
    ids = re.findall(r"\bid=\"([^\"]+)\"", html)
    assert {target[1:] for target in targets} <= set(ids) and len(set(ids)) == len(ids)
    assert len(html) < 1_500_000


def test_the_page_has_the_tables_numbers_and_the_reason_for_a_refused_kind(
    html: str, shown: Comparison
) -> None:
    text = " ".join(
        re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split()
    )
    row = shown.table.iloc[1]
    difference = f"+{row['difference']:.4f}"
    difference += f" [+{row['difference_low']:.4f}, +{row['difference_high']:.4f}]"
    tests = f"{row['p']:.4f} {row['p_holm']:.4f} +{row['effect_size']:.2f} "
    counts = f"{row['n_wins']:.0f} {row['n_ties']:.0f} {row['n_losses']:.0f}"
    assert f"2 is better than 1: {difference} (over 2 seeds" in text
    assert f"{difference} {tests}" in text
    assert f"{counts} {row['minimal_detectable']:.4f} " in text
    refused = f"runs {'0' * 32} and {'1' * 32} ranked different"
    assert f"No comparison on popularity lists: {refused}" in text
    for title in ("Main effects", "Quality against cost", "Runs", "How to read it"):
        assert f" {title} " in text
    assert "The dev lists select 4, " in text


def test_a_page_that_cannot_be_written_leaves_nothing_behind(
    shown: Comparison, tmp_path: Path
) -> None:
    with pytest.raises(
        ComparisonError, match=r"the page cannot be written \(No such file or directory\)"
    ):
        write(shown, tmp_path / "missing" / "page.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.browser
def test_a_phone_shows_the_page_without_sideways_scrolling(
    html: str, chromium_path: str, tmp_path: Path
) -> None:
    (tmp_path / "compare.html").write_text(html, encoding="utf-8")
    script = """() => ({
        width: document.documentElement.scrollWidth,
        title: document.title,
        figures: [...document.querySelectorAll("figure svg")]
            .map(s => s.getBoundingClientRect().width),
    })"""
    with measured(chromium_path, tmp_path / "compare.html", script) as measure:
        found = measure(390, "dark")
    assert (found["width"], found["title"]) == (390, "Comparison")  # scripts in names did not run
    assert len(found["figures"]) == 5 and all(300 < width <= 358 for width in found["figures"])
    assert found["requests"] == [found["address"]]
