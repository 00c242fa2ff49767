"""The audit finds each planted leak, names the first offender, and lets sound pairs pass."""

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


def with_codes(
    pairs: Pairs, codes: pd.DataFrame, tables: Tables, contexts: Contexts, path: Path
) -> Pairs:
    """The pairs with other rows, in the codes and in the file."""
    user, book = codes["user"].to_numpy(), codes["book"].to_numpy()
    flat = {
        "user_id": tables.users["user_id"].to_numpy()[user],
        "user_ctx": [contexts.text[u] for u in user],
        "book_id": tables.books["book_id"].to_numpy()[book],
        "book_text": tables.books["book_text"].to_numpy()[book],
        "label": codes["label"].to_numpy(),
    }
    table = pa.table(
        {
            k: pa.array(v).dictionary_encode() if k in ("user_id", "user_ctx") else v
            for k, v in flat.items()
        }
    )
    pq.write_table(table, path / "changed.parquet")
    return dataclasses.replace(pairs, codes=codes, path=path / "changed.parquet")


def test_sound_pairs_pass(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame
) -> None:
    counts = audit(tables, contexts, pairs, lists)
    assert counts["pairs_checked"] == len(pairs.codes)
    assert counts["list_rows_checked"] == len(lists)


def test_a_file_with_other_contexts_than_the_run_asks_with_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    """Pairs of a run that was stopped for a leak must not pass later, when the contexts are sound again."""
    other = dataclasses.replace(
        contexts, text=["Likes: Something by Somebody."] * len(contexts.text)
    )
    stale = with_codes(pairs, pairs.codes, tables, other, tmp_path)
    leaks(
        tables, contexts, stale, lists, "another context in the pairs file than the run asks with"
    )


def test_a_file_with_other_rows_than_its_codes_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    flipped = pairs.codes.assign(label=1 - pairs.codes["label"])
    changed = with_codes(pairs, flipped, tables, contexts, tmp_path)
    leaks(
        tables,
        contexts,
        dataclasses.replace(changed, codes=pairs.codes),
        lists,
        "rows differ from the file",
    )
    fewer = dataclasses.replace(pairs, codes=pairs.codes.iloc[1:])
    leaks(tables, contexts, fewer, lists, f"{len(pairs.codes)} rows, and {len(fewer.codes)} codes")


def compare_across_types(
    histories: pd.DataFrame, targets: pd.DataFrame, n_books: int
) -> pd.DataFrame:
    """The original's exclusion: book ids as int on one side and as str on the other are never equal."""
    excluded = set(zip(targets["user"], targets["book"].astype(str), strict=True))
    return histories[
        [pair not in excluded for pair in zip(histories["user"], histories["book"], strict=True)]
    ]


def test_the_originals_leak_is_found_and_its_first_user_and_book_named(
    tables: Tables,
    data_cfg: DataConfig,
    pairs: Pairs,
    lists: pd.DataFrame,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(contexts_module, "drop_targets", compare_across_types)
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
    leaks(
        dataclasses.replace(tables, books=books),
        contexts,
        pairs,
        lists,
        "another edition in their own context",
    )


def test_a_title_in_the_text_alone_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    book = tables.books.loc[target["book"]]
    text = list(contexts.text)
    text[target["user"]] = (
        f"Likes: {book['title']} by {book['authors']}; Another by One. Genres: fantasy"
    )
    leaky = dataclasses.replace(contexts, text=text)
    built = with_codes(pairs, pairs.codes, tables, leaky, tmp_path)
    leaks(tables, leaky, built, lists, "their title in the text of their own context")


def test_a_title_in_a_context_of_another_template_is_found(
    tables: Tables, data_cfg: DataConfig, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    contexts = build_contexts(
        tables, dataclasses.replace(data_cfg, context_template="Read {titles} | Of {genres}")
    )
    audit(tables, contexts, with_codes(pairs, pairs.codes, tables, contexts, tmp_path), lists)
    target = pairs.codes[pairs.codes["label"] == 1].iloc[0]
    book, text = tables.books.loc[target["book"]], list(contexts.text)
    text[target["user"]] = f"Read {book['title']} by {book['authors']} | Of fantasy"
    leaky = dataclasses.replace(contexts, text=text)
    built = with_codes(pairs, pairs.codes, tables, leaky, tmp_path)
    leaks(tables, leaky, built, lists, "their title in the text of their own context")


def test_a_rated_negative_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    codes = pairs.codes.copy()
    h = tables.histories
    rated = h[
        (h["user"] == codes["user"][1]) & ~h["is_target"] & (h["rating"] >= tables.positive_rating)
    ].iloc[0]
    codes.loc[1, "book"] = rated["book"]
    changed = with_codes(pairs, codes, tables, contexts, tmp_path)
    leaks(tables, contexts, changed, lists, "negatives were rated by their user")
    excused = dataclasses.replace(changed, codes=codes.assign(source="disliked"))
    leaks(tables, contexts, excused, lists, "negatives drawn as disliked were liked by their user")


def test_a_repeated_pair_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    codes = pd.concat([pairs.codes, pairs.codes.iloc[:2]], ignore_index=True)
    changed = with_codes(pairs, codes, tables, contexts, tmp_path)
    leaks(tables, contexts, changed, lists, "2 pairs stand twice")


def test_a_train_user_in_a_list_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame
) -> None:
    extra = pairs.codes.iloc[:4]
    leaks(tables, contexts, pairs, pd.concat([lists, extra]), "list rows belong to train users")


def test_a_test_user_in_the_pairs_is_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, lists: pd.DataFrame, tmp_path: Path
) -> None:
    extra = (
        lists[["user", "book", "label"]].iloc[:4].assign(context=lists["user"], source="uniform")
    )
    codes = pd.concat([pairs.codes.astype({"source": str}), extra], ignore_index=True)
    changed = with_codes(pairs, codes, tables, contexts, tmp_path)
    leaks(tables, contexts, changed, lists, "outside the train fold")


def test_retrieved_lists_pass_with_targets_that_were_not_liked(
    tables: Tables, contexts: Contexts, pairs: Pairs, cache: Cache
) -> None:
    cfg = dataclasses.replace(EVAL, list_kinds=["retriever", "uniform", "bookdb"], n_candidates=20)
    frame = build_lists(tables, cfg, "test", cache).frame
    rated = frame[frame["label"] == 0].merge(tables.histories, on=["user", "book"])
    assert len(rated) > 0
    assert audit(tables, contexts, pairs, frame)["list_rows_checked"] == len(frame)


def test_context_books_and_liked_negatives_among_retrieved_ones_are_found(
    tables: Tables, contexts: Contexts, pairs: Pairs, cache: Cache
) -> None:
    frame = build_lists(
        tables, dataclasses.replace(EVAL, list_kinds=["retriever"]), "test", cache
    ).frame
    found = frame.index[frame["label"] == 1][0]
    hidden = frame.assign(label=frame["label"].where(frame.index != found, 0))
    leaks(tables, contexts, pairs, hidden, "retrieved negatives were liked by their user")
    known = contexts.rows[contexts.rows["user"] == frame["user"].iloc[0]]["book"].iloc[0]
    inside = frame.assign(
        book=frame["book"].where(frame.index != frame.index[frame["label"] == 0][0], known)
    )
    leaks(tables, contexts, pairs, inside, "retrieved books stand in the context")
