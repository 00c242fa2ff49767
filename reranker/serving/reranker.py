"""The public `Reranker`: ranks candidate books for one user.

The source that MLflow stores with every model imports `Reranker` from here, so it keeps this path.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pandas as pd

from reranker.data.sources.rating_rules import RATING_RANGE
from reranker.errors import ModelError, RequestError
from reranker.serving.bundle import read_bundle
from reranker.serving.registry import download

if TYPE_CHECKING:
    from reranker.data.contexts import ContextBuilder
    from reranker.data.numeric_features import NumericFeatures
    from reranker.serving.bundle import Score

# Bounds the work of one request; a hundred times the longest list that is evaluated.
MAX_CANDIDATES = 10_000
# Per text. max_length truncates far earlier; this only bounds the tokeniser's work.
MAX_CHARACTERS = 100_000
LIKED = 5.0  # the rating of a history book if no ratings are given


@dataclass(frozen=True)
class Ranked:
    """A ranked candidate. `rank` is 1-based; `score` is the model's raw fp32 output."""

    rank: int
    book_id: int | str | None
    score: float
    text: str


class Reranker:
    """Ranks candidate books for one user.

    Create it by `Reranker.load(uri)` or `Reranker.from_folder(bundle)`.

    Example:
        >>> reranker = Reranker.load("models:/book-reranker@champion")
        >>> ranked = reranker.rerank(None, [20, 30], history=[11, 40], ratings=[5, 4])
        >>> [(r.rank, r.book_id) for r in ranked]
        [(1, 30), (2, 20)]
    """

    def __init__(
        self,
        score: Score,
        contexts: ContextBuilder,
        books: pd.DataFrame,
        *,
        editions: pd.DataFrame,
        numeric_features: NumericFeatures | None = None,
    ) -> None:
        self._score = score
        self._contexts = contexts
        self._texts, self._numeric_features = books["book_text"], numeric_features
        by_id = editions.sort_values("book_id")
        self._ids, self._codes = by_id["book_id"].to_numpy(), by_id["book"].to_numpy()

    @classmethod
    def load(
        cls,
        uri: str,
        *,
        tracking_uri: str | None = None,
        device: str = "cpu",
        variant: str | None = None,
    ) -> Reranker:
        """Load the reranker of a model URI from an MLflow store.

        Only the bundle inside the model is read: no code and no pickle of the model is run.

        Args:
            uri: Any MLflow model URI, such as `models:/book-reranker@champion` or
                `models:/book-reranker/3`.
            tracking_uri: The MLflow store; None uses the configured one, or else the project's own.
            device: Where the model scores, a device of torch.
            variant: int8 or bf16, an export of `reranker export`, on the CPU; None scores with the
                weights.

        Raises:
            ModelError: There is no such store, model, version or alias, the model was not written
                by `register`, or it lacks the variant.

        Example:
            >>> reranker = Reranker.load("models:/book-reranker@champion", variant="int8")
        """
        return cls.from_folder(download(uri, tracking_uri), device=device, variant=variant)

    @classmethod
    def from_folder(
        cls, path: str | Path, *, device: str = "cpu", variant: str | None = None
    ) -> Reranker:
        """Load the reranker of a bundle, a folder that `write_bundle` wrote.

        Raises:
            ModelError: The folder is not a bundle, a file is missing, unexpected or changed, or
                the variant is missing or was exported from other weights.

        Example:
            >>> reranker = Reranker.from_folder("outputs/2026-01-31/12-00-00/bundle")
        """
        bundle = read_bundle(Path(path), device=device, variant=variant)
        return cls(
            bundle.score,
            bundle.contexts,
            bundle.books,
            editions=bundle.editions,
            numeric_features=bundle.numeric_features,
        )

    def rerank(
        self,
        user_ctx: str | None,
        candidates: Sequence[str | int | Mapping[str, Any]],
        *,
        history: Sequence[int] | None = None,
        ratings: Sequence[float] | None = None,
        timestamps: Sequence[int] | None = None,
        top_k: int | None = None,
    ) -> list[Ranked]:
        """Return the candidates, best first.

        Equal scores are ordered by book id (integers, then strings, then none), then as given. Give
        exactly one of `user_ctx` and `history`. Candidates that are in the history are ranked like
        any other; the caller decides whether to leave them out.

        Args:
            user_ctx: A user context, in the form of the training contexts.
            candidates: Texts, book ids of the catalogue, or dicts of `book_id` and `text`. A text
                is used instead of the catalogue's, and then the book id may be any integer or
                string. Texts are scored as they are given: a model that was trained with
                data.text_features gets these features with texts of the catalogue only.
            history: Book ids of the catalogue. Two editions of a work count once, as in training:
                the later rating, then the higher one.
            ratings: One per history book; by default all were liked.
            timestamps: One per history book, Unix seconds. Among equally rated books the latest
                comes first in the context.
            top_k: Return only the best top_k candidates; None returns all.

        Raises:
            RequestError: A field cannot be used; the first one is named.
            ModelError: The model returns NaN or infinity.

        Example:
            >>> reranker.rerank("Likes: Dune by Frank Herbert.", ["Title: Emma", "Title: It"])[0]
            Ranked(rank=1, book_id=None, score=-0.25, text='Title: It')
        """
        if top_k is not None and not (_is_int(top_k) and top_k >= 1):
            raise RequestError(f"top_k={top_k!r} is not an integer of at least 1.")
        query, known = self._query(user_ctx, history, ratings, timestamps)
        ids, texts = self._resolve(candidates, known)
        unique = list(dict.fromkeys(texts))  # so that equal texts get equal scores in any batch
        scores = self._score([query] * len(unique), unique)
        if not np.isfinite(scores).all():
            n_bad = int((~np.isfinite(scores)).sum())
            raise ModelError(
                f"{n_bad} of {len(scores)} scores are not finite; the weights are unusable."
            )
        score = dict(zip(unique, (float(s) for s in scores), strict=True))
        order = sorted(range(len(ids)), key=lambda i: (-score[texts[i]], *_id_order(ids[i]), i))
        return [
            Ranked(rank, ids[i], score[texts[i]], texts[i])
            for rank, i in enumerate(order[:top_k], start=1)
        ]

    def _query(
        self,
        user_ctx: str | None,
        history: Sequence[int] | None,
        ratings: Sequence[float] | None,
        timestamps: Sequence[int] | None,
    ) -> tuple[str, np.ndarray | None]:
        """Return the context, and the codes of the history's books if there is a history."""
        if (user_ctx is None) == (history is None):
            given = "neither" if history is None else "both"
            raise RequestError(f"user_ctx, history: give exactly one, got {given}.")
        if history is None:
            for field, values in {"ratings": ratings, "timestamps": timestamps}.items():
                if values is not None:
                    raise RequestError(f"{field}: these belong to history, which is missing.")
            return _text(user_ctx, "user_ctx"), None
        codes = self._history_codes(history)
        rating, time = _ratings(ratings, len(codes)), _timestamps(timestamps, len(codes))
        best = np.lexsort((-rating, -time, codes))
        rows = best[np.unique(codes[best], return_index=True)[1]]
        user = np.zeros(len(rows), dtype=np.int32)
        return self._contexts.render(user, codes[rows], rating[rows], time[rows])[0], codes[rows]

    def _history_codes(self, history: Sequence[int]) -> np.ndarray:
        seen: dict[int, int] = {}
        for i, value in enumerate(_items(history, "history", "book ids")):
            if not _is_int(value):
                raise RequestError(
                    f"history[{i}]={value!r} is not an integer; give book ids of the catalogue."
                )
            if (first := seen.setdefault(int(value), i)) != i:
                raise RequestError(
                    f"history[{i}]={value} repeats history[{first}]; give each book once."
                )
        return np.array(
            [self._code(book, f"history[{i}]") for i, book in enumerate(seen)], dtype=np.int32
        )

    def _code(self, book_id: int, field: str) -> int:
        at = bisect_left(self._ids, book_id)
        if at == len(self._ids) or self._ids[at] != book_id:
            raise RequestError(
                f"{field}={book_id} is not in the model's catalogue of {len(self._ids)} book ids."
            )
        return int(self._codes[at])

    def _resolve(
        self, candidates: Sequence[str | int | Mapping[str, Any]], known: np.ndarray | None
    ) -> tuple[list[int | str | None], list[str]]:
        items = _items(candidates, "candidates", "texts, book ids or dicts")
        if len(items) > MAX_CANDIDATES:
            raise RequestError(
                f"candidates: {len(items)} are more than {MAX_CANDIDATES}; send several requests."
            )
        rows = [self._candidate(item, f"candidates[{i}]") for i, item in enumerate(items)]
        seen: dict[int | str, int] = {}
        for i, (book_id, _) in enumerate(rows):
            if book_id is not None and (first := seen.setdefault(book_id, i)) != i:
                raise RequestError(
                    f"candidates[{i}].book_id={book_id!r} repeats candidates[{first}]; give each "
                    "id once."
                )
        codes = np.array([text for _, text in rows if isinstance(text, int)], dtype=np.int64)
        catalogue = iter(self._catalogue_texts(codes, known))
        texts = [text if isinstance(text, str) else next(catalogue) for _, text in rows]
        return [book_id for book_id, _ in rows], texts

    def _catalogue_texts(self, codes: np.ndarray, known: np.ndarray | None) -> list[str]:
        features = self._numeric_features
        if features is None or not len(codes):
            return [str(text) for text in self._texts.iloc[codes]]
        if known is None and features.needs_context:
            raise RequestError(
                "history is missing: this model reads numeric features that compare each candidate "
                f"with the history (data.text_features: {', '.join(features.names)}). Give the "
                "user's history instead of user_ctx, or candidates as texts that begin with these "
                "features, as in training."
            )
        context = pd.DataFrame({"user": 0, "book": [] if known is None else known}, dtype=np.int64)
        user = np.zeros_like(codes)
        texts: list[str] = features.prepend(self._texts, user, codes, context).to_pylist()
        return texts

    def _candidate(self, item: object, field: str) -> tuple[int | str | None, str | int]:
        """Return the candidate's id and its text, or its catalogue code if it has no text."""
        if isinstance(item, str):
            return None, _text(item, field)
        if _is_int(item):
            item = {"book_id": item}
        if not isinstance(item, Mapping):
            raise RequestError(
                f"{field} is of type {type(item).__name__}; give a text, a book id, or a dict of "
                "both."
            )
        if unknown := sorted(str(key) for key in item if key not in ("book_id", "text")):
            raise RequestError(
                f"{field}.{unknown[0]} is unknown; a candidate has book_id and text."
            )
        book_id, text = item.get("book_id"), item.get("text")
        if _is_int(book_id):
            book_id = int(book_id)
        elif book_id is not None:
            book_id = _text(book_id, f"{field}.book_id")
        if text is not None:
            return book_id, _text(text, f"{field}.text")
        if not isinstance(book_id, int):
            raise RequestError(
                f"{field}.text is missing; book_id={book_id!r} is not an integer of the catalogue."
            )
        return book_id, self._code(book_id, f"{field}.book_id")


def _items(value: object, field: str, what: str) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not hasattr(value, "__iter__"):
        raise RequestError(f"{field} is of type {type(value).__name__}; give a list of {what}.")
    items = list(value)
    if not items:
        raise RequestError(f"{field} is empty; give at least one of its {what}.")
    return items


def _text(value: object, field: str) -> str:
    """Return the text unchanged, or raise if it is unusable; the error does not quote the text."""
    if not isinstance(value, str):
        raise RequestError(f"{field} is of type {type(value).__name__}; give a text.")
    if not value.strip():
        raise RequestError(f"{field} is blank; give a text.")
    if len(value) > MAX_CHARACTERS:
        raise RequestError(
            f"{field} has {len(value)} characters; at most {MAX_CHARACTERS} are read."
        )
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise RequestError(
            f"{field} holds half of a surrogate pair, which UTF-8 cannot encode; repair its "
            "encoding."
        )
    return value


def _ratings(ratings: Sequence[float] | None, n_books: int) -> np.ndarray:
    if ratings is None:
        return np.full(n_books, LIKED, dtype=np.float32)
    values = _items(ratings, "ratings", "numbers")
    if len(values) != n_books:
        raise RequestError(
            f"ratings has {len(values)} values for {n_books} history books; give one for each."
        )
    low, high = RATING_RANGE
    for i, value in enumerate(values):
        if not _is_number(value) or not low <= value <= high:
            raise RequestError(
                f"ratings[{i}]={value!r} is not a rating; give a number from {low} to {high}."
            )
    return np.array(values, dtype=np.float32)


def _timestamps(timestamps: Sequence[int] | None, n_books: int) -> np.ndarray:
    if timestamps is None:
        return np.zeros(n_books, dtype=np.int64)
    values = _items(timestamps, "timestamps", "integers")
    if len(values) != n_books:
        raise RequestError(
            f"timestamps has {len(values)} values for {n_books} history books; give one for each."
        )
    for i, value in enumerate(values):
        if not _is_int(value) or not 0 <= value < 2**63:
            raise RequestError(f"timestamps[{i}]={value!r} is not a time; give Unix seconds.")
    return np.array(values, dtype=np.int64)


def _is_int(value: object) -> TypeGuard[int]:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def _id_order(book_id: int | str | None) -> tuple[int, int, str]:
    if isinstance(book_id, int):
        return 0, book_id, ""
    return (2, 0, "") if book_id is None else (1, 0, book_id)
