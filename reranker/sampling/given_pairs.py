"""Training pairs that are given as files: read, refined on request, and kept in the cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from reranker.cache import COMPRESSION, Cache
from reranker.config import SamplingConfig
from reranker.errors import DataError
from reranker.sampling.pair_files import PairFile, read_pairs
from reranker.sampling.refining import refine

VERSION = 1  # raise it when the same file gives other pairs
FILE = "pairs.parquet"
TEXTS = ("user_id", "user_ctx", "book_text")
TITLE_CHARS = 80
MIN_TITLE = 4  # characters; shorter titles also occur as ordinary words


def _no_codes() -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(dtype="int32") for name in ("user", "book", "label")})


@dataclass(frozen=True)
class GivenPairs:
    """Pairs of a file that another step or another tool wrote.

    Attributes:
        path: `pairs.parquet` with user_id, user_ctx, book_id (if the file has it), book_text and
            label.
        digest: SHA-256 of the folder that holds it.
        hit: Whether it came from the cache.
        counts: Pairs in, out and dropped, by reason.
        codes: Empty: the books of the file need not be books of the tables.
    """

    path: Path
    digest: str
    hit: bool
    counts: dict[str, int]
    codes: pd.DataFrame = field(default_factory=_no_codes)

    def read(self) -> pd.DataFrame:
        """Return the pairs; texts are categoricals."""
        return pq.read_table(self.path, read_dictionary=list(TEXTS)).to_pandas()


def load_given(cfg: SamplingConfig, cache: Cache, *, refined: bool) -> GivenPairs:
    """Return the pairs of the files at `cfg.path`.

    Args:
        cfg: `path` and `parts` name the files; with `refined` also the limits of refinement.
        refined: Whether `min_positives`, `max_positives` and `negatives_per_positive` are applied.

    Raises:
        DataError: The files are missing or are not pairs, or refinement drops all of them.
        ConfigError: `parts` names a part that does not exist.

    Example:
        >>> load_given(SamplingConfig(path="pairs.parquet"), cache, refined=False).counts["pairs"]
        1200
    """
    found = read_pairs(str(cfg.path), parts=cfg.parts)
    limits = [cfg.min_positives, cfg.max_positives, cfg.negatives_per_positive, cfg.seed]
    key = {"version": VERSION, "pairs": found.digest, "limits": limits if refined else None}

    def build(folder: Path) -> dict[str, object]:
        table, counts = _encoded(found)
        if not table.num_rows:
            raise DataError(f"{cfg.path}: none of {counts['pairs_in']} rows is a pair: {counts}.")
        if refined:
            kept, dropped = refine(table.to_pandas(), cfg)
            table, counts = table.filter(pa.array(kept)), counts | dropped
        if not table.num_rows:
            raise DataError(
                f"{cfg.path}: refinement keeps none of {counts['pairs_in']} pairs, because no user "
                f"has {cfg.min_positives} positives. Lower sampling.min_positives."
            )
        return _write(table, folder, counts)

    return _given(cache, key, build)


def without_users(given: GivenPairs, users: Collection[str], cache: Cache) -> GivenPairs:
    """Return the pairs without those of held-out users.

    Args:
        users: Ids of the users of the dev and test lists.

    Raises:
        DataError: No pair is left.
    """
    key = {"version": VERSION, "pairs": given.digest, "without": sorted(users)}

    def build(folder: Path) -> dict[str, object]:
        table = pq.read_table(given.path, read_dictionary=list(TEXTS))
        held_out = table["user_id"].to_pandas().isin(set(users)).to_numpy()
        left = table.filter(pa.array(~held_out))
        if not left.num_rows:
            raise DataError(
                f"{given.path}: all {table.num_rows} pairs belong to dev or test users of data.*. "
                "Give pairs of training users, or evaluate on the file's own users with data=pairs."
            )
        return _write(left, folder, given.counts | {"pairs_of_held_out_users": int(held_out.sum())})

    return _given(cache, key, build)


def _encoded(pairs: PairFile) -> tuple[pa.Table, dict[str, int]]:
    """Return the pairs with their texts as dictionaries, and the counts of the reader."""
    counts: Counter[str] = Counter()
    places = [pairs.schema.get_field_index(name) for name in TEXTS]
    batches = []
    for table in pairs.tables(counts):
        for name, place in zip(TEXTS, places, strict=True):
            table = table.set_column(place, name, table[name].dictionary_encode())
        batches.append(table)
    if not batches:
        return pairs.schema.empty_table(), dict(counts)
    dropped = {name: n for name, n in counts.items() if n}
    return pa.concat_tables(batches).unify_dictionaries().combine_chunks(), dropped


def _write(table: pa.Table, folder: Path, counts: dict[str, int]) -> dict[str, object]:
    """Write the pairs and return their counts."""
    pq.write_table(table, folder / FILE, compression=COMPRESSION, row_group_size=2**18)
    n_positives = int(table["label"].to_numpy().sum())
    sizes = {"positives": n_positives, "negatives": table.num_rows - n_positives}
    users = table["user_id"].unique()
    return {**counts, "pairs": table.num_rows, **sizes, "users": len(users)}


def _given(cache: Cache, key: object, build: Callable[[Path], dict[str, object]]) -> GivenPairs:
    entry = cache.fetch("given", key, build)
    counts = {name: int(str(n)) for name, n in entry.info.items()}
    return GivenPairs(entry.path / FILE, entry.digest, entry.hit, counts)


def audit_given(given: GivenPairs) -> dict[str, int]:
    """Count the pairs of a file that leak their label or contradict each other.

    Returns:
        pairs_checked; repeated_pairs (the same user and texts again); pairs_with_two_labels; and
        positives_named_in_context, the positives whose title occurs in their own context.

    Example:
        >>> audit_given(given)["positives_named_in_context"]
        0
    """
    pairs = given.read()
    keys = list(TEXTS)
    by_pair = pairs.groupby(keys, observed=True)["label"]
    positives = pairs[pairs["label"] > 0]
    named = [
        len(title) >= MIN_TITLE and title in context
        for context, title in zip(
            positives["user_ctx"], positives["book_text"].map(title_of), strict=True
        )
    ]
    return {
        "pairs_checked": len(pairs),
        "repeated_pairs": int(pairs.duplicated(keys).sum()),
        "pairs_with_two_labels": int((by_pair.nunique() > 1).sum()),
        "positives_named_in_context": sum(named),
    }


def given_warnings(counts: dict[str, int], n_positives: int) -> list[str]:
    """Return a sentence for each problem that `audit_given` counted."""
    found = []
    if n := counts["positives_named_in_context"]:
        found.append(
            f"{n} of {n_positives} positives of sampling.path have their own title in user_ctx: "
            "the context gives the label away, and scores on such pairs are too good"
        )
    if n := counts["pairs_with_two_labels"]:
        found.append(f"{n} pairs of sampling.path occur with label 0 and with label 1")
    return found


def title_of(text: str) -> str:
    """Return the beginning of a book text up to the first `|`, without a leading `Title:`.

    Example:
        >>> title_of("Title: Dune | Authors: Frank Herbert")
        'Dune'
    """
    return text.partition("|")[0].strip().removeprefix("Title:").strip()[:TITLE_CHARS]
