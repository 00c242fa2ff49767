"""What candidates share with context books stands before their texts: the same numbers for lists, pairs and serving."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, EvalConfig, SamplingConfig
from reranker.data import Contexts, Corpus, Tables, build_contexts
from reranker.data.numeric_features import DECIMALS, Match
from reranker.data.retrieval.ease import Ease
from reranker.eval import build_lists, score_lists
from reranker.sampling import audit, build_pairs

BOOKS = pd.DataFrame(
    {
        "authors": ["X", "X, Y", "Y", "", "Z"],
        "genres": ["war", "war, art", "art", "war", ""],
        "book_text": list("abcde"),
    }
)
CONTEXT = pd.DataFrame({"user": [3, 3, 3, 8], "book": [0, 1, 3, 4]})


@pytest.fixture
def matched(tables: Tables, data_cfg: DataConfig) -> Contexts:
    return build_contexts(tables, dataclasses.replace(data_cfg, shows_match=True))


def by_hand(tables: Tables, contexts: Contexts, user: int, book: int) -> str:
    rows = contexts.rows[contexts.rows["user"] == user]
    shares = []
    for column in ("authors", "genres"):
        names = [set(filter(None, text.split(", "))) for text in tables.books[column]]
        mine = names[book]
        others = [names[b] for b in rows["book"]]
        shares.append(
            sum(len(mine & o) / math.sqrt(len(mine) * len(o)) for o in others if mine and o)
        )
    authors, genres = 5 * math.log1p(shares[0]), 50 * shares[1] / len(rows)
    return f"Authors: {authors:.0f} | Genres: {genres:.0f} | {tables.books['book_text'][book]}"


def test_levels_are_those_of_the_readers_context_books() -> None:
    # of user 3, candidate c (Y; art): one context book of X and Y, so 1 / sqrt(2) of authors and of genres, among 3
    level = round(5 * math.log(1 + math.sqrt(0.5))), round(50 * math.sqrt(0.5) / 3)
    texts = Match(BOOKS).before(
        BOOKS["book_text"], np.array([3, 8, 8]), np.array([2, 2, 4]), CONTEXT
    )
    assert texts.to_pylist() == [
        f"Authors: {level[0]} | Genres: {level[1]} | c",
        "Authors: 0 | Genres: 0 | c",
        f"Authors: {round(5 * math.log(2))} | Genres: 0 | e",
    ]


def test_a_rank_level_is_of_the_candidates_place_by_the_ratings_of_others(
    tables: Tables, data_cfg: DataConfig
) -> None:
    contexts = build_contexts(tables, dataclasses.replace(data_cfg, shows_ratings=True))
    known, n_books = tables.known(), len(tables.books)
    context = contexts.rows.groupby("user")["book"].apply(list)
    for split in ("train", "test"):
        user = int(np.flatnonzero(tables.users["split"] == split)[0])
        book = np.arange(n_books)
        others = known[known["user"] != user]
        ease = Ease.fit(others, n_users=len(tables.users), n_books=n_books, n_kept=n_books)
        score = ease.scores(np.array([user]), contexts.rows).toarray()[0].round(DECIMALS)
        rest = [b for b in range(n_books) if b not in context[user]]
        levels = contexts.levels(np.full(n_books, user), book)["Ratings"]
        for b in rest:
            above, tied = (score[rest] > score[b]).sum(), (score[rest] == score[b]).sum()
            assert levels[b] == np.rint(4 * np.log2(n_books / (above + (1 + tied) / 2)))
        assert len(set(levels[rest])) > 5


def test_what_a_reader_rated_tells_nothing_of_that_readers_own_levels(
    tables: Tables, data_cfg: DataConfig
) -> None:
    cfg = dataclasses.replace(data_cfg, shows_ratings=True)
    h = tables.histories
    user = int(np.flatnonzero(tables.users["split"] == "train")[0])
    fewer = dataclasses.replace(tables, histories=h[~((h["user"] == user) & h["is_target"])])
    book = np.arange(len(tables.books))
    with_targets, without = (
        build_contexts(t, cfg).levels(np.full(len(book), user), book) for t in (tables, fewer)
    )
    np.testing.assert_array_equal(with_targets["Ratings"], without["Ratings"])


def test_no_pairs_are_no_texts() -> None:
    none = np.empty(0, dtype=np.int64)
    assert Match(BOOKS).before(BOOKS["book_text"], none, none, CONTEXT).to_pylist() == []


def test_pairs_and_lists_are_put_by_the_context_side_alone(
    tables: Tables, matched: Contexts, cache: Cache
) -> None:
    pairs = build_pairs(Corpus(tables, matched), SamplingConfig(), EngineConfig(), cache)
    file = pd.read_parquet(pairs.path).astype({"book_text": str})
    code = zip(pairs.codes["user"].tolist(), pairs.codes["book"].tolist(), strict=True)
    assert file["book_text"].tolist() == [by_hand(tables, matched, *pair) for pair in code]
    lists = build_lists(tables, EvalConfig(n_candidates=12, max_positives=3), "test", cache)
    asked: list[str] = []

    def score(contexts: object, candidates: list[str]) -> np.ndarray:
        asked.extend(candidates)
        return np.zeros(len(candidates))

    score_lists(score, tables, matched, lists)
    code = zip(lists.frame["user"].tolist(), lists.frame["book"].tolist(), strict=True)
    assert asked == [by_hand(tables, matched, *pair) for pair in code]
    assert audit(Corpus(tables, matched), pairs, lists.frame)["pairs_checked"] == len(file)


def test_the_pairs_are_the_same_but_for_their_texts(
    tables: Tables, contexts: Contexts, matched: Contexts, tmp_path: Path
) -> None:
    cfg = SamplingConfig(max_positives=None)  # which refinement leaves as they are
    plain, put = (
        build_pairs(Corpus(tables, x), cfg, EngineConfig(), Cache(tmp_path / name))
        for name, x in (("plain", contexts), ("put", matched))
    )
    pd.testing.assert_frame_equal(plain.codes, put.codes)
    left, right = (pd.read_parquet(p.path).astype({"book_text": str}) for p in (plain, put))
    pd.testing.assert_frame_equal(left.drop(columns="book_text"), right.drop(columns="book_text"))
    stripped = right["book_text"].str.replace(r"^Authors: \d+ \| Genres: \d+ \| ", "", regex=True)
    assert stripped.tolist() == left["book_text"].tolist()
    assert (stripped != right["book_text"]).all()
