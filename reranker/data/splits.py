"""Assign users to splits, and divide each history into context books and held-out targets."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from reranker.config import DataConfig
from reranker.data.draws import IntArray, KeyArray, bits, uniform
from reranker.data.histories import argsort_by
from reranker.errors import DataError

SPLITS = ("train", "dev", "test")


def build_users(user_ids: pa.Array, keys: KeyArray, cfg: DataConfig) -> pd.DataFrame:
    """Return the users with their splits.

    The split depends on a hash of the user's id only, so adding users never moves a user.

    Args:
        user_ids: (n_users,) strings.
        keys: (n_users,) draws.text_keys of the ids.

    Returns:
        user_id str, split str, key uint64, in the order of `user_ids`.

    Raises:
        DataError: A split has no user.
    """
    draw = uniform(bits(cfg.seed, "fold", keys))
    dev_or_train = np.where(draw < cfg.test_fraction + cfg.dev_fraction, "dev", "train")
    split = np.where(draw < cfg.test_fraction, "test", dev_or_train)
    users = pd.DataFrame({"user_id": user_ids.to_pandas(), "split": split, "key": keys})
    empty = [name for name in SPLITS if not (split == name).any()]
    if empty:
        raise DataError(
            f"{len(users)} users leave no {' and no '.join(empty)} user. Give more users, lower "
            f"data.min_ratings, or change data.dev_fraction={cfg.dev_fraction}, "
            f"data.test_fraction={cfg.test_fraction}."
        )
    return users


def is_target(
    user: IntArray, book: IntArray, timestamp: IntArray, *, keys: KeyArray, cfg: DataConfig
) -> npt.NDArray[np.bool_]:
    """Return a mask of the ratings that are held out as targets.

    Targets are the latest part of a history. If any rating of a user has no timestamp, the
    user's targets are chosen by a hash instead. Every user has at least one book on each side.
    Ratings with the same timestamp are ordered by the hash.

    Args:
        user: (n,) positions in `keys`, ascending; each occurs at least twice.
        book: (n,) book codes.
        timestamp: (n,) Unix seconds, 0 if unknown.
        keys: (n_users,) draws.text_keys of the users' ids.
    """
    chance = bits(cfg.seed, "split", keys[user], book)
    size = np.bincount(user)
    all_dated = np.bincount(user, weights=timestamp > 0) == size
    time, second = np.unique(np.where(all_dated[user], timestamp, 0), return_inverse=True)
    order = argsort_by(user.astype(np.int64) * len(time) + second, chance)
    first = np.cumsum(size) - size
    position = np.empty(len(user), dtype=np.int64)
    position[order] = np.arange(len(user)) - first[user[order]]
    n_targets = np.clip(np.rint(size * cfg.target_fraction).astype(np.int64), 1, size - 1)
    target: npt.NDArray[np.bool_] = position >= (size - n_targets)[user]
    return target
