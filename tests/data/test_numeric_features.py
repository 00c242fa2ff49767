"""Numeric features are put before the texts of candidates, equally in pairs, lists and serving."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, EvalConfig, SamplingConfig
from reranker.config.schema import TEXT_FEATURES
from reranker.data import Contexts, Corpus, Tables, build_contexts, load, load_tables
from reranker.data.numeric_features import DECIMALS, LABELS, NumericFeatures
from reranker.data.retrieval.ease import EASE_BOOKS, Ease
from reranker.errors import DataError
from reranker.eval import build_lists
from reranker.sampling import audit, build_pairs
from tests.helpers.eval_sets import eval_set

BOOKS = pd.DataFrame(
    {
        "authors": ["X", "X, Y", "Y", "", "Z"],
        "genres": ["war", "war, art", "art", "war", ""],
        "book_text": list("abcde"),
    }
)
CONTEXT = pd.DataFrame({"user": [3, 3, 3, 8], "book": [0, 1, 3, 4]})
OVERLAP = ["authors", "genres"]

Build = Callable[..., Contexts]


@pytest.fixture
def with_features(tables: Tables, data_cfg: DataConfig) -> Build:
    """`with_features(*names, ease_books=...)` builds contexts with these text features."""

    def build(*names: str, tables: Tables = tables, **settings: Any) -> Contexts:
        cfg = dataclasses.replace(data_cfg, text_features=list(names))
        return build_contexts(tables, cfg, **settings)

    return build


def by_hand(tables: Tables, contexts: Contexts, user: int, book: int) -> str:
    """Return the text of a candidate with the features authors and genres."""
    rows = contexts.rows[contexts.rows["user"] == user]
    sums = []
    for column in OVERLAP:
        names = [set(filter(None, text.split(", "))) for text in tables.books[column]]
        own = names[book]
        others = [names[b] for b in rows["book"]]
        sums.append(sum(len(own & o) / math.sqrt(len(own) * len(o)) for o in others if own and o))
    authors, genres = 5 * math.log1p(sums[0]), 50 * sums[1] / len(rows)
    return f"Authors: {authors:.0f} | Genres: {genres:.0f} | {tables.books['book_text'][book]}"


def test_levels_compare_a_candidate_with_the_context_books_of_its_user() -> None:
    # Candidate c (Y; art) of user 3: of 3 context books one has X and Y, and war and art, so that
    # both cosines are 1 / sqrt(2).
    level = round(5 * math.log(1 + math.sqrt(0.5))), round(50 * math.sqrt(0.5) / 3)
    texts = NumericFeatures(BOOKS, OVERLAP).prepend(
        BOOKS["book_text"], np.array([3, 8, 8]), np.array([2, 2, 4]), CONTEXT
    )
    assert texts.to_pylist() == [
        f"Authors: {level[0]} | Genres: {level[1]} | c",
        "Authors: 0 | Genres: 0 | c",
        f"Authors: {round(5 * math.log(2))} | Genres: 0 | e",
    ]


SUBSETS = [names for n in range(1, 5) for names in itertools.combinations(LABELS, n)]


@pytest.mark.parametrize("names", SUBSETS, ids="+".join)
def test_a_text_shows_the_chosen_features_in_one_order(names: tuple[str, ...]) -> None:
    rated = pd.DataFrame({"user": [0, 0, 1, 1, 2], "book": [0, 2, 0, 1, 4]})
    features = NumericFeatures(
        BOOKS,
        names[::-1],
        ease=Ease.fit(rated, n_users=9, n_books=5, n_kept=5) if "ease" in names else None,
        n_readers=np.array([0, 0, 7, 0, 0]) if "readers" in names else None,
    )
    user, book = np.array([3]), np.array([2])
    levels = features.levels(user, book, CONTEXT)
    assert list(levels) == [LABELS[name] for name in names]
    assert levels.get("Readers", [round(3 * math.log(8))]) == [round(3 * math.log(8))]
    [text] = features.prepend(BOOKS["book_text"], user, book, CONTEXT).to_pylist()
    assert text == "".join(f"{label}: {level[0]} | " for label, level in levels.items()) + "c"


def test_a_feature_does_not_depend_on_the_others(with_features: Build) -> None:
    user, book = np.repeat(np.arange(60), 5), np.arange(300) % 40
    together = with_features(*LABELS).levels(user, book)
    for name, label in LABELS.items():
        [level] = with_features(name).levels(user, book).values()
        np.testing.assert_array_equal(level, together[label])
        assert len(set(level)) > 1


def test_every_feature_of_the_config_has_a_label() -> None:
    assert tuple(LABELS) == TEXT_FEATURES


def test_an_unknown_feature_and_a_missing_input_are_refused() -> None:
    with pytest.raises(DataError, match="'ratings' is unknown; choose from ease, authors, genres,"):
        NumericFeatures(BOOKS, ["genres", "ratings"])
    for name in ("ease", "readers"):
        with pytest.raises(DataError, match=f"the text feature '{name}' needs ratings"):
            NumericFeatures(BOOKS, [name])


def test_a_rank_level_is_the_candidates_rank_by_the_ratings_of_other_users(
    tables: Tables, with_features: Build
) -> None:
    contexts = with_features("ease")
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


def test_targets_do_not_change_the_rank_levels_of_their_own_user(
    tables: Tables, with_features: Build
) -> None:
    h = tables.histories
    user = int(np.flatnonzero(tables.users["split"] == "train")[0])
    fewer = dataclasses.replace(tables, histories=h[~((h["user"] == user) & h["is_target"])])
    book = np.arange(len(tables.books))
    with_targets, without_targets = (
        with_features("ease", tables=t).levels(np.full(len(book), user), book)
        for t in (tables, fewer)
    )
    np.testing.assert_array_equal(with_targets["Ratings"], without_targets["Ratings"])


def test_targets_do_not_count_as_readers(tables: Tables, with_features: Build) -> None:
    context = tables.histories[~tables.histories["is_target"]]
    book = np.arange(len(tables.books))
    n_readers = [int((context["book"] == b).sum()) for b in book]
    levels = with_features("readers").levels(np.zeros_like(book), book)["Readers"]
    assert levels.tolist() == [round(3 * math.log(1 + n)) for n in n_readers]
    assert len(set(n_readers)) > 1


def test_readers_leave_the_books_own_texts_unchanged(
    data_cfg: DataConfig, cache: Cache, tables: Tables
) -> None:
    """BM25 and the bi-encoder read `book_text`; only the model reads numeric features."""
    cfg = dataclasses.replace(data_cfg, text_features=["readers"])
    corpus = load(cfg, cache)
    assert corpus.hit  # the folder is the one of the tables without features
    pd.testing.assert_frame_equal(corpus.tables.books, tables.books)
    assert corpus.digest != tables.digest
    texts = corpus.contexts.candidates(corpus.tables.books, np.array([0]), np.array([3]))
    assert texts.to_pylist()[0].startswith("Readers: ")


def test_ease_ranks_as_many_books_as_the_setting_says(
    data_cfg: DataConfig, cache: Cache, tables: Tables
) -> None:
    cfg = dataclasses.replace(data_cfg, text_features=["ease"])
    book = np.arange(len(tables.books))
    default, few = (
        load(cfg, cache, ease_books=n).contexts.levels(np.zeros_like(book), book)["Ratings"]
        for n in (EASE_BOOKS, 5)
    )
    assert (default != few).any()


def test_pairs_of_another_number_of_ease_books_are_other_pairs(
    tables: Tables, with_features: Build, cache: Cache
) -> None:
    default, few = (with_features("ease", ease_books=n) for n in (EASE_BOOKS, 5))
    assert with_features("genres", ease_books=5).cache_key == default.cache_key == {}
    pairs = [
        build_pairs(Corpus(tables, contexts), SamplingConfig(), EngineConfig(), cache)
        for contexts in (default, few)
    ]
    assert not pairs[1].hit
    assert pairs[0].digest != pairs[1].digest


def test_no_pairs_give_no_texts() -> None:
    none = np.empty(0, dtype=np.int64)
    features = NumericFeatures(BOOKS, OVERLAP)
    assert features.prepend(BOOKS["book_text"], none, none, CONTEXT).to_pylist() == []


def test_pairs_and_lists_have_features_of_the_context_side(
    tables: Tables, with_features: Build, cache: Cache
) -> None:
    contexts = with_features(*OVERLAP)
    pairs = build_pairs(Corpus(tables, contexts), SamplingConfig(), EngineConfig(), cache)
    file = pd.read_parquet(pairs.path).astype({"book_text": str})
    codes = zip(pairs.codes["user"].tolist(), pairs.codes["book"].tolist(), strict=True)
    assert file["book_text"].tolist() == [by_hand(tables, contexts, *pair) for pair in codes]
    cfg = EvalConfig(n_candidates=12, max_positives=3)
    lists = build_lists(tables, cfg, "test", cache)
    scored: list[str] = []

    def score(queries: object, candidates: list[str]) -> np.ndarray:
        scored.extend(candidates)
        return np.zeros(len(candidates))

    eval_set(tables, lists, cfg, contexts=contexts).score(score)
    codes = zip(lists.frame["user"].tolist(), lists.frame["book"].tolist(), strict=True)
    assert scored == [by_hand(tables, contexts, *pair) for pair in codes]
    assert audit(Corpus(tables, contexts), pairs, lists.frame)["pairs_checked"] == len(file)


@pytest.mark.parametrize(
    ("names", "prefix"),
    [(OVERLAP, r"^Authors: \d+ \| Genres: \d+ \| "), (["readers"], r"^Readers: \d+ \| ")],
)
def test_features_change_the_texts_of_pairs_only(
    data_cfg: DataConfig, tmp_path: Path, names: list[str], prefix: str
) -> None:
    """The part files hold the books' own texts, the refined file has the features."""
    sampling = SamplingConfig(max_positives=None)  # refinement keeps all pairs
    built = []
    for features in ([], names):
        cfg = dataclasses.replace(data_cfg, text_features=features)
        cache = Cache(tmp_path / str(len(features)))
        tables = load_tables(cfg, cache)
        contexts = build_contexts(tables, cfg)
        built.append(build_pairs(Corpus(tables, contexts), sampling, EngineConfig(), cache))
    plain, featured = built
    pd.testing.assert_frame_equal(plain.codes, featured.codes)
    left, right, parts = (
        pd.read_parquet(path).astype({"book_text": str})
        for path in (plain.path, featured.path, featured.parts)
    )
    pd.testing.assert_frame_equal(left.drop(columns="book_text"), right.drop(columns="book_text"))
    stripped = right["book_text"].str.replace(prefix, "", regex=True)
    assert stripped.tolist() == left["book_text"].tolist() == parts["book_text"].tolist()
    assert (stripped != right["book_text"]).all()
