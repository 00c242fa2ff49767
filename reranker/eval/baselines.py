"""Baselines: scorers without fine-tuning, on the same candidate lists as the model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from reranker.cache import Cache
from reranker.config import EvalConfig
from reranker.data import Corpus
from reranker.data.draws import FloatArray, bits, uniform
from reranker.data.numeric_features import LABELS, readers_level, shared, unit_sets
from reranker.data.retrieval.first_stages import Bm25, fit_first_stage
from reranker.eval.eval_set import EvalSet, TrainingPairs
from reranker.model import embed as embed_texts

VERSION = 1  # raise it when a baseline changes
# Users whose scores of all books are in memory at once. EASE takes 60 kB per user at 5,000 books.
CHUNK = 2048
N_NEAREST = 3  # context books that `bi_encoder_top3` compares a candidate with

Embed = Callable[[Sequence[str]], FloatArray]


class Baselines:
    """Scores evaluation sets and training pairs with the baselines of a config.

    A baseline depends only on the tables, the rows and the seed, so its scores come from the
    cache where these are the same. `features_lr` depends on the training pairs too; without
    text features there is nothing that it could learn from, and it is left out. The order of a
    `retriever` list is that of the baseline named by `eval.retriever`.

    Args:
        cfg: Names of the baselines, and their settings.
        pairs: The training pairs, as an evaluation set.
        cache: Keeps the scores.
        device: Where the bi-encoder embeds texts, as torch names it.
        embed: Texts -> (n_texts, dim) unit vectors. The default is the bi-encoder's model.

    Example:
        >>> Baselines.on_pairs(corpus, pairs, cfg.eval, cache=cache).score(test)["popularity"]
    """

    def __init__(
        self,
        cfg: EvalConfig,
        pairs: EvalSet,
        cache: Cache,
        *,
        device: str = "cpu",
        embed: Embed | None = None,
    ) -> None:
        self.cfg, self.pairs, self.cache = cfg, pairs, cache
        self._embed = memoised(embed or partial(embed_texts, device=device, progress="embedding"))

    @classmethod
    def on_pairs(
        cls,
        corpus: Corpus,
        pairs: TrainingPairs | None,
        cfg: EvalConfig,
        *,
        cache: Cache,
        device: str = "cpu",
    ) -> Baselines:
        """Return the baselines of a run that trains on these pairs; None if it has no pairs."""
        return cls(cfg, EvalSet.from_pairs(corpus, pairs, cfg), cache, device=device)

    def score(self, eval_set: EvalSet) -> dict[str, FloatArray]:
        """Return name -> (n_rows,) float64 scores aligned to the rows of an evaluation set."""
        has_features = eval_set.contexts.numeric_features is not None and len(self.pairs.rows) > 0
        names = [name for name in self.cfg.baselines if has_features or name != "features_lr"]
        return {name: self._score_once(name, eval_set) for name in names}

    def score_pairs(self, name: str) -> FloatArray:
        """Return (n_pairs,) scores of the training pairs by one baseline of `config.TEACHERS`."""
        return self._score_once(name, self.pairs)

    def _score_once(self, name: str, eval_set: EvalSet) -> FloatArray:
        def build(folder: Path) -> dict[str, object]:
            np.save(folder / "scores.npy", self._compute(name, eval_set), allow_pickle=False)
            return {}

        entry = self.cache.fetch("baselines", self._key(name, eval_set), build)
        scores: FloatArray = np.load(entry.path / "scores.npy", allow_pickle=False)
        return scores

    def _compute(self, name: str, eval_set: EvalSet) -> FloatArray:
        if name == "features_lr":
            return features_lr(eval_set, self.pairs.rows)
        if name in EMBEDDED:
            return EMBEDDED[name](eval_set, self._embed)
        return BASELINES[name](eval_set)

    def _key(self, name: str, eval_set: EvalSet) -> dict[str, object]:
        key: dict[str, object] = {
            "version": VERSION,
            "name": name,
            "tables": eval_set.tables.digest,
            "lists": eval_set.lists.digest,
            "seed": self.cfg.seed,
        }
        if name == "ease":
            key["ease_books"] = self.cfg.ease_books
        if name == "features_lr":
            key |= {"pairs": _digest(self.pairs.rows), **eval_set.contexts.cache_key}
        return key


def memoised(embed: Embed) -> Embed:
    """Return `embed` with a memory: each text is embedded once (1.5 kB per MiniLM vector)."""
    known: dict[str, FloatArray] = {}

    def remembered(texts: Sequence[str]) -> FloatArray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, embed(new), strict=True))
        return np.stack([known[text] for text in texts])

    return remembered


def random(q: EvalSet) -> FloatArray:
    """Return a hash of (seed, user, book): the chance level, equal in every run."""
    user = q.tables.users["key"].to_numpy()[q.rows["user"]]
    book_id = q.tables.book_ids(q.rows["book"])
    return uniform(bits(q.cfg.seed, "random baseline", user, book_id))


def popularity(q: EvalSet) -> FloatArray:
    """Return how many users are known to have rated the candidate."""
    n_ratings = np.bincount(q.tables.known()["book"], minlength=len(q.tables.books))
    return n_ratings.astype(np.float64)[q.rows["book"]]


def item_knn(q: EvalSet) -> FloatArray:
    """Return the sum of the cosine similarities between the candidate and the context books.

    A book is the vector of the users who are known to have rated it.
    """
    return _by_ratings("item_knn", q)


def ease(q: EvalSet) -> FloatArray:
    """Return the sum of EASE's weights from the context books to the candidate.

    It is 0 for a book outside the `eval.ease_books` most rated ones.
    """
    return _by_ratings("ease", q)


def _by_ratings(name: str, q: EvalSet) -> FloatArray:
    shape = {"n_users": len(q.tables.users), "n_books": len(q.tables.books)}
    stage = fit_first_stage(name, q.tables.known(), **shape, ease_books=q.cfg.ease_books)
    users, row = np.unique(q.rows["user"], return_inverse=True)
    book, context = q.rows["book"].to_numpy(), q.context_rows
    out = np.empty(len(row))
    for first in range(0, len(users), CHUNK):
        mine = np.flatnonzero((row >= first) & (row < first + CHUNK))
        scores = stage.scores(users[first : first + CHUNK], context)
        out[mine] = np.asarray(scores[row[mine] - first, book[mine]]).ravel()
    return out


def genres(q: EvalSet) -> FloatArray:
    """Return the mean cosine between the genres of the candidate and of the context books.

    It is 0 for a book without genres.
    """
    return _overlap(q, "genres")


def authors(q: EvalSet) -> FloatArray:
    """Return the mean cosine between the authors of the candidate and of the context books.

    It is 0 for a book without authors.
    """
    return _overlap(q, "authors")


def _overlap(q: EvalSet, column: str) -> FloatArray:
    """Return the mean over context books of |shared names| / sqrt(|names| * |other names|)."""
    unit = unit_sets(q.tables.books[column])
    users, row = np.unique(q.rows["user"], return_inverse=True)
    return shared((_context_mean(q, users) @ unit).tocsr(), unit, row, q.rows["book"].to_numpy())


def _context_mean(q: EvalSet, users: np.ndarray) -> sp.csr_array:
    """Return a (n_users, n_books) matrix that averages the rows of a book matrix over contexts."""
    mine = q.context_rows
    row = np.searchsorted(users, mine["user"])
    share = 1 / np.bincount(row, minlength=len(users))[row]
    return sp.csr_array((share, (row, mine["book"])), shape=(len(users), len(q.tables.books)))


def features_lr(q: EvalSet, pairs: pd.DataFrame) -> FloatArray:
    """Return the scores of a logistic regression on the numeric features of the model's input.

    It is fitted to the training pairs. Its features are those of `data.text_features`, and the
    level of the number of contexts that contain the candidate. A model that does not beat this
    baseline has learned nothing useful beyond these features.

    Args:
        pairs: user, book, label of the training pairs.
    """
    regression = make_pipeline(StandardScaler(), LogisticRegression())
    regression.fit(_levels(q, pairs), pairs["label"])
    scores: FloatArray = regression.decision_function(_levels(q, q.rows))
    return scores


def _levels(q: EvalSet, rows: pd.DataFrame) -> FloatArray:
    """Return the (n_rows, n_levels) design matrix."""
    user, book = (rows[name].to_numpy() for name in ("user", "book"))
    levels = {LABELS["readers"]: readers_level(q.tables.n_readers())[book]}
    levels |= q.contexts.levels(user, book)
    return np.column_stack(list(levels.values())).astype(float)


def _digest(pairs: pd.DataFrame) -> str:
    return hashlib.sha256(pairs[["user", "book", "label"]].to_numpy(np.int64).tobytes()).hexdigest()


def bm25(q: EvalSet) -> FloatArray:
    """Return BM25 of the candidate's text, with the user context as the query.

    Term statistics are those of the complete catalogue.
    """
    index = Bm25(q.tables.books["book_text"].tolist())
    out = np.empty(len(q.rows))
    for context, rows in q.rows.groupby(q.context).indices.items():
        query = q.contexts.text[int(str(context))]
        out[rows] = index.scores(query)[q.rows["book"].to_numpy()[rows]]
    return out


def bi_encoder(q: EvalSet, embed: Embed) -> FloatArray:
    """Return the cosine between the candidate's embedding and the mean of the context books'."""
    books, vectors = _vectors(q, embed)
    users, row = np.unique(q.rows["user"], return_inverse=True)
    total = _context_mean(q, users)[:, books] @ vectors
    mean = total / np.linalg.norm(total, axis=1, keepdims=True)
    return np.einsum("ij,ij->i", mean[row], vectors[np.searchsorted(books, q.rows["book"])])


def bi_encoder_top3(q: EvalSet, embed: Embed) -> FloatArray:
    """Return the mean of the candidate's 3 highest cosines to context books."""
    books, vectors = _vectors(q, embed)
    context = q.context_rows.groupby("user")["book"]
    mine = {user: np.searchsorted(books, theirs) for user, theirs in context}
    place = np.searchsorted(books, q.rows["book"])
    out = np.empty(len(place))
    for user, rows in q.rows.groupby("user").indices.items():
        cosine = vectors[place[rows]] @ vectors[mine[user]].T
        out[rows] = np.sort(cosine, axis=1)[:, -N_NEAREST:].mean(axis=1)
    return out


def _vectors(q: EvalSet, embed: Embed) -> tuple[np.ndarray, FloatArray]:
    """Return the books of contexts and lists, ascending, and their unit vectors in float64."""
    books = np.union1d(q.context_rows["book"], q.rows["book"])
    return books, np.asarray(
        embed(q.tables.books["book_text"].iloc[books].tolist()), dtype=np.float64
    )


BASELINES: dict[str, Callable[[EvalSet], FloatArray]] = {
    "random": random,
    "popularity": popularity,
    "item_knn": item_knn,
    "ease": ease,
    "bm25": bm25,
    "genres": genres,
    "authors": authors,
}
EMBEDDED: dict[str, Callable[[EvalSet, Embed], FloatArray]] = {
    "bi_encoder": bi_encoder,
    "bi_encoder_top3": bi_encoder_top3,
}
