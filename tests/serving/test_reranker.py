"""`Reranker` answers valid requests, and names the field of an invalid one."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.data import ContextBuilder
from reranker.errors import ModelError, RequestError
from reranker.serving.reranker import Ranked, Reranker
from tests.helpers.bundles import BOOKS, CONTEXT, EDITIONS, ids

SCORES = {
    "Dune by Frank Herbert": 2.0,
    "Emma by Jane Austen": -1.0,
    "It by Stephen King": 0.5,
    "tie": 0.5,
    "best": 9.0,
}
DUNE_FIRST = (
    "Likes: Dune by Frank Herbert; Ulysses by James Joyce. Genres: classics, science fiction"
)
ULYSSES_FIRST = (
    "Likes: Ulysses by James Joyce; Dune by Frank Herbert. Genres: classics, science fiction"
)


class Scorer:
    """Scores texts from a table, and records the pairs it scored."""

    def __init__(self, scores: dict[str, float]) -> None:
        self.scores = scores
        self.pairs: list[tuple[str, str]] = []

    def __call__(self, queries: Sequence[str], candidates: Sequence[str]) -> np.ndarray:
        self.pairs += zip(queries, candidates, strict=True)
        return np.array([self.scores[c] for c in candidates], dtype=np.float32)


@pytest.fixture
def scorer() -> Scorer:
    return Scorer(dict(SCORES))


@pytest.fixture
def reranker(scorer: Scorer) -> Reranker:
    return Reranker(scorer, ContextBuilder(BOOKS, **CONTEXT), BOOKS, editions=EDITIONS)


def test_the_highest_score_has_rank_one(reranker: Reranker) -> None:
    assert reranker.rerank("Likes: Dune.", [20, 10, "best"]) == [
        Ranked(1, None, 9.0, "best"),
        Ranked(2, 10, 2.0, "Dune by Frank Herbert"),
        Ranked(3, 20, -1.0, "Emma by Jane Austen"),
    ]


@pytest.mark.parametrize(("top_k", "expected"), [(1, [None]), (2, [None, 10]), (9, [None, 10, 20])])
def test_top_k_keeps_the_best(reranker: Reranker, top_k: int, expected: list[int | None]) -> None:
    result = reranker.rerank("Likes: Dune.", [20, 10, "best"], top_k=top_k)
    assert [r.book_id for r in result] == expected


@pytest.mark.parametrize("top_k", [0, -1, 1.0, True, "2"])
def test_top_k_must_be_a_positive_integer(reranker: Reranker, top_k: Any) -> None:
    with pytest.raises(RequestError, match=r"top_k=.* is not an integer of at least 1"):
        reranker.rerank("Likes: Dune.", [20, 10], top_k=top_k)


def test_ties_are_ordered_by_id_then_by_the_order_of_the_request(reranker: Reranker) -> None:
    candidates = [
        "tie",
        {"text": "tie", "book_id": "b"},
        {"text": "tie", "book_id": 31},
        {"text": "tie", "book_id": "a"},
        30,
    ]
    assert ids(reranker.rerank("Likes: It.", candidates)) == [30, 31, "a", "b", None]


def test_every_candidate_is_scored_with_the_context_and_equal_texts_once(
    reranker: Reranker, scorer: Scorer
) -> None:
    reranker.rerank("Likes: It.", ["best", "tie", "best"])
    assert scorer.pairs == [("Likes: It.", "best"), ("Likes: It.", "tie")]


def test_a_text_of_the_request_replaces_that_of_the_catalogue(reranker: Reranker) -> None:
    assert reranker.rerank("Likes: It.", [{"book_id": 10, "text": "tie"}]) == [
        Ranked(1, 10, 0.5, "tie")
    ]


def test_numpy_ids_of_a_frame_are_ids(reranker: Reranker) -> None:
    candidates = BOOKS["book_id"].to_numpy()[:2]
    assert ids(reranker.rerank(None, candidates, history=pd.Series([30]))) == [10, 20]


def test_another_edition_keeps_its_id_and_has_the_text_of_the_kept_edition(
    reranker: Reranker,
) -> None:
    assert reranker.rerank("Likes: It.", [11]) == [Ranked(1, 11, 2.0, "Dune by Frank Herbert")]


@pytest.mark.parametrize(
    ("history", "ratings", "context"),
    [
        ([40, 10], None, DUNE_FIRST),
        ([10, 40], [4, 5], ULYSSES_FIRST),
        ([10, 30], [5, 3.5], "Likes: Dune by Frank Herbert. Genres: science fiction, classics"),
        ([30], [1.0], "Likes: It by Stephen King. Genres: horror"),
        ([10, 11], [1, 5], "Likes: Dune by Frank Herbert. Genres: science fiction, classics"),
        (
            [30, 11, 10],
            [5, 4, 5],
            "Likes: Dune by Frank Herbert; It by Stephen King. Genres: science fiction, classics",
        ),
    ],
    ids=[
        "all liked",
        "best rated first",
        "only liked books",
        "none liked",
        "one work",
        "one work, higher rating",
    ],
)
def test_a_history_is_rendered_as_a_context(
    reranker: Reranker,
    scorer: Scorer,
    history: list[int],
    ratings: list[float] | None,
    context: str,
) -> None:
    reranker.rerank(None, ["best"], history=history, ratings=ratings)
    assert scorer.pairs == [(context, "best")]


@pytest.mark.parametrize(
    ("history", "ratings", "timestamps", "context"),
    [
        ([10, 40], None, [1, 2], ULYSSES_FIRST),
        ([10, 40], [5, 4], [1, 2], DUNE_FIRST),
        ([30, 10, 11], [4, 5, 1], [1, 1, 2], "Likes: It by Stephen King. Genres: horror"),
    ],
    ids=["latest first", "best rated before latest", "one work, latest rating"],
)
def test_timestamps_order_the_titles_of_the_context(
    reranker: Reranker,
    scorer: Scorer,
    history: list[int],
    ratings: list[float] | None,
    timestamps: list[int],
    context: str,
) -> None:
    reranker.rerank(None, ["best"], history=history, ratings=ratings, timestamps=timestamps)
    assert scorer.pairs == [(context, "best")]


def test_a_history_is_rendered_as_in_training(reranker: Reranker, scorer: Scorer) -> None:
    user, book, time = np.zeros(3, np.int32), np.array([0, 1, 3], np.int32), np.zeros(3, np.int64)
    rating = np.array([4, 2, 5], np.float32)
    context = ContextBuilder(BOOKS, **CONTEXT).render(user, book, rating, time)[0]
    by_history = reranker.rerank(None, [30, "best"], history=[10, 20, 40], ratings=[4, 2, 5])
    assert by_history == reranker.rerank(context, [30, "best"])
    assert len({query for query, _ in scorer.pairs}) == 1


def test_history_books_may_be_candidates(reranker: Reranker) -> None:
    assert ids(reranker.rerank(None, [20, 10], history=[10])) == [10, 20]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (
            {"user_ctx": None, "candidates": [10]},
            r"user_ctx, history: give exactly one, got neither",
        ),
        (
            {"user_ctx": "a", "history": [10], "candidates": [10]},
            r"user_ctx, history: give exactly one, got both",
        ),
        ({"user_ctx": " \n", "candidates": [10]}, r"user_ctx is blank"),
        ({"user_ctx": 7, "candidates": [10]}, r"user_ctx is of type int"),
        ({"user_ctx": "a\ud800", "candidates": [10]}, r"user_ctx holds half of a surrogate pair"),
        (
            {"user_ctx": "a", "ratings": [5], "candidates": [10]},
            r"ratings: these belong to history",
        ),
        ({"history": [], "candidates": [10]}, r"history is empty"),
        ({"history": "10", "candidates": [10]}, r"history is of type str"),
        (
            {"history": [10, 99, 98], "candidates": [10]},
            r"history\[1\]=99 is not in the model's catalogue of 5",
        ),
        (
            {"history": [2**70], "candidates": [10]},
            r"history\[0\]=1180591620717411303424 is not in",
        ),
        ({"history": ["10"], "candidates": [10]}, r"history\[0\]='10' is not an integer"),
        ({"history": [True], "candidates": [10]}, r"history\[0\]=True is not an integer"),
        ({"history": [10, 20, 10], "candidates": [10]}, r"history\[2\]=10 repeats history\[0\]"),
        (
            {"history": [10, 20], "ratings": [5], "candidates": [10]},
            r"ratings has 1 values for 2 history books",
        ),
        (
            {"history": [10], "ratings": [float("nan")], "candidates": [10]},
            r"ratings\[0\]=nan is not a rating",
        ),
        (
            {"history": [10, 20], "ratings": [5, float("inf")], "candidates": [10]},
            r"ratings\[1\]=inf is not a rating",
        ),
        ({"history": [10], "ratings": [6], "candidates": [10]}, r"ratings\[0\]=6 .* from 1 to 5"),
        (
            {"history": [10], "ratings": ["5"], "candidates": [10]},
            r"ratings\[0\]='5' is not a rating",
        ),
        (
            {"user_ctx": "a", "timestamps": [5], "candidates": [10]},
            r"timestamps: these belong to history",
        ),
        (
            {"history": [10, 20], "timestamps": [5], "candidates": [10]},
            r"timestamps has 1 values for 2 history books",
        ),
        (
            {"history": [10], "timestamps": [1.5], "candidates": [10]},
            r"timestamps\[0\]=1.5 is not a time",
        ),
        (
            {"history": [10], "timestamps": [-1], "candidates": [10]},
            r"timestamps\[0\]=-1 is not a time",
        ),
        (
            {"history": [10], "timestamps": [2**63], "candidates": [10]},
            r"timestamps\[0\]=9223372036854775808 is not",
        ),
        ({"user_ctx": "a", "candidates": []}, r"candidates is empty"),
        ({"user_ctx": "a", "candidates": "best"}, r"candidates is of type str"),
        ({"user_ctx": "a", "candidates": None}, r"candidates is of type NoneType"),
        ({"user_ctx": "a", "candidates": ["best", " "]}, r"candidates\[1\] is blank"),
        ({"user_ctx": "a", "candidates": [1.5]}, r"candidates\[0\] is of type float"),
        (
            {"user_ctx": "a", "candidates": [10, 99]},
            r"candidates\[1\]\.book_id=99 is not in the model's catalogue",
        ),
        (
            {"user_ctx": "a", "candidates": [{"book_id": "10"}]},
            r"candidates\[0\]\.text is missing; book_id='10'",
        ),
        ({"user_ctx": "a", "candidates": [{}]}, r"candidates\[0\]\.text is missing"),
        (
            {"user_ctx": "a", "candidates": [{"book_id": 1.0, "text": "a"}]},
            r"candidates\[0\]\.book_id is of type float",
        ),
        (
            {"user_ctx": "a", "candidates": [{"text": "a", "id": 1}]},
            r"candidates\[0\]\.id is unknown",
        ),
        (
            {"user_ctx": "a", "candidates": [10, 20, {"book_id": 10, "text": "x"}]},
            r"\[2\]\.book_id=10 repeats candidates\[0\]",
        ),
        (
            {"user_ctx": "a", "candidates": ["x" * 100_001]},
            r"candidates\[0\] has 100001 characters",
        ),
        ({"user_ctx": "a", "candidates": ["x"] * 10_001}, r"10001 are more than 10000"),
    ],
)
def test_the_error_of_a_bad_request_names_the_field(
    reranker: Reranker, request_: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        reranker.rerank(**{"user_ctx": None, **request_})


def test_scores_that_are_not_finite_are_an_error(reranker: Reranker, scorer: Scorer) -> None:
    scorer.scores["best"] = float("nan")
    with pytest.raises(ModelError, match="1 of 2 scores are not finite"):
        reranker.rerank("Likes: It.", ["best", "tie"])


def test_importing_the_package_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'mlflow', 'pandas', 'numpy'}"
    loaded = f"{heavy} & set(sys.modules) or 'nothing heavy'"
    code = f"import sys, reranker; print(reranker.__version__, {loaded})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"{importlib.metadata.version('reranker')} nothing heavy\n"
