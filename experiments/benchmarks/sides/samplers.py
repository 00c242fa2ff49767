"""Draw neg_ratio unseen books for each positive with our sampler, LensKit's and RecBole's.

Inputs and results are codes in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from sides.check import Truth
from sides.task import Task

Draws = tuple[np.ndarray, np.ndarray]  # (n,) user and book codes
Work = Callable[[], Draws]


def _codes(task: Task) -> tuple[Truth, np.ndarray, np.ndarray, np.ndarray]:
    """Return the truth, the user of each positive, and the user and book of each rating."""
    truth = Truth(task)
    user, book = np.divmod(truth.seen, truth.n_books)
    return truth, truth.positives // truth.n_books, user, book


def prepare_draw(task: Task) -> Work:
    """Return our draw for all users at once."""
    from reranker.config import SamplingConfig
    from reranker.data.draws import text_keys
    from reranker.sampling.negatives import Choice, draw
    from reranker.sampling.weighted import UserBooks
    from sides.ours import start_kernels

    truth, positive_user, user, book = _codes(task)
    users, n_positives = np.unique(positive_user, return_counts=True)
    mine = np.isin(user, users)
    rated = UserBooks(np.searchsorted(users, user[mine]), book[mine])
    choice = Choice(text_keys(truth.user_id.to_pylist())[users], rated, truth.n_books)
    cfg = SamplingConfig(neg_ratio=task.neg_ratio, seed=task.seed)
    k = n_positives * task.neg_ratio
    start_kernels()

    def work() -> Draws:
        return np.repeat(users, k), draw(choice, k, cfg)[0]

    return work


def prepare_lenskit(task: Task) -> Work:
    """Return LensKit's sampler as its trainers call it: verified, with 10 attempts."""
    import pandas as pd
    from lenskit.data import DatasetBuilder

    truth, positive_user, user, book = _codes(task)
    builder = DatasetBuilder()
    # Ids are codes, so row and column numbers are codes too.
    builder.add_entities("user", np.arange(len(truth.user_id)))
    builder.add_entities("item", np.arange(truth.n_books))
    builder.add_interactions(
        "rating", pd.DataFrame({"user_id": user, "item_id": book}), entities=["user", "item"]
    )
    matrix = builder.build().interactions().matrix()
    rows = positive_user.astype(np.int32)
    rng = np.random.default_rng(task.seed)

    def work() -> Draws:
        drawn = matrix.sample_negatives(rows, n=task.neg_ratio, rng=rng)
        return np.repeat(positive_user, task.neg_ratio), drawn.ravel()

    return work


def prepare_recbole(task: Task) -> Work:
    """Return RecBole's `Sampler` on the five fields of a dataset that it reads.

    Its item 0 is padding, so item ids are codes plus one. The time to build a `Dataset` from atomic
    files is not part of sampling and is not measured.
    """
    import torch
    from recbole.sampler import Sampler

    truth, positive_user, user, book = _codes(task)
    dataset = SimpleNamespace(
        uid_field="user_id",
        iid_field="item_id",
        user_num=len(truth.user_id),
        item_num=truth.n_books + 1,
        inter_feat={"user_id": torch.as_tensor(user), "item_id": torch.as_tensor(book + 1)},
    )
    sampler = Sampler(["train"], [dataset]).set_phase("train")
    np.random.seed(task.seed)  # its only source of randomness

    def work() -> Draws:
        drawn = sampler.sample_by_user_ids(positive_user, None, task.neg_ratio)
        return np.tile(positive_user, task.neg_ratio), drawn.numpy() - 1

    return work
