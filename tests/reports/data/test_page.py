"""The data report's page is self-contained, has no scripts, and fits on a phone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape

import pytest

from reranker.cache import Cache
from reranker.config import DataConfig
from reranker.data import build_contexts, load_tables
from reranker.reports.data.page import page
from reranker.reports.data.summary import DataSummary, summarise
from tests.conftest import GENRES, some_ratings, write_raw
from tests.helpers.chromium import Measure, measured
from tests.helpers.paired import AUDIT, MAX_WORDS, WordCounter, drawn

EVIL = '<script>document.title = "owned"</script>'


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> DataSummary:
    """A summary whose titles, texts and user ids are markup."""
    folder = tmp_path_factory.mktemp("page")
    ratings = [(f"<b>{user}", book, rating) for user, book, rating in some_ratings()]
    names = {i: f"{EVIL} Book {i}" for i in range(1, 41)}
    cfg = DataConfig(
        name="bookdb", root=str(write_raw(folder / "raw", ratings, titles=names)), genres=GENRES
    )
    cache = Cache(folder / "cache")
    tables = load_tables(cfg, cache)
    pairs = drawn(tables, build_contexts(tables, cfg), cache)
    return summarise(tables, pairs, AUDIT, encoder=WordCounter())


@pytest.fixture(scope="module")
def html(shown: DataSummary) -> str:
    return page(shown)


def test_texts_of_the_data_are_escaped(html: str) -> None:
    assert html.count("&lt;script&gt;document.title") >= 5 * 4
    assert "<script" not in html and "<b>user" not in html and "&lt;b&gt;user" in html


def test_the_page_needs_no_other_file(html: str) -> None:
    targets = re.findall(r"(?:src|href|action|data|poster)\s*=\s*[\"']([^\"']*)", html)
    assert targets and all(target.startswith("#") for target in targets)
    assert re.findall(r"@import|url\((?!#)", html) == []
    ids = re.findall(r"\bid=\"([^\"]+)\"", html)
    assert {target[1:] for target in targets} <= set(ids)


def test_the_page_has_every_number_in_words(html: str, shown: DataSummary) -> None:
    text = " ".join(
        re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split()
    )
    for title in (
        "Funnel",
        "Label balance",
        "Per user",
        "Lengths",
        "Popularity",
        "Texts",
        "Examples",
    ):
        assert f" {title} " in text
    assert (
        f"{shown.truncation.pair_fraction:.1%}".replace("%", " %") + " of the pairs are truncated"
        in text
    )
    assert f"{shown.n['pairs']:,} pairs" in text
    assert f"{shown.sources[1].popularity_auc:.3f} AUC of popularity, uniform negatives" in text


def test_equal_numbers_give_equal_pages(html: str, shown: DataSummary) -> None:
    assert page(shown) == html


def test_no_two_elements_share_an_id(html: str) -> None:
    """With a duplicate id, a figure would be clipped by the frame of another."""
    clips = re.findall(r"<clipPath id=\"([^\"]+)\"", html)
    assert clips and len(set(clips)) == len(clips)


def test_every_figure_has_a_title_and_names_its_axes(html: str) -> None:
    labels = {
        "Users by number of positives": ("positives of a user", "users"),
        "Pairs by tokens, and the model's limit": (
            "tokens of context and book",
            "pairs",
            f"limit {MAX_WORDS}",
        ),
        "Pairs by tokens of each text": (
            "tokens of the text",
            "share of pairs per token",
            "context",
            "book",
        ),
        "Popularity of the books in pairs, by source": (
            "known ratings of the book by others",
            "share of pairs at or below",
            "positive",
            "uniform",
        ),
    }
    figures = re.findall(r"<figcaption>([^<]+)</figcaption>(.*?)</figure>", html, re.DOTALL)
    assert [unescape(title) for title, _ in figures] == list(labels)
    for (_, figure), expected in zip(figures, labels.values(), strict=True):
        assert set(expected) <= set(re.findall(r"<text[^>]*>([^<]+)</text>", figure))


@pytest.fixture(scope="module")
def browsed(
    html: str, chromium_path: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Measure]:
    path = tmp_path_factory.mktemp("browser") / "data_report.html"
    path.write_text(html, encoding="utf-8")
    script = """() => ({
        width: document.documentElement.scrollWidth,
        title: document.title,
        images: [...document.images].every(i => i.complete && i.naturalWidth > 0),
        figures: [...document.querySelectorAll("figure svg")]
            .map(s => s.getBoundingClientRect().width),
        ink: [...document.querySelectorAll("figure text")].map(t => getComputedStyle(t).fill),
        paper: getComputedStyle(document.body).backgroundColor,
    })"""
    with measured(chromium_path, path, script) as measure:
        yield measure


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_sideways_scrolling(browsed: Measure, scheme: str) -> None:
    found = browsed(390, scheme)
    assert found["width"] == 390
    assert found["title"] == "Data report"  # scripts in titles did not run
    assert found["images"]
    widths = found["figures"]
    assert len(widths) == 4 and all(300 < width <= 358 for width in widths)
    inks = {"light": "rgb(28, 33, 40)", "dark": "rgb(228, 232, 237)"}
    assert set(found["ink"]) == {inks[scheme]}
