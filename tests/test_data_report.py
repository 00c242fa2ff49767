"""The data report's numbers are those of the tables and of the pairs file; its page stands alone and runs nothing."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, SamplingConfig
from reranker.data import Contexts, Tables, build_contexts, load
from reranker.data.draws import IntArray
from reranker.eval import metrics as eval_metrics
from reranker.sampling import Pairs, build_pairs
from reranker.tracking import data_report
from reranker.tracking.data_page import page
from reranker.tracking.data_report import DataSummary, Step, funnel, metrics, summarise
from reranker.tracking.pair_numbers import N_BINS, Truncation, auc, kept_tokens, spread, truncation
from reranker.tracking.pair_texts import read_texts

from .conftest import GENRES, some_ratings, write_raw
from .test_browser import QUIET, chromium

AUDIT = {"pairs_checked": 12}
ROOM = 30  # words of a context and a book: half of the pairs here have more
EVIL = '<script>document.title = "owned"</script>'


def words(texts: list[str]) -> IntArray:
    return np.array([len(text.split()) for text in texts])


def drawn(tables: Tables, contexts: Contexts, cache: Cache, **sampling: object) -> Pairs:
    cfg = dataclasses.replace(SamplingConfig(), **sampling)
    return build_pairs(tables, contexts, cfg, EngineConfig("synchronous", 1), cache)


@pytest.fixture
def pairs(tables: Tables, contexts: Contexts, cache: Cache) -> Pairs:
    return drawn(tables, contexts, cache)


@pytest.fixture
def summary(tables: Tables, pairs: Pairs) -> DataSummary:
    return summarise(tables, pairs, AUDIT, words, max_tokens=ROOM)


def write_pairs(path: Path, rows: list[tuple[str | None, str | None]], *, row_group_size: int) -> Path:
    """A pairs file of (user_ctx, book_text), with texts dictionary-encoded."""
    context, book = (pa.array(column, pa.string()).dictionary_encode() for column in zip(*rows, strict=True))
    n = len(rows)
    columns = {
        "user_id": pa.array(["u"] * n),
        "user_ctx": context,
        "book_id": pa.array([None, *range(1, n)], pa.int64()),
        "book_text": book,
        "label": pa.array([1] * n, pa.int8()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=row_group_size)
    return path


# Arithmetic


def test_a_spread_has_the_mean_the_percentiles_and_every_value_up_to_the_99th() -> None:
    values = spread(np.r_[np.arange(101), 1_000_000])
    assert values.mean == pytest.approx((5050 + 1_000_000) / 102)
    assert values.stats()["min"] == 0
    assert values.stats()["p50"] == 50.5
    assert values.stats()["max"] == 1_000_000
    assert values.edges[0] == 0 and len(values.counts) <= N_BINS
    assert values.counts.sum() == 101 and values.edges[-1] > 100


def test_a_spread_of_one_value_is_one_bar() -> None:
    values = spread(np.array([3, 3, 3]))
    assert (values.edges.tolist(), values.counts.tolist(), values.mean) == ([3, 4], [3], 3.0)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(1, 30))
def test_kept_tokens_are_those_that_a_fast_tokenizer_keeps(n_context: int, n_book: int, max_tokens: int) -> None:
    """Oracle: the tokenizer itself, on texts of so many words."""
    tokenizer = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(max_tokens, strategy="longest_first")
    ids = tokenizer.encode(" ".join("a" * n_context), " ".join("b" * n_book)).ids
    context, book = kept_tokens(np.array([n_context]), np.array([n_book]), max_tokens)
    assert (int(context[0]), int(book[0])) == (ids.count(0), ids.count(1))


def test_truncation_counts_the_pairs_that_lose_something_and_what_they_lose() -> None:
    context, book = np.array([3, 2, 9, 6]), np.array([7, 9, 1, 6])
    found = truncation(context, book, 9, user=np.array([5, 5, 6, 6]))
    # 3 + 7: the book gives one. 2 + 9: the book gives two. 9 + 1: the context gives one. 6 + 6: 4 and 5 are left.
    assert found == Truncation(9, 4, 2, pair_fraction=1.0, book_fraction=0.75, context_fraction=0.5)


@settings(max_examples=30)
@given(st.lists(st.integers(0, 9), min_size=1), st.lists(st.integers(0, 9), min_size=1))
def test_the_auc_by_counting_is_the_auc_of_evaluation(positive: list[int], negative: list[int]) -> None:
    label = np.r_[np.ones(len(positive)), np.zeros(len(negative))]
    expected = eval_metrics.auc(label, np.array(positive + negative))
    assert auc(np.array(positive), np.array(negative)) == pytest.approx(expected, abs=1e-12)


def test_the_funnel_names_every_row_that_went_and_why() -> None:
    tables = {
        "books_in": 10, "books": 8,
        "ratings_in": 100, "ratings_dropped_unknown_book": 5, "ratings_dropped_same_work": 3, "ratings": 70,
        "users_in": 9, "users_dropped_few_ratings": 2, "users": 7, "users_train": 4, "users_dev": 1, "users_test": 2,
    }  # fmt: skip
    pairs = {"users_in": 4, "users_dropped_by_max_users": 1, "users": 3, "positives": 6, "negatives": 18, "pairs": 24}
    assert funnel(tables, pairs) == [
        Step("tables", "books", 10, 8, {"other editions of a kept book": 2}),
        Step("tables", "ratings", 100, 70, {"unknown book": 5, "same work": 3, "rated by dropped users": 22}),
        Step("tables", "users", 9, 7, {"few ratings": 2}),
        Step("train users", "users", 7, 4, {"dev": 1, "test": 2}),
        Step("pairs", "users", 4, 3, {"over max users": 1}),
    ]


# The pass over the file


@pytest.mark.parametrize("row_group_size", [1, 2, 7])
def test_contexts_lengths_and_gaps_do_not_depend_on_row_groups(tmp_path: Path, row_group_size: int) -> None:
    rows = [("ab c", "x"), ("ab c", None), ("é", "  "), ("é", "x y"), ("é", "x"), (None, "x")]
    path = write_pairs(tmp_path / "pairs.parquet", rows, row_group_size=row_group_size)
    user = np.array([0, 0, 0, 0, 1, 1])
    measured = np.array([1, 0, 1, 1, 0, 1], bool)
    texts = read_texts(path, user, words, measured=measured, shown=np.array([3, 5]))
    assert texts.context.tolist() == [0, 0, 1, 1, 2, 3]
    assert texts.chars["user_ctx"].tolist() == [4, 4, 1, 1, 1, 0]
    assert texts.chars["book_text"].tolist() == [1, 0, 2, 3, 1, 1]
    assert texts.tokens["user_ctx"].tolist() == [2, 1, 1, 0]
    assert texts.tokens["book_text"].tolist() == [1, 0, 2, 1]
    assert texts.n_null == {"user_id": 0, "user_ctx": 1, "book_id": 1, "book_text": 1, "label": 0}
    assert texts.n_blank == {"user_id": 0, "user_ctx": 0, "book_text": 1}
    assert texts.shown == {3: ("é", "x y"), 5: ("", "x")}


def test_a_text_is_counted_once_however_many_pairs_have_it(tmp_path: Path) -> None:
    path = write_pairs(tmp_path / "pairs.parquet", [("c", f"b{i % 3}") for i in range(300)], row_group_size=300)
    asked: list[str] = []

    def count(texts: list[str]) -> IntArray:
        asked.extend(texts)
        return words(texts)

    read_texts(path, np.zeros(300, int), count, measured=np.ones(300, bool), shown=np.array([], int))
    assert sorted(asked) == ["b0", "b1", "b2", "c"]


# The summary


def test_the_summary_is_that_of_the_pairs_file(summary: DataSummary, tables: Tables, pairs: Pairs) -> None:
    """Oracle: the flat file in plain pandas."""
    frame = pd.read_parquet(pairs.path).astype({"user_id": str, "user_ctx": str, "book_text": str})
    users = frame.groupby("user_id")["label"]
    assert summary.n == {
        "pairs": len(frame),
        "positives": (frame["label"] == 1).sum(),
        "negatives": (frame["label"] == 0).sum(),
        "users": frame["user_id"].nunique(),
        "books": frame["book_id"].nunique(),
        "contexts": frame["user_id"].nunique(),
        "duplicate_pairs": 0,
        "catalogue_books": 40,
    }
    assert summary.per_user["positives"].mean == pytest.approx(users.sum().mean())
    assert summary.per_user["negatives"].stats()["max"] == (users.size() - users.sum()).max()
    both = frame["user_ctx"].str.len() + frame["book_text"].str.len()
    assert summary.chars["pair"].stats()["p95"] == pytest.approx(np.percentile(both, 95))
    tokens = frame["user_ctx"].str.split().str.len() + frame["book_text"].str.split().str.len()
    assert summary.tokens["pair"].mean == pytest.approx(tokens.mean())
    assert summary.truncation.pair_fraction == pytest.approx((tokens > ROOM).mean())
    assert 0 < summary.truncation.pair_fraction < 1  # so that the line above says something


def test_popularity_leaves_out_the_readers_own_rating(tables: Tables, pairs: Pairs) -> None:
    """Oracle: for every pair, the other users who rated its book where statistics may look."""
    codes = pairs.codes.copy()
    rated = tables.histories.groupby("user")["book"].first()
    codes.loc[1::4, "book"] = rated[codes.loc[1::4, "user"]].to_numpy()  # negatives that were rated: disliked ones
    raters = tables.known().groupby("book")["user"].agg(set).to_dict()
    expected = [len(raters.get(b, set()) - {u}) for u, b in zip(codes["user"], codes["book"], strict=True)]
    assert data_report.popularity_by_others(tables, codes).tolist() == expected


def test_popularity_as_a_scorer_has_the_auc_of_evaluation(summary: DataSummary, tables: Tables, pairs: Pairs) -> None:
    popularity = data_report.popularity_by_others(tables, pairs.codes)
    positive, uniform = summary.sources
    assert positive.popularity.mean == pytest.approx(popularity[pairs.codes["label"] == 1].mean())
    assert uniform.popularity.mean == pytest.approx(popularity[pairs.codes["label"] == 0].mean())
    assert uniform.popularity_auc == pytest.approx(eval_metrics.auc(pairs.codes["label"], popularity))


def test_negatives_are_told_apart_by_their_source(tables: Tables, pairs: Pairs) -> None:
    codes = pairs.codes
    names = np.where(codes["label"] == 1, "positive", np.where(np.arange(len(codes)) % 4 == 1, "popularity", "uniform"))
    marked = dataclasses.replace(pairs, codes=codes.assign(source=pd.Categorical(names)))
    sources = summarise(tables, marked, AUDIT, words, max_tokens=ROOM).sources
    n = len(codes) // 4
    assert {s.name: s.n_pairs for s in sources} == {"positive": n, "popularity": n, "uniform": 2 * n}
    assert [s.name for s in sources] == ["positive", "popularity", "uniform"]


def test_a_pair_that_stands_twice_is_counted(tables: Tables, pairs: Pairs, tmp_path: Path) -> None:
    order = np.r_[0:4, 1, 4 : len(pairs.codes)]  # the second row again, among the rows of its context
    path = tmp_path / "pairs.parquet"
    pq.write_table(pq.read_table(pairs.path).take(pa.array(order)), path)
    twice = dataclasses.replace(pairs, codes=pairs.codes.iloc[order].reset_index(drop=True), path=path)
    assert summarise(tables, twice, AUDIT, words, max_tokens=ROOM).n["duplicate_pairs"] == 1


def test_tokens_of_many_pairs_are_those_of_whole_users(
    tables: Tables, pairs: Pairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_report, "MAX_MEASURED", 40)
    asked: set[str] = set()

    def count(texts: list[str]) -> IntArray:
        asked.update(texts)
        return words(texts)

    found = summarise(tables, pairs, AUDIT, count, max_tokens=ROOM).truncation
    rows = pd.read_parquet(pairs.path).astype({"user_id": str, "user_ctx": str})
    rows = rows[rows["user_ctx"].isin(asked)]
    assert (found.n_pairs, found.n_users) == (len(rows), rows["user_id"].nunique())
    assert 40 - 12 < found.n_pairs <= 40
    monkeypatch.setattr(data_report, "MAX_MEASURED", 1)
    assert summarise(tables, pairs, AUDIT, words, max_tokens=ROOM).truncation.n_users == 1


def test_books_are_counted_by_what_their_text_came_from(raw: Callable[..., Path], cache: Cache) -> None:
    cfg = DataConfig(name="bookdb", root=str(raw(texts={1: "A given text.", 2: "Another."})), genres=GENRES)
    tables = load(cfg, cache)
    pairs = drawn(tables, build_contexts(tables, cfg), cache)
    books = summarise(tables, pairs, AUDIT, words, max_tokens=ROOM).books
    assert (books["given"], books["rendered"]) == (2 / 40, 38 / 40)
    assert (books["description"], books["genres"], books["series"]) == (13 / 40, 1.0, 0.0)  # every third is described


def test_examples_are_whole_groups_of_the_file(summary: DataSummary, pairs: Pairs) -> None:
    frame = pd.read_parquet(pairs.path)
    assert len({e.user_id for e in summary.examples}) == data_report.N_EXAMPLES
    for example in summary.examples:
        group = frame[frame["user_id"].astype(str) == example.user_id].iloc[:4]
        assert set(group["user_ctx"]) == {example.context}
        assert group["book_text"].tolist() == [example.positive, *(text for _, text in example.negatives)]
        assert [source for source, _ in example.negatives] == ["uniform"] * 3
        assert example.n_more == 0


def test_an_example_with_many_negatives_says_how_many_are_left_out(
    tables: Tables, contexts: Contexts, cache: Cache
) -> None:
    pairs = drawn(tables, contexts, cache, neg_ratio=10, max_positives=1)
    for example in summarise(tables, pairs, AUDIT, words, max_tokens=ROOM).examples:
        assert (len(example.negatives), example.n_more) == (8, 2)


def test_every_number_is_a_finite_metric_with_a_name_that_the_store_takes(summary: DataSummary, pairs: Pairs) -> None:
    found = metrics(summary)
    assert all(math.isfinite(value) for value in found.values())
    assert [key for key in found if not re.fullmatch(r"data/[a-z0-9_/]+", key)] == []
    assert found["data/pairs/positives"] == found["data/n_positives"] == (pairs.codes["label"] == 1).sum()
    assert found["data/source/positive/pair_fraction"] == 0.25
    assert found["data/audit/pairs_checked"] == 12
    assert found["data/truncation/pair_fraction"] == summary.truncation.pair_fraction
    assert found["data/tokens/pair/p95"] == summary.tokens["pair"].stats()["p95"]


# The page


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> DataSummary:
    """A summary whose titles, texts and user ids are markup."""
    folder = tmp_path_factory.mktemp("page")
    ratings = [(f"<b>{user}", book, rating) for user, book, rating in some_ratings()]
    names = {i: f"{EVIL} Book {i}" for i in range(1, 41)}
    cfg = DataConfig(name="bookdb", root=str(write_raw(folder / "raw", ratings, titles=names)), genres=GENRES)
    cache = Cache(folder / "cache")
    tables = load(cfg, cache)
    return summarise(tables, drawn(tables, build_contexts(tables, cfg), cache), AUDIT, words, max_tokens=ROOM)


@pytest.fixture(scope="module")
def html(shown: DataSummary) -> str:
    return page(shown)


def test_a_text_of_the_data_is_text_on_the_page(html: str) -> None:
    assert html.count("&lt;script&gt;document.title") >= 5 * 4
    assert "<script" not in html and "<b>user" not in html and "&lt;b&gt;user" in html


def test_the_page_needs_no_other_file(html: str) -> None:
    targets = re.findall(r"(?:src|href|action|data|poster)\s*=\s*[\"']([^\"']*)", html)
    assert targets and all(target.startswith("#") for target in targets)
    assert re.findall(r"@import|url\((?!#)", html) == []
    ids = re.findall(r"\bid=\"([^\"]+)\"", html)
    assert {target[1:] for target in targets} <= set(ids)


def test_the_page_has_every_number_in_words(html: str, shown: DataSummary) -> None:
    text = " ".join(re.sub(r"<svg.*?</svg>|<style.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())
    for title in ("Funnel", "Label balance", "Per user", "Lengths", "Popularity", "Texts", "Examples"):
        assert f" {title} " in text
    assert f"{shown.truncation.pair_fraction:.1%}".replace("%", " %") + " of the pairs are cut" in text
    assert f"{shown.n['pairs']:,} pairs" in text
    assert f"{shown.sources[1].popularity_auc:.3f} AUC of popularity, uniform negatives" in text


def test_the_same_numbers_give_the_same_page(html: str, shown: DataSummary) -> None:
    assert page(shown) == html


def test_no_two_elements_share_an_id(html: str) -> None:
    """Figures in one page share its ids: with one used twice, a figure would be clipped by another's frame."""
    clips = re.findall(r"<clipPath id=\"([^\"]+)\"", html)
    assert clips and len(set(clips)) == len(clips)


def test_every_figure_has_a_title_and_names_its_axes(html: str) -> None:
    labels = {
        "Users by number of positives": ("positives of a user", "users"),
        "Pairs by tokens, and the model's limit": ("tokens of context and book", "pairs", f"limit {ROOM}"),
        "Pairs by tokens of each text": ("tokens of the text", "share of pairs per token", "context", "book"),
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
def browsed(html: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[int, str], dict[str, object]]]:
    """`browsed(width, scheme)` opens the page and says what it measures there."""
    from playwright.sync_api import sync_playwright

    path = tmp_path_factory.mktemp("browser") / "data_report.html"
    path.write_text(html, encoding="utf-8")
    measure = """() => ({
        width: document.documentElement.scrollWidth,
        title: document.title,
        images: [...document.images].every(i => i.complete && i.naturalWidth > 0),
        figures: [...document.querySelectorAll("figure svg")].map(s => s.getBoundingClientRect().width),
        ink: [...document.querySelectorAll("figure text")].map(t => getComputedStyle(t).fill),
        paper: getComputedStyle(document.body).backgroundColor,
    })"""
    executable, reason = chromium()
    if executable is None:
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(QUIET))

        def look(width: int, scheme: str) -> dict[str, object]:
            opened = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
            opened.goto(path.as_uri())
            found: dict[str, object] = opened.evaluate(measure)
            return found

        yield look
        browser.close()


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_page_without_sideways_scrolling(
    browsed: Callable[[int, str], dict[str, object]], scheme: str
) -> None:
    found = browsed(390, scheme)
    assert found["width"] == 390
    assert found["title"] == "Data report"  # the titles' scripts did not run
    assert found["images"]
    widths = found["figures"]
    assert isinstance(widths, list) and len(widths) == 4 and all(300 < width <= 358 for width in widths)
    inks = {"light": "rgb(28, 33, 40)", "dark": "rgb(228, 232, 237)"}
    assert set(found["ink"]) == {inks[scheme]}  # type: ignore[call-overload]
