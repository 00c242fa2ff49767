"""Tests of the choice of bf16, the measured peak, and malloc's options."""

from __future__ import annotations

import ctypes

import pytest

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("rate", "faster"), [(0.2, False), (1.1, False), (1.3, True)])
def test_bf16_is_used_if_its_products_are_clearly_faster(
    rate: float, faster: bool, monkeypatch
) -> None:
    import torch

    from reranker.model import precision

    monkeypatch.setattr(
        precision, "_products_per_s", {torch.float32: 10.0, torch.bfloat16: 10 * rate}.__getitem__
    )
    assert precision.bf16_is_faster.__wrapped__("cpu") is faster


@pytest.mark.parametrize("has_bf16", [True, False])
def test_bf16_is_not_used_on_a_gpu_that_emulates_it(has_bf16: bool, monkeypatch) -> None:
    import torch

    from reranker.model import precision

    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or has_bf16,
    )
    assert precision.bf16_is_faster.__wrapped__("cuda:0") is has_bf16


def test_products_per_second_use_the_measured_time(monkeypatch) -> None:
    """The clock advances by .25 s per call: one at the start, one per product, one at the end."""
    import torch

    from reranker.model import precision

    ticks = iter(range(10**6))
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(ticks) / 4)
    monkeypatch.setattr(precision, "TRIAL_SHAPE", (2, 3, 4))
    monkeypatch.setattr(precision, "TRIAL_S", 2.0)
    # Products at 0, .25, .5 and .75 s; the end is at 1.25 s.
    assert precision._products_per_s(torch.float32) == pytest.approx(4 / 1.25)


def test_the_peak_is_the_fastest_product_after_the_first(monkeypatch) -> None:
    """The clock advances by .1 s per call: one at the start, one before each further product."""
    from reranker.model import precision

    ticks, seconds = iter(range(10**6)), iter([1.0, 8.0, 2.0, 4.0])
    monkeypatch.setattr(precision.time, "perf_counter", lambda: next(ticks) / 10)
    monkeypatch.setattr(precision, "_product_s", lambda x, weight: next(seconds))
    monkeypatch.setattr(precision, "PEAK_S", 0.25)
    assert precision.gemm_flops_per_s.__wrapped__(4, "cpu", False) == 2 * 2048 * 4 * 16 / 2.0
    assert list(seconds) == []


def test_malloc_is_set_to_use_no_mmap_no_trimming_and_one_arena(monkeypatch) -> None:
    from reranker.model import precision

    options: list[tuple[int, int]] = []

    class LibC:
        def __init__(self, name: None) -> None:
            self.mallopt = lambda *option: options.append(option) or 1

    monkeypatch.setattr(precision.sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", LibC)
    assert precision.keep_freed_memory.__wrapped__()
    assert options == [(-4, 0), (-1, 2**31 - 1), (-8, 1)]


@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_a_c_library_without_mallopt_is_not_changed(platform: str, monkeypatch) -> None:
    from reranker.model import precision

    monkeypatch.setattr(precision.sys, "platform", platform)
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    assert not precision.keep_freed_memory.__wrapped__()
