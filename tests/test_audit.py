"""The audit finds each planted leak, names the first offender, and lets sound pairs pass."""

from __future__ import annotations

import dataclasses
import re

import pandas as pd
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, EvalConfig, SamplingConfig
from reranker.data import Contexts, Tables, build_contexts
from reranker.data import contexts as contexts_module
from reranker.errors import LeakError
from reranker.eval import build_lists
from reranker.sampling import Pairs, audit, build_pairs

EVAL = EvalConfig(n_candidates=10, max_positives=3, max_users=None)


@pytest.fixture
def pairs(tables: Tables, contexts: Contexts, cache: Cache) -> Pairs:
    return build_pairs(tables, contexts, SamplingConfig(), EngineConfig("synchronous", 1), cache)


@pytest.fixture
def lists(tables: Tables, cache: Cache) -> pd.DataFrame:
    return build_lists(tables, EVAL, "test", cache).frame


def leaks(tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, what: str) -> str:
    with pytest.raises(LeakError, match=re.escape(what)) as error:
        audit(tables, contexts, pairs, lists)
    return str(error.value)


def test_sound_pairs_pass(tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame) -> None:
    counts = audit(tables, contexts, pairs, lists)
    assert counts["pairs_checked"] == len(pairs.codes)
    assert counts["list_rows_checked"] == len(lists)


def compare_across_types(histories: pd.DataFrame, targets: pd.DataFrame, n_books: int) -> pd.DataFrame:
    """The original's exclusion: book ids as int on one side and as str on the other are never equal."""
    excluded = set(zip(targets["user"], targets["book"].astype(str), strict=True))
    return histories[[pair not in excluded for pair in zip(histories["user"], histories["book"], strict=True)]]


def test_the_originals_leak_is_found_and_its_first_user_and_book_named(
    tables: Tables, data_cfg: DataConfig, pairs: Pairs, lists: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contexts_module, "without", compare_across_types)
    leaky = build_contexts(tables, data_cfg)
    message = leaks(tables, leaky, pairs, lists, "targets stand in their own context")
    first = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    assert f"user_id={tables.users['user_id'][first['user']]}" in message
    assert f"book_id={tables.books['book_id'][first['book']]}" in message


def test_another_edition_in_the_context_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame
) -> None:
    """Editions that were not merged: the target's twin, another id of one title and author, is in the context."""
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    mine = contexts.rows[contexts.rows["user"] == target["user"]].iloc[0]
    books = tables.books.copy()
    for column in ("title", "authors"):
        books.loc[mine["book"], column] = books.loc[target["book"], column]
    leaks(dataclasses.replace(tables, books=books), contexts, pairs, lists, "another edition in their own context")


def test_a_title_in_the_text_alone_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame
) -> None:
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    book = tables.books.loc[target["book"]]
    text = list(contexts.text)
    text[target["user"]] = f"Likes: {book['title']} by {book['authors']}; Another by One. Genres: fantasy"
    leaks(
        tables, dataclasses.replace(contexts, text=text), pairs, lists, "their title in the text of their own context"
    )


def test_a_title_in_a_context_of_another_template_is_found(
    tables: Tables, data_cfg: DataConfig, pairs: Pairs, lists: pd.DataFrame
) -> None:
    contexts = build_contexts(tables, dataclasses.replace(data_cfg, context_template="Read {titles} | Of {genres}"))
    audit(tables, contexts, pairs, lists)
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    book, text = tables.books.loc[target["book"]], list(contexts.text)
    text[target["user"]] = f"Read {book['title']} by {book['authors']} | Of fantasy"
    leaky = dataclasses.replace(contexts, text=text)
    leaks(tables, leaky, pairs, lists, "their title in the text of their own context")


def test_a_rated_negative_is_found(tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame) -> None:
    codes = pairs.codes.copy()
    rated = tables.histories[(tables.histories["user"] == codes["user"][1]) & ~tables.histories["is_target"]].iloc[0]
    codes.loc[1, "book"] = rated["book"]
    leaks(tables, contexts, dataclasses.replace(pairs, codes=codes), lists, "negatives were rated by their user")


def test_a_repeated_pair_is_found(tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame) -> None:
    codes = pd.concat([pairs.codes, pairs.codes.iloc[:2]], ignore_index=True)
    leaks(tables, contexts, dataclasses.replace(pairs, codes=codes), lists, "2 pairs stand twice")


def test_a_train_user_in_a_list_is_found(tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame) -> None:
    extra = pairs.codes.iloc[:4]
    leaks(tables, contexts, pairs, pd.concat([lists, extra]), "list rows belong to train users")


def test_a_test_user_in_the_pairs_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame
) -> None:
    codes = pd.concat([pairs.codes, lists[["user", "book", "label"]].iloc[:4]], ignore_index=True)
    leaks(tables, contexts, dataclasses.replace(pairs, codes=codes), lists, "outside the train fold")
