"""EASE against the ridge regression that it is the closed form of."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from reranker.data.retrieval.ease import EASE_L2, Ease
from reranker.data.retrieval.first_stages import fit_first_stage

N_USERS, N_BOOKS = 30, 9
RATED = np.random.default_rng(0).random((N_USERS, N_BOOKS)) < np.linspace(0.9, 0.2, N_BOOKS)
KNOWN = pd.DataFrame(np.argwhere(RATED), columns=["user", "book"])


def ridge(rated: np.ndarray) -> np.ndarray:
    """For each book the ridge weights of all others that rebuild its column, by least squares on stacked rows."""
    n = rated.shape[1]
    out = np.zeros((n, n))
    for j in range(n):
        others = np.delete(np.arange(n), j)
        a = np.vstack([rated[:, others], np.sqrt(EASE_L2) * np.eye(n - 1)])
        out[others, j] = np.linalg.lstsq(
            a, np.concatenate([rated[:, j], np.zeros(n - 1)]), rcond=None
        )[0]
    return out


def test_ease_is_each_books_ridge_regression_on_the_others() -> None:
    users = np.array([4, 2, 17])
    ease = Ease.fit(KNOWN, n_users=N_USERS, n_books=N_BOOKS, n_kept=N_BOOKS)
    expected = RATED[users].astype(float) @ ridge(RATED.astype(float))
    assert ease.scores(users, KNOWN).toarray() == pytest.approx(expected, abs=1e-12)


def test_ease_keeps_the_most_rated_books_and_scores_the_others_0() -> None:
    order = np.argsort(-RATED.sum(axis=0), kind="stable")
    kept, dropped = np.sort(order[:5]), np.sort(order[5:])
    scores = (
        Ease.fit(KNOWN, n_users=N_USERS, n_books=N_BOOKS, n_kept=5)
        .scores(np.arange(N_USERS), KNOWN)
        .toarray()
    )
    assert (scores[:, dropped] == 0).all()
    expected = RATED[:, kept].astype(float) @ ridge(RATED[:, kept].astype(float))
    assert scores[:, kept] == pytest.approx(expected, abs=1e-12)


def test_ease_without_a_users_own_ratings_is_ease_fitted_on_the_others() -> None:
    shape = {"n_users": N_USERS, "n_books": N_BOOKS, "n_kept": N_BOOKS}
    context = KNOWN[KNOWN.index % 2 == 0]
    users = np.array([4, 2, 17])
    scores = Ease.fit(KNOWN, **shape).scores(users, context, own=KNOWN).toarray()
    for row, user in enumerate(users):
        others = Ease.fit(KNOWN[KNOWN["user"] != user], **shape)
        assert scores[[row]] == pytest.approx(
            others.scores(np.array([user]), context).toarray(), abs=1e-12
        )


def test_a_first_stage_is_fitted_by_its_name() -> None:
    shape = {"n_users": N_USERS, "n_books": N_BOOKS, "ease_books": 4}
    users = np.arange(N_USERS)
    ease = fit_first_stage("ease", KNOWN, **shape).scores(users, KNOWN).toarray()
    assert (ease != 0).any(axis=0).sum() == 4
    knn = fit_first_stage("item_knn", KNOWN, **shape).scores(users, KNOWN).toarray()
    unit = RATED / np.linalg.norm(RATED, axis=0)
    assert knn == pytest.approx(RATED @ (unit.T @ unit), abs=1e-12)
