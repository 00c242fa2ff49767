"""EASE equals the ridge regressions that it solves in closed form; item-kNN equals its formula."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reranker.data.retrieval.ease import EASE_BOOKS, EASE_L2, Ease
from reranker.data.retrieval.first_stages import fit_first_stage

N_USERS, N_BOOKS = 30, 9
RATED = np.random.default_rng(0).random((N_USERS, N_BOOKS)) < np.linspace(0.9, 0.2, N_BOOKS)
KNOWN = pd.DataFrame(np.argwhere(RATED), columns=["user", "book"])


def ridge(rated: np.ndarray) -> np.ndarray:
    """Return (n_books, n_books) ridge weights: column j predicts book j from all other books.

    Each column is a least-squares fit on the ratings with the penalty stacked below them.
    """
    n = rated.shape[1]
    out = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        a = np.vstack([rated[:, others], np.sqrt(EASE_L2) * np.eye(n - 1)])
        target = np.concatenate([rated[:, j], np.zeros(n - 1)])
        out[others, j] = np.linalg.lstsq(a, target, rcond=None)[0]
    return out


def test_ease_equals_the_ridge_regression_of_each_book_on_the_others() -> None:
    users = np.array([4, 2, 17])
    ease = Ease.fit(KNOWN, n_users=N_USERS, n_books=N_BOOKS, n_kept=N_BOOKS)
    expected = RATED[users].astype(float) @ ridge(RATED.astype(float))
    assert ease.scores(users, KNOWN).toarray() == pytest.approx(expected, abs=1e-12)


def test_ease_keeps_the_most_rated_books_and_gives_0_to_the_others() -> None:
    order = np.argsort(-RATED.sum(axis=0), kind="stable")
    kept, dropped = np.sort(order[:5]), np.sort(order[5:])
    ease = Ease.fit(KNOWN, n_users=N_USERS, n_books=N_BOOKS, n_kept=5)
    scores = ease.scores(np.arange(N_USERS), KNOWN).toarray()
    assert (scores[:, dropped] == 0).all()
    expected = RATED[:, kept].astype(float) @ ridge(RATED[:, kept].astype(float))
    assert scores[:, kept] == pytest.approx(expected, abs=1e-12)


def test_scores_without_own_ratings_equal_those_of_a_fit_on_the_other_users() -> None:
    shape = {"n_users": N_USERS, "n_books": N_BOOKS, "n_kept": N_BOOKS}
    context = KNOWN[KNOWN.index % 2 == 0]
    users = np.array([4, 2, 17])
    scores = Ease.fit(KNOWN, **shape).scores(users, context, own=KNOWN).toarray()
    for row, user in enumerate(users):
        others = Ease.fit(KNOWN[KNOWN["user"] != user], **shape)
        expected = others.scores(np.array([user]), context).toarray()
        assert scores[[row]] == pytest.approx(expected, abs=1e-12)


def test_ease_keeps_ease_books_by_default() -> None:
    shape = {"n_users": N_USERS, "n_books": N_BOOKS}
    assert len(Ease.fit(KNOWN, **shape).kept) == N_BOOKS < EASE_BOOKS
    stage = fit_first_stage("ease", KNOWN, **shape)
    assert isinstance(stage, Ease) and len(stage.kept) == N_BOOKS


def test_fit_first_stage_returns_the_model_of_that_name() -> None:
    shape = {"n_users": N_USERS, "n_books": N_BOOKS, "ease_books": 4}
    users = np.arange(N_USERS)
    ease = fit_first_stage("ease", KNOWN, **shape).scores(users, KNOWN).toarray()
    assert (ease != 0).any(axis=0).sum() == 4
    knn = fit_first_stage("item_knn", KNOWN, **shape).scores(users, KNOWN).toarray()
    unit = RATED / np.linalg.norm(RATED, axis=0)
    assert knn == pytest.approx(RATED @ (unit.T @ unit), abs=1e-12)
