"""Folds of users, and the two sides of each history: context books, which are known, and target books, to be found."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from reranker.config import DataConfig
from reranker.data.draws import IntArray, KeyArray, bits, uniform
from reranker.data.histories import ordered
from reranker.errors import DataError

SPLITS = ("train", "dev", "test")


def build_users(user_ids: pa.Array, keys: KeyArray, cfg: DataConfig) -> pd.DataFrame:
    """Users with the split that a hash of their id gives: adding users moves nobody.

    Args:
        user_ids: (n_users,) strings.
        keys: (n_users,) draws.text_keys of the ids.

    Returns:
        user_id str, split str, key uint64, in the order given.

    Raises:
        DataError: A split has no user.
    """
    place = uniform(bits(cfg.seed, "fold", keys))
    split = np.where(
        place < cfg.test_fraction,
        "test",
        np.where(place < cfg.test_fraction + cfg.dev_fraction, "dev", "train"),
    )
    users = pd.DataFrame({"user_id": user_ids.to_pandas(), "split": split, "key": keys})
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise DataError(
            f"{len(users)} users leave no {' and no '.join(empty)} user. Give more users, lower data.min_ratings, or "
            f"change data.dev_fraction={cfg.dev_fraction}, data.test_fraction={cfg.test_fraction}."
        )
    return users


def is_target(
    user: IntArray, book: IntArray, timestamp: IntArray, *, keys: KeyArray, cfg: DataConfig
) -> npt.NDArray[np.bool_]:
    """Which ratings are to be found: the latest part of a history, or a part by hash where a user lacks timestamps.

    Every user keeps at least one book on each side. Ratings of one second are ordered by hash.

    Args:
        user: (n,) places in `keys`, ascending; each stands at least twice.
        book: (n,) book codes.
        timestamp: (n,) Unix seconds, 0 where unknown.
        keys: (n_users,) draws.text_keys of the users' ids.
    """
    chance = bits(cfg.seed, "split", keys[user], book)
    size = np.bincount(user)
    all_dated = np.bincount(user, weights=timestamp > 0) == size
    time, second = np.unique(np.where(all_dated[user], timestamp, 0), return_inverse=True)
    order = ordered(user.astype(np.int64) * len(time) + second, chance)
    first = np.cumsum(size) - size
    position = np.empty(len(user), dtype=np.int64)
    position[order] = np.arange(len(user)) - first[user[order]]
    n_targets = np.clip(np.rint(size * cfg.target_fraction).astype(np.int64), 1, size - 1)
    target: npt.NDArray[np.bool_] = position >= (size - n_targets)[user]
    return target
