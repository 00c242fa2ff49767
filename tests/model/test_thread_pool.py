"""Side by side: in order, one thread each, and nothing of it stays."""

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


def threads_now_and_of_a_new_thread() -> tuple[int, int]:
    import torch

    with ThreadPoolExecutor(1) as pool:
        return torch.get_num_threads(), pool.submit(torch.get_num_threads).result()


def test_two_run_at_once_with_one_thread_each_and_come_in_order() -> None:
    import torch

    from reranker.model.thread_pool import parallel_map

    met = Barrier(2, timeout=10)

    def work(item: int) -> tuple[int, int]:
        met.wait()  # for another that runs now
        return item, torch.get_num_threads()

    assert list(parallel_map(work, range(6))) == [(i, 1) for i in range(6)]
    assert threads_now_and_of_a_new_thread() == (2, 2)


def test_a_thread_that_begins_meanwhile_has_all_threads() -> None:
    import torch

    from reranker.model.thread_pool import parallel_map

    def work(item: int) -> int:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(torch.get_num_threads).result()

    assert list(parallel_map(work, range(4))) == [2] * 4


def test_a_thread_that_is_not_to_be_had_is_an_error_and_no_endless_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from reranker.model.thread_pool import parallel_map

    plain, asked = ThreadPoolExecutor.submit, []

    def scarce(pool: ThreadPoolExecutor, *args: Any) -> Any:
        asked.append(args)
        if len(asked) > 1:
            raise RuntimeError("can't start new thread")
        return plain(pool, *args)

    monkeypatch.setattr(ThreadPoolExecutor, "submit", scarce)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        list(parallel_map(str, range(4)))


def test_one_item_has_all_threads() -> None:
    import torch

    from reranker.model.thread_pool import parallel_map

    assert list(parallel_map(lambda item: (item, torch.get_num_threads()), ["a"])) == [("a", 2)]


def test_an_error_comes_out_and_the_threads_are_back() -> None:
    from reranker.model.thread_pool import parallel_map

    def work(item: int) -> int:
        return 1 // (item - 3)

    with pytest.raises(ZeroDivisionError):
        list(parallel_map(work, range(6)))
    assert threads_now_and_of_a_new_thread() == (2, 2)


@pytest.mark.parametrize("attention", ["full", "shared_context"])
def test_scores_do_not_depend_on_the_number_of_threads(attention: str) -> None:
    import torch

    encoder = load(ModelConfig(name="tiny", source="random", max_length=64, attention=attention))
    queries, candidates = (
        ["liked dune", "liked emma"] * 15,
        ["a story " * (n % 9) for n in range(30)],
    )
    of_two = encoder.score(queries, candidates)
    torch.set_num_threads(1)
    np.testing.assert_allclose(encoder.score(queries, candidates), of_two, atol=1e-5)
    assert of_two.std() > 0.01


@pytest.mark.parametrize(
    ("n_pairs", "sizes"), [(1, [1]), (7, [3, 4]), (100, [8, 9]), (1001, [9, 10])]
)
def test_every_core_has_as_many_forwards_of_about_one_size(n_pairs: int, sizes: list[int]) -> None:
    """100 pairs of 226 tokens: 12 forwards of 8 or 9 pairs rather than 11 of 9 and a rest of 1."""
    from reranker.model.encoder import _cuts

    encoder = load(ModelConfig(name="tiny", source="random", max_length=64))
    lengths = np.full(n_pairs, 226)
    found = np.diff([0, *_cuts(lengths, encoder._n_forwards(int(lengths.sum()))), n_pairs])
    assert sorted(set(found.tolist())) == sizes
    assert len(found) % 2 == 0 or n_pairs == 1
