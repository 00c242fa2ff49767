"""Check pairs and candidate lists for leaked answers, independently of the code that built them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from reranker.data import Corpus, Tables
from reranker.data.contexts import contains_title, context_names
from reranker.data.features import work_keys
from reranker.errors import LeakError
from reranker.sampling.negatives import SOURCES
from reranker.sampling.pairs import Pairs

_NO_PAIRS = pd.DataFrame(
    {name: pd.Series(dtype=np.int32) for name in ("user", "context", "book", "label")}
).assign(source=pd.Categorical([], categories=list(SOURCES)))


def audit(corpus: Corpus, pairs: Pairs | None, *lists: pd.DataFrame) -> dict[str, int]:
    """Check pairs and candidate lists for answers that are visible in their own input.

    Args:
        pairs: The generated pairs; None checks the lists only.
        lists: Frames of candidate lists: kind, user, book, label.

    Returns:
        Number of rows checked, by check.

    Raises:
        LeakError: A target is part of its own context (by id, by work, or by its title in the
            text); the pairs file has another context than `corpus`; a negative was rated by its
            user (allowed are books drawn as disliked, and retrieved targets that the user did not
            like); a pair is repeated; or a user of a list also has training pairs. The message
            names the first offending user and book.

    Example:
        >>> audit(corpus, pairs, test_lists.frame)["pairs_checked"]
        1284
    """
    tables, contexts = corpus.tables, corpus.contexts
    drawn = _NO_PAIRS if pairs is None else pairs.codes
    has_own_contexts = pairs is not None and pairs.has_own_contexts
    frames = (frame[["user", "book", "label"]] for frame in (drawn.iloc[:0], *lists))
    ranked = pd.concat(frames, ignore_index=True)
    kinds = pd.concat([pd.Series(dtype=str), *(f["kind"] for f in lists)], ignore_index=True)
    codes = drawn.assign(text="" if pairs is None else _texts(tables, pairs))
    targets = codes[codes["label"] > 0]
    list_targets = ranked[ranked["label"] > 0].drop_duplicates()
    text = np.asarray(contexts.text, dtype=object)[list_targets["user"]]
    list_targets = list_targets.assign(text=text)
    # Targets whose context is the user's context side.
    held_out = list_targets
    if not has_own_contexts:
        held_out = pd.concat([targets, list_targets], ignore_index=True)
    _check_ids(corpus, held_out)
    _check_works(corpus, held_out)
    template = contexts.builder.template
    _check_titles(tables, held_out, contexts.rows, template=template, at_most=0)
    if has_own_contexts:
        _check_left_out(tables, targets)
        _check_titles(tables, targets, tables.histories, template=template, at_most=1)
    else:
        _check_same_text(corpus, targets)
    _check_negatives(tables, codes[(codes["label"] == 0) & (codes["source"] != "disliked")])
    is_retrieved = (kinds == "retriever").to_numpy()
    _check_negatives(tables, ranked[(ranked["label"] == 0) & ~is_retrieved])
    _check_retrieved(tables, ranked[is_retrieved])
    _check_disliked(tables, codes)
    _check_repeats(tables, drawn)
    _check_splits(tables, drawn, ranked)
    return {
        "pairs_checked": len(codes),
        "list_rows_checked": len(ranked),
        "targets_checked": len(targets) + len(list_targets),
    }


def _texts(tables: Tables, pairs: Pairs) -> pd.Categorical:
    """Return (n_pairs,) contexts in the pairs file; raise if its rows differ from the codes."""
    columns = ["user_id", "user_ctx", "book_id", "label"]
    table = pq.read_table(pairs.path, columns=columns).unify_dictionaries()
    user_id, text = (table[name].combine_chunks() for name in ("user_id", "user_ctx"))
    if table.num_rows != len(pairs.codes):
        raise LeakError(
            f"{pairs.path}: the file has {table.num_rows} rows, but there are {len(pairs.codes)} "
            "codes. Build the pairs again (sampling.regenerate=true)."
        )
    user_of_id = pd.Index(tables.users["user_id"]).get_indexer(user_id.dictionary.to_pylist())
    same = (
        (user_of_id[user_id.indices] == pairs.codes["user"])
        & (table["book_id"].to_numpy() == tables.book_ids(pairs.codes["book"]))
        & (table["label"].to_numpy() == pairs.codes["label"])
    )
    _fail(tables, pairs.codes[~same], "rows differ from the file")
    return pd.Categorical.from_codes(text.indices.to_numpy(), text.dictionary.to_pylist())


def _fail(tables: Tables, rows: pd.DataFrame, what: str) -> None:
    """Raise if there are rows; `what` describes them in the message."""
    if len(rows):
        title = tables.books["title"].iloc[rows["book"].iloc[0]]
        first = tables.with_ids(rows[["user", "book"]].iloc[:1]).iloc[0]
        raise LeakError(
            f"{len(rows)} {what} (first: user_id={first['user_id']}, book_id={first['book_id']}, "
            f"title={title!r}). This leaks the answer; the run stops."
        )


def _keys(frame: pd.DataFrame, tables: Tables) -> np.ndarray:
    return frame["user"].to_numpy().astype(np.int64) * len(tables.books) + frame["book"].to_numpy()


def _among(keys: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return a (n_keys,) mask of the keys that are in `known`.

    Sorting takes 0.1 s for 1e6 ratings; `np.isin`, which hashes, takes 3.1 s.
    """
    ordered = np.sort(known)
    at = np.minimum(np.searchsorted(ordered, keys), len(ordered) - 1)
    return ordered[at] == keys if len(ordered) else np.zeros(len(keys), dtype=bool)


def _check_same_text(corpus: Corpus, targets: pd.DataFrame) -> None:
    once = targets.drop_duplicates(["user", "text"])
    text = corpus.contexts.text
    pairs = zip(once["user"].tolist(), once["text"], strict=True)
    differs = [text[user] != written for user, written in pairs]
    what = "users have another context in the pairs file than in this run"
    _fail(corpus.tables, once[differs], what)


def _check_left_out(tables: Tables, targets: pd.DataFrame) -> None:
    """Check that no two targets share a leave-one-out context, which omits only one book."""
    shared = targets[targets.duplicated("context")]
    _fail(tables, shared, "targets share a context that leaves out only one of them")


def _check_ids(corpus: Corpus, targets: pd.DataFrame) -> None:
    tables = corpus.tables
    inside = _among(_keys(targets, tables), _keys(corpus.contexts.rows, tables))
    _fail(tables, targets[inside], "targets are part of their own context")


def _check_works(corpus: Corpus, targets: pd.DataFrame) -> None:
    tables = corpus.tables
    work = pd.factorize(work_keys(tables.books))[0]
    known, mine = (
        rows["user"].to_numpy().astype(np.int64) * len(tables.books) + work[rows["book"]]
        for rows in (corpus.contexts.rows, targets)
    )
    _fail(tables, targets[_among(mine, known)], "targets have another edition in their own context")


def _check_titles(
    tables: Tables, targets: pd.DataFrame, rows: pd.DataFrame, *, template: str, at_most: int
) -> None:
    """Check that no context text contains the title of its own target.

    Two books may share a title, such as `Naruto #1` and `Naruto #2`. A title that more than
    `at_most` of the user's `rows` have is therefore not checked.
    """
    name = np.asarray(context_names(tables.books), dtype=object)
    title = pd.factorize(name)[0]
    known, mine = (
        (frame["user"].to_numpy().astype(np.int64) * len(title) + title[frame["book"]]).tolist()
        for frame in (rows, targets)
    )
    n_known = Counter(known)
    leaked = [
        n_known[key] <= at_most and contains_title(text, n, template)
        for key, n, text in zip(mine, name[targets["book"]], targets["text"], strict=True)
    ]
    _fail(tables, targets[leaked], "targets have their title in the text of their own context")


def _check_negatives(tables: Tables, negatives: pd.DataFrame) -> None:
    rated = _among(_keys(negatives, tables), _keys(tables.histories, tables))
    _fail(tables, negatives[rated], "negatives were rated by their user")


def _check_retrieved(tables: Tables, ranked: pd.DataFrame) -> None:
    """Check lists of a first stage: it may return any book that is not in the context.

    The user's targets are among its negatives if the user did not like them.
    """
    h = tables.histories
    context = h[~h["is_target"].to_numpy()]
    inside = _among(_keys(ranked, tables), _keys(context, tables))
    _fail(tables, ranked[inside], "retrieved books are part of the context")
    liked = h[(h["rating"] >= tables.positive_rating).to_numpy()]
    negatives = ranked[ranked["label"] == 0]
    wrong = _among(_keys(negatives, tables), _keys(liked, tables))
    _fail(tables, negatives[wrong], "retrieved negatives were liked by their user")


def _check_disliked(tables: Tables, codes: pd.DataFrame) -> None:
    liked = tables.histories[(tables.histories["rating"] >= tables.positive_rating).to_numpy()]
    disliked = codes[codes["source"] == "disliked"]
    wrong = _among(_keys(disliked, tables), _keys(liked, tables))
    _fail(tables, disliked[wrong], "negatives drawn as disliked were liked by their user")


def _check_repeats(tables: Tables, codes: pd.DataFrame) -> None:
    repeated = codes[pd.Series(_keys(codes, tables)).duplicated().to_numpy()]
    _fail(tables, repeated, "pairs occur twice")


def _check_splits(tables: Tables, codes: pd.DataFrame, ranked: pd.DataFrame) -> None:
    split = tables.users["split"].to_numpy()
    outside = codes[split[codes["user"]] != "train"]
    _fail(tables, outside, "pairs belong to users outside the train split")
    _fail(tables, ranked[split[ranked["user"]] == "train"], "list rows belong to train users")
    both = ranked[ranked["user"].isin(np.intersect1d(codes["user"], ranked["user"]))]
    _fail(tables, both, "list rows belong to users who also have training pairs")
