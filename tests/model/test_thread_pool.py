"""Tests of parallel_map: order, threads per item, and the number of threads afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from reranker.config import ModelConfig
from reranker.model import load

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def threads_here_and_in_a_new_thread() -> tuple[int, int]:
    import torch

    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


def test_two_items_run_at_once_with_one_thread_each_and_keep_their_order() -> None:
    import torch

    from reranker.model.thread_pool import parallel_map

    met = Barrier(2, timeout=10)

    def work(item: int) -> tuple[int, int]:
        met.wait()  # until another item runs at the same time
        return item, torch.get_num_threads()

    assert list(parallel_map(work, range(6))) == [(i, 1) for i in range(6)]
    assert threads_here_and_in_a_new_thread() == (2, 2)


def test_a_thread_started_meanwhile_has_all_threads() -> None:
    import torch

    from reranker.model.thread_pool import parallel_map

    def work(item: int) -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    assert list(parallel_map(work, range(4))) == [2] * 4


def test_a_thread_that_cannot_be_started_raises_and_does_not_wait_forever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from reranker.model.thread_pool import parallel_map

    submit, calls = ThreadPoolExecutor.submit, []

    def submit_once(pool: ThreadPoolExecutor, *args: Any) -> Any:
        calls.append(args)
        if len(calls) > 1:
            raise RuntimeError("can't start new thread")
        return submit(pool, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", submit_once)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(parallel_map(str, range(4)))


def test_a_single_item_has_all_threads() -> None:
    import torch

    from reranker.model.thread_pool import parallel_map

    assert list(parallel_map(lambda item: (item, torch.get_num_threads()), ["a"])) == [("a", 2)]


def test_after_an_error_the_number_of_threads_is_restored() -> None:
    from reranker.model.thread_pool import parallel_map

    def work(item: int) -> int:
        return 1 // (item - 3)

    with pytest.raises(ZeroDivisionError):
        list(parallel_map(work, range(6)))
    assert threads_here_and_in_a_new_thread() == (2, 2)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_scores_do_not_depend_on_the_number_of_threads(attention: str) -> None:
    import torch

    encoder = load(ModelConfig(name="tiny", source="random", max_length=64, attention=attention))
    queries = ["liked dune", "liked emma"] * 15
    candidates = ["a story " * (n % 9) for n in range(30)]
    expected = encoder.score(queries, candidates)
    torch.set_num_threads(1)
    np.testing.assert_allclose(encoder.score(queries, candidates), expected, atol=1e-5)
    assert expected.std() > 0.01


@pytest.mark.parametrize(
    ("n_pairs", "sizes"), [(1, [1]), (7, [3, 4]), (100, [8, 9]), (1001, [9, 10])]
)
def test_every_thread_has_equally_many_forwards_of_similar_size(
    n_pairs: int, sizes: list[int]
) -> None:
    """100 pairs of 226 tokens: 12 forward passes of 8 or 9 pairs, not 11 of 9 and one of 1."""
    from reranker.model.encoder import _forward_starts

    encoder = load(ModelConfig(name="tiny", source="random", max_length=64))
    lengths = np.full(n_pairs, 226)
    starts = _forward_starts(lengths, encoder._n_forwards(int(lengths.sum())))
    n_pairs_of_forwards = np.diff([0, *starts, n_pairs])
    assert sorted(set(n_pairs_of_forwards.tolist())) == sizes
    assert len(n_pairs_of_forwards) % 2 == 0 or n_pairs == 1
