"""The audit finds each planted leak, names the first offending row, and accepts correct pairs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from reranker.cache import Cache
from reranker.config import DataConfig, EngineConfig, EvalConfig, SamplingConfig
from reranker.data import Corpus, Tables, build_contexts
from reranker.data import contexts as contexts_module
from reranker.errors import LeakError
from reranker.eval import build_lists
from reranker.sampling import Pairs, audit, build_pairs

EVAL = EvalConfig(n_candidates=10, max_positives=3, max_users=None)


@pytest.fixture
def pairs(corpus: Corpus, cache: Cache) -> Pairs:
    return build_pairs(corpus, SamplingConfig(), EngineConfig("synchronous", 1), cache)


@pytest.fixture
def lists(tables: Tables, cache: Cache) -> pd.DataFrame:
    return build_lists(tables, EVAL, "test", cache).frame


def error_of(corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, *, match: str) -> str:
    """Return the message of the LeakError that the audit raises; it contains `match`."""
    with pytest.raises(LeakError, match=re.escape(match)) as error:
        audit(corpus, pairs, lists)
    return str(error.value)


def with_codes(pairs: Pairs, codes: pd.DataFrame, corpus: Corpus, folder: Path) -> Pairs:
    """Return the pairs with other rows, in the codes and in the file."""
    user, book = codes["user"].to_numpy(), codes["book"].to_numpy()
    columns = {
        "user_id": corpus.tables.user_ids(user),
        "user_ctx": [corpus.contexts.text[u] for u in user],
        "book_id": corpus.tables.book_ids(book),
        "book_text": corpus.tables.books["book_text"].to_numpy()[book],
        "label": codes["label"].to_numpy(),
    }
    encoded = {
        name: pa.array(values).dictionary_encode() if name in ("user_id", "user_ctx") else values
        for name, values in columns.items()
    }
    pq.write_table(pa.table(encoded), folder / "changed.parquet")
    return dataclasses.replace(pairs, codes=codes, path=folder / "changed.parquet")


def with_text(corpus: Corpus, user: int, text: str) -> Corpus:
    """Return the corpus with another context text for one user."""
    texts = list(corpus.contexts.text)
    texts[user] = text
    contexts = dataclasses.replace(corpus.contexts, text=texts)
    return dataclasses.replace(corpus, contexts=contexts)


def test_correct_pairs_are_accepted(corpus: Corpus, pairs: Pairs, lists: pd.DataFrame) -> None:
    counts = audit(corpus, pairs, lists)
    assert counts["pairs_checked"] == len(pairs.codes)
    assert counts["list_rows_checked"] == len(lists)


def test_a_file_with_other_contexts_than_the_run_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    """Pairs of a run that stopped because of a leak are rejected after the contexts are fixed."""
    texts = ["Likes: Something by Somebody."] * len(corpus.contexts.text)
    other = dataclasses.replace(corpus, contexts=dataclasses.replace(corpus.contexts, text=texts))
    stale = with_codes(pairs, pairs.codes, other, tmp_path)
    error_of(corpus, stale, lists, match="another context in the pairs file than in this run")


def test_a_file_with_other_rows_than_its_codes_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    flipped = pairs.codes.assign(label=1 - pairs.codes["label"])
    changed = with_codes(pairs, flipped, corpus, tmp_path)
    restored = dataclasses.replace(changed, codes=pairs.codes)
    error_of(corpus, restored, lists, match="rows differ from the file")
    fewer = dataclasses.replace(pairs, codes=pairs.codes.iloc[1:])
    message = f"the file has {len(pairs.codes)} rows, but there are {len(fewer.codes)} codes"
    error_of(corpus, fewer, lists, match=message)


def compare_across_types(
    histories: pd.DataFrame, targets: pd.DataFrame, n_books: int
) -> pd.DataFrame:
    """Exclude targets as the original system did: int and str book ids are never equal."""
    excluded = set(zip(targets["user"], targets["book"].astype(str), strict=True))
    rows = zip(histories["user"], histories["book"], strict=True)
    return histories[[row not in excluded for row in rows]]


def test_the_original_systems_leak_is_found_and_its_first_user_and_book_are_named(
    tables: Tables,
    data_cfg: DataConfig,
    pairs: Pairs,
    lists: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contexts_module, "drop_targets", compare_across_types)
    leaky = Corpus(tables, build_contexts(tables, data_cfg))
    message = error_of(leaky, pairs, lists, match="targets are part of their own context")
    first = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    assert f"user_id={tables.users['user_id'][first['user']]}" in message
    assert f"book_id={tables.books['book_id'][first['book']]}" in message
    assert f"title={tables.books['title'][first['book']]!r}" in message


def test_another_edition_in_the_context_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame
) -> None:
    """A context book gets the target's title and author, like an edition that was not merged."""
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    rows = corpus.contexts.rows
    twin = rows[rows["user"] == target["user"]].iloc[0]
    books = corpus.tables.books.copy()
    for column in ("title", "authors"):
        books.loc[twin["book"], column] = books.loc[target["book"], column]
    leaky = dataclasses.replace(corpus, tables=dataclasses.replace(corpus.tables, books=books))
    error_of(leaky, pairs, lists, match="another edition in their own context")


def test_a_title_in_the_context_text_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    book = corpus.tables.books.loc[target["book"]]
    text = f"Likes: {book['title']} by {book['authors']}; Another by One. Genres: fantasy"
    leaky = with_text(corpus, target["user"], text)
    built = with_codes(pairs, pairs.codes, leaky, tmp_path)
    error_of(leaky, built, lists, match="their title in the text of their own context")


def test_a_title_in_a_context_of_another_template_is_found(
    tables: Tables, data_cfg: DataConfig, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    cfg = dataclasses.replace(data_cfg, context_template="Read {titles} | Of {genres}")
    corpus = Corpus(tables, build_contexts(tables, cfg))
    audit(corpus, with_codes(pairs, pairs.codes, corpus, tmp_path), lists)
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    book = tables.books.loc[target["book"]]
    text = f"Read {book['title']} by {book['authors']} | Of fantasy"
    leaky = with_text(corpus, target["user"], text)
    built = with_codes(pairs, pairs.codes, leaky, tmp_path)
    error_of(leaky, built, lists, match="their title in the text of their own context")


def test_a_rated_negative_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    codes, tables = pairs.codes.copy(), corpus.tables
    h = tables.histories
    is_liked = (h["user"] == codes["user"][1]) & (h["rating"] >= tables.positive_rating)
    codes.loc[1, "book"] = h[is_liked & ~h["is_target"]].iloc[0]["book"]
    changed = with_codes(pairs, codes, corpus, tmp_path)
    error_of(corpus, changed, lists, match="negatives were rated by their user")
    disliked = dataclasses.replace(changed, codes=codes.assign(source="disliked"))
    message = "negatives drawn as disliked were liked by their user"
    error_of(corpus, disliked, lists, match=message)


def test_a_repeated_pair_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    codes = pd.concat([pairs.codes, pairs.codes.iloc[:2]], ignore_index=True)
    changed = with_codes(pairs, codes, corpus, tmp_path)
    error_of(corpus, changed, lists, match="2 pairs occur twice")


def test_a_train_user_in_a_list_is_found(corpus: Corpus, pairs: Pairs, lists: pd.DataFrame) -> None:
    more = pd.concat([lists, pairs.codes.iloc[:4]])
    error_of(corpus, pairs, more, match="list rows belong to train users")


def test_a_test_user_in_the_pairs_is_found(
    corpus: Corpus, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    rows = lists[["user", "book", "label"]].iloc[:4]
    extra = rows.assign(context=lists["user"], source="uniform")
    codes = pd.concat([pairs.codes.astype({"source": str}), extra], ignore_index=True)
    changed = with_codes(pairs, codes, corpus, tmp_path)
    error_of(corpus, changed, lists, match="outside the train split")


def test_retrieved_lists_may_hold_targets_that_were_not_liked(
    corpus: Corpus, pairs: Pairs, cache: Cache
) -> None:
    kinds = ["retriever", "uniform", "bookdb"]
    cfg = dataclasses.replace(EVAL, list_kinds=kinds, n_candidates=20)
    frame = build_lists(corpus.tables, cfg, "test", cache).frame
    rated = frame[frame["label"] == 0].merge(corpus.tables.histories, on=["user", "book"])
    assert len(rated) > 0
    assert audit(corpus, pairs, frame)["list_rows_checked"] == len(frame)


def test_context_books_and_liked_negatives_among_retrieved_books_are_found(
    corpus: Corpus, pairs: Pairs, cache: Cache
) -> None:
    cfg = dataclasses.replace(EVAL, list_kinds=["retriever"])
    frame = build_lists(corpus.tables, cfg, "test", cache).frame
    positive, negative = (frame.index[frame["label"] == label][0] for label in (1, 0))
    hidden = frame.assign(label=frame["label"].where(frame.index != positive, 0))
    message = "retrieved negatives were liked by their user"
    error_of(corpus, pairs, hidden, match=message)
    rows = corpus.contexts.rows
    known = rows[rows["user"] == frame["user"].iloc[0]]["book"].iloc[0]
    inside = frame.assign(book=frame["book"].where(frame.index != negative, known))
    error_of(corpus, pairs, inside, match="retrieved books are part of the context")
