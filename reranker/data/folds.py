"""Folds of users, and the two sides of each history: context books, which are known, and target books, to be found."""

from __future__ import annotations

import numpy as np
import pandas as pd

from reranker.config import DataConfig
from reranker.data.draws import bits, text_keys, uniform
from reranker.errors import DataError

FOLDS = ("train", "dev", "test")


def build_users(user_ids: np.ndarray | pd.Index, cfg: DataConfig) -> pd.DataFrame:
    """Users in ascending id with the fold that a hash of their id gives: adding users moves nobody.

    Returns:
        user_id str, fold str.

    Raises:
        DataError: A fold has no user.
    """
    ids = sorted(map(str, user_ids))
    place = uniform(bits(cfg.seed, "fold", text_keys(ids)))
    fold = np.where(
        place < cfg.test_fraction, "test", np.where(place < cfg.test_fraction + cfg.dev_fraction, "dev", "train")
    )
    users = pd.DataFrame({"user_id": ids, "fold": fold})
    empty = [name for name in FOLDS if not (users["fold"] == name).any()]
    if empty:
        raise DataError(
            f"{len(users)} users leave no {' and no '.join(empty)} user. Give more users, lower data.min_ratings, or "
            f"change data.dev_fraction={cfg.dev_fraction}, data.test_fraction={cfg.test_fraction}."
        )
    return users


def split(histories: pd.DataFrame, users: pd.DataFrame, cfg: DataConfig) -> pd.DataFrame:
    """Histories with `is_target`: the latest part of a history, or a part by hash where a user lacks timestamps.

    Every user keeps at least one book on each side. Ratings of one second are ordered by hash.

    Args:
        histories: user, book, rating, timestamp, sorted by (user, book); at least two rows per user.
    """
    user = histories["user"].to_numpy()
    key = text_keys(users["user_id"])
    chance = bits(cfg.seed, "split", key[user], histories["book"].to_numpy())
    time = histories["timestamp"].to_numpy()
    dated = (time > 0).astype(int)
    all_dated = np.bincount(user, weights=dated) == np.bincount(user)
    order = np.lexsort((chance, np.where(all_dated[user], time, 0), user))
    size = np.bincount(user)
    first = np.cumsum(size) - size
    position = np.empty(len(user), dtype=np.int64)
    position[order] = np.arange(len(user)) - first[user[order]]
    n_targets = np.clip(np.rint(size * cfg.target_fraction).astype(np.int64), 1, size - 1)
    return histories.assign(is_target=position >= (size - n_targets)[user])
