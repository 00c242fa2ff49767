"""The examples are the users with the largest gains and losses, with rankings by score."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reranker.config import EvalConfig
from reranker.data import Contexts, Corpus, Tables
from reranker.eval import CandidateLists, EvalSet, metrics
from reranker.reports.run.examples import N_EXAMPLES, ExampleUsers, choose_examples

N_BOOKS = 12


def small_corpus(n_users: int) -> Corpus:
    """Users `u00`, `u01`, … and books `Title 0` to `Title 11`."""
    users = pd.DataFrame({"user_id": [f"u{i:02d}" for i in range(n_users)]})
    books = pd.DataFrame({"book_id": range(100, 100 + N_BOOKS)})
    books = books.assign(
        title=[f"Title {i}" for i in range(N_BOOKS)],
        authors=[f"Author {i}" for i in range(N_BOOKS)],
    )
    nothing = pd.DataFrame()
    tables = Tables(books, users, nothing, nothing, 4.0, "digest", {}, Path("nowhere"))
    contexts = Contexts([f"context of {i}" for i in range(n_users)], nothing, cast(Any, None))
    return Corpus(tables, contexts)


def eval_set(corpus: Corpus, rows: pd.DataFrame, scores: dict[str, np.ndarray]) -> EvalSet:
    lists = CandidateLists(rows, "digest", "test", hit=False, counts={})
    return EvalSet(corpus, lists, EvalConfig(), scores)


def lists(n_users: int, positive: int) -> pd.DataFrame:
    """Lists of kind `uniform` with every book for every user; one book is positive."""
    frame = pd.DataFrame({"kind": "uniform", "user": np.repeat(np.arange(n_users), N_BOOKS)})
    frame["book"] = np.tile(np.arange(N_BOOKS), n_users)
    return frame.assign(label=(frame["book"] == positive).astype(int))


def chosen(rows: pd.DataFrame, scores: dict[str, np.ndarray], n_users: int) -> ExampleUsers:
    corpus = small_corpus(n_users)
    parts = []
    for scorer, values in scores.items():
        users = metrics.evaluate(
            rows["user"].to_numpy(), rows["label"].to_numpy(), values, cutoffs=[10]
        )
        user_id = corpus.tables.user_ids(users["group"].to_numpy())
        parts.append(users.assign(scorer=scorer, kind="uniform", user_id=user_id))
    per_user = pd.concat(parts, ignore_index=True)
    test = eval_set(corpus, rows, scores)
    return choose_examples(test, per_user, kind="uniform", ours="ours", theirs="theirs")


def scores_by_place(places: list[int], positive: int) -> np.ndarray:
    """Scores that rank the positive at each user's 0-based place, and other books by id."""
    out = []
    for place in places:
        others = [b for b in range(N_BOOKS) if b != positive]
        order = [*others[:place], positive, *others[place:]]
        out.append([float(-order.index(b)) for b in range(N_BOOKS)])
    return np.concatenate(out)


def test_an_example_has_the_context_the_gain_and_both_rankings() -> None:
    rows = lists(1, positive=3)
    found = chosen(rows, {"ours": scores_by_place([0], 3), "theirs": scores_by_place([11], 3)}, 1)
    [example] = found.gains
    assert (example.user_id, example.context) == ("u00", "context of 0")
    assert (example.n_positives, example.n_candidates) == (1, 12)
    assert [b.title for b in example.ours.top] == [
        f"Title {i}" for i in (3, 0, 1, 2, 4, 5, 6, 7, 8, 9)
    ]
    assert [b.is_positive for b in example.ours.top] == [True] + [False] * 9
    assert example.ours.top[0].authors == "Author 3" and example.ours.lower == []
    assert not any(b.is_positive for b in example.theirs.top) and example.theirs.lower == [12]
    assert (example.ours.ndcg_10, example.theirs.ndcg_10, example.gain) == (1.0, 0.0, 1.0)
    assert (found.losses, found.n_gain, found.n_equal, found.n_loss) == ([], 1, 0, 0)


def test_the_largest_gains_come_first_and_equal_gains_are_sorted_by_user_id() -> None:
    # NDCG@10 is 1 / log2(place + 2); in `theirs` the positive is always second.
    places = [0, 1, 9, 0, 2, 9, 0, 3, 0, 0, 0]
    found = chosen(
        lists(11, positive=5),
        {"ours": scores_by_place(places, 5), "theirs": scores_by_place([1] * 11, 5)},
        11,
    )
    assert [e.user_id for e in found.gains] == ["u00", "u03", "u06", "u08", "u09"]
    assert [e.user_id for e in found.losses] == ["u02", "u05", "u07", "u04"]
    assert found.gains[0].gain == pytest.approx(1 - 1 / np.log2(3))
    assert found.losses[-1].gain == pytest.approx(1 / np.log2(4) - 1 / np.log2(3))
    assert (found.n_gain, found.n_equal, found.n_loss) == (6, 1, 4)


def test_books_with_equal_scores_are_sorted_by_id_and_the_metric_is_the_expected_one() -> None:
    rows = lists(1, positive=11)
    found = chosen(rows, {"ours": np.zeros(N_BOOKS), "theirs": scores_by_place([11], 11)}, 1)
    [example] = found.gains
    assert [b.title for b in example.ours.top] == [
        f"Title {i}" for i in range(10)
    ] and example.ours.lower == [12]
    # The positive is equally likely at each of the 12 places; the first ten count.
    assert example.ours.ndcg_10 == pytest.approx(sum(1 / np.log2(np.arange(2, 12))) / 12)


def test_scores_that_are_equal_as_float32_are_ties() -> None:
    scores = np.full(N_BOOKS, 1.0)
    scores[11] += 1e-12
    found = chosen(lists(1, positive=11), {"ours": scores, "theirs": scores_by_place([11], 11)}, 1)
    assert found.gains[0].ours.top[0].title == "Title 0"


def test_users_without_a_positive_and_other_list_kinds_are_left_out() -> None:
    rows = pd.concat(
        [lists(2, positive=0), lists(2, positive=1).assign(kind="other")], ignore_index=True
    )
    rows.loc[(rows["kind"] == "uniform") & (rows["user"] == 1), "label"] = 0
    half = scores_by_place([0, 0], 0)
    scores = {
        "ours": np.r_[half, scores_by_place([0, 0], 1)],
        "theirs": np.r_[scores_by_place([11, 11], 0), scores_by_place([0, 0], 1)],
    }
    ndcg = {"ours": [1.0, np.nan], "theirs": [0.0, np.nan]}
    per_user = pd.concat(
        pd.DataFrame({"scorer": s, "kind": "uniform", "user_id": ["u00", "u01"], "ndcg_10": v})
        for s, v in ndcg.items()
    )
    test = eval_set(small_corpus(2), rows, scores)
    found = choose_examples(test, per_user, kind="uniform", ours="ours", theirs="theirs")
    assert [e.user_id for e in found.gains] == ["u00"] and found.losses == []
    assert [b.title for b in found.gains[0].ours.top[:2]] == ["Title 0", "Title 1"]
    assert (found.n_gain, found.n_equal, found.n_loss) == (1, 0, 0)


@settings(max_examples=12, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 11), st.integers(0, 11)), min_size=1, max_size=14),
    st.randoms(),
)
def test_the_choice_does_not_depend_on_the_order_of_rows(
    places: list[tuple[int, int]], random: object
) -> None:
    n = len(places)
    rows = lists(n, positive=4)
    scores = {
        "ours": scores_by_place([p for p, _ in places], 4),
        "theirs": scores_by_place([p for _, p in places], 4),
    }
    first = chosen(rows, scores, n)
    order = list(range(len(rows)))
    random.shuffle(order)
    assert chosen(rows.iloc[order], {s: v[order] for s, v in scores.items()}, n) == first
    gains = [e.gain for e in first.gains]
    assert gains == sorted(gains, reverse=True) and len(gains) == min(N_EXAMPLES, first.n_gain)
    assert all(e.gain < 0 for e in first.losses) and len(first.losses) == min(
        N_EXAMPLES, first.n_loss
    )
