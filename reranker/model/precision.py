"""Linear layers in bf16 with fp32 weights, a benchmark of bf16, and the allocator's settings."""

from __future__ import annotations

import ctypes
import sys
import time
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch.nn import Linear
from torch.optim.optimizer import register_optimizer_step_post_hook

# Seconds of the comparison of bf16 with fp32. First calls, which build kernels, are not counted.
TRIAL_S = 2.0
# Rows of a batch, input and output size of MiniLM's feed-forward.
TRIAL_SHAPE = (2048, 384, 1536)
# Seconds of the measurement of a matrix product. The first call is not counted.
PEAK_S = 0.2
# Rows of that matrix product, about the tokens of a forward pass.
PEAK_ROWS, PEAK_ROWS_CUDA = 2048, 65536
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


class Linears:
    """Several linear layers as one matrix product.

    In fp32 it uses the layers' own parameters, in bf16 working copies of them. A working copy is
    renewed after a step of any optimiser, and after another in-place change of its layers'
    parameters, such as `load_state_dict`. The gradients of the fp32 parameters are fp32.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[int, ...], tuple[object, torch.Tensor, torch.Tensor]] = {}

    def __call__(self, x: torch.Tensor, layers: Sequence[Linear], *, bf16: bool) -> torch.Tensor:
        """Return the concatenated outputs of the layers.

        Args:
            x: (n, n_in) inputs; they are cast to bf16 if `bf16` is set.
            layers: At least one layer; all have n_in inputs.
            bf16: Compute in bf16 instead of fp32.

        Returns:
            (n, sum of the layers' output sizes), bf16 or fp32.
        """
        if bf16:
            parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
            weight, bias = self._working(layers)
            y: torch.Tensor = _Bf16Linear.apply(x.bfloat16(), weight, bias, *parameters)
            return y
        if len(layers) == 1:
            return torch.nn.functional.linear(x, layers[0].weight, layers[0].bias)
        weights, biases = zip(*((layer.weight, layer.bias) for layer in layers), strict=True)
        return torch.nn.functional.linear(x, torch.cat(weights), torch.cat(biases))

    def _working(self, layers: Sequence[Linear]) -> tuple[torch.Tensor, torch.Tensor]:
        key = tuple(id(layer) for layer in layers)
        stamp = [
            _STEPS.n,
            *((p.data_ptr(), p._version) for layer in layers for p in (layer.weight, layer.bias)),
        ]
        if key not in self._copies or self._copies[key][0] != stamp:
            # Training could not use tensors created in inference mode.
            with torch.inference_mode(False), torch.no_grad():
                weight = torch.cat([layer.weight for layer in layers]).bfloat16()
                bias = torch.cat([layer.bias for layer in layers]).bfloat16()
            self._copies[key] = stamp, weight, bias
        return self._copies[key][1:]


class _Steps:
    """The number of optimiser steps in this process.

    A fused optimiser step changes weights without changing their version counters.
    """

    def __init__(self) -> None:
        self.n = 0
        register_optimizer_step_post_hook(self._add)

    def _add(self, *args: object) -> None:
        self.n += 1


_STEPS = _Steps()


class _Bf16Linear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, *masters: torch.Tensor
    ) -> Any:
        ctx.save_for_backward(x, weight)
        ctx.sizes = [len(m) for m in masters[::2]]
        return torch.nn.functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        x, weight = ctx.saved_tensors
        grad = grads[0]
        to_x = grad @ weight if ctx.needs_input_grad[0] else None
        to_masters: list[torch.Tensor | None] = [None] * (2 * len(ctx.sizes))
        if any(ctx.needs_input_grad[3:]):
            to_masters[::2] = (grad.t() @ x).float().split(ctx.sizes)
            to_masters[1::2] = grad.sum(0, dtype=torch.float32).split(ctx.sizes)
        return to_x, None, None, *to_masters


@cache
def bf16_is_faster(device: str) -> bool:
    """Return whether matrix products are faster in bf16 than in fp32 on this device.

    On a CPU this is measured for two seconds, once per process. A CPU without AVX512_BF16 or AMX
    computes bf16 several times slower than fp32, and so does a GPU that emulates bf16.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # With a smaller factor the casts would cost more than the products gain.
    return _products_per_s(torch.bfloat16) > 1.2 * _products_per_s(torch.float32)


def _products_per_s(dtype: torch.dtype) -> float:
    n, n_in, n_out = TRIAL_SHAPE
    x, weight = torch.ones(n, n_in, dtype=dtype), torch.ones(n_out, n_in, dtype=dtype)
    torch.nn.functional.linear(x, weight)
    start, n_done = time.perf_counter(), 0
    while n_done == 0 or time.perf_counter() - start < TRIAL_S / 2:
        torch.nn.functional.linear(x, weight)
        n_done += 1
    return n_done / (time.perf_counter() - start)


@cache
def gemm_flops_per_s(hidden: int, device: str, bf16: bool) -> float:
    """Return FLOPs per second of the product of a batch with (4 hidden, hidden) weights.

    It is the fastest product within a fifth of a second, because other processes may slow down
    some of them. It is measured once per process.
    """
    dtype = torch.bfloat16 if bf16 else torch.float32
    n = PEAK_ROWS if device == "cpu" else PEAK_ROWS_CUDA
    x, weight = (torch.ones(rows, hidden, dtype=dtype, device=device) for rows in (n, 4 * hidden))
    _product_s(x, weight)
    start, fastest = time.perf_counter(), _product_s(x, weight)
    while time.perf_counter() - start < PEAK_S:
        fastest = min(fastest, _product_s(x, weight))
    return 2 * n * 4 * hidden**2 / fastest


def _product_s(x: torch.Tensor, weight: torch.Tensor) -> float:
    start = time.perf_counter()
    torch.nn.functional.linear(x, weight)
    if x.is_cuda:
        torch.cuda.synchronize(x.device)
    return time.perf_counter() - start


@cache
def keep_freed_memory() -> bool:
    """Make glibc's malloc reuse large freed blocks; return whether it does; once per process.

    The activations of a step take about 10 MB each. By default glibc maps such blocks anew and
    returns them to the system each time, and the page faults take longer than GELU, softmax or a
    residual sum themselves (these became 2 to 4 times faster, measured). The process then holds
    the memory of its largest step until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # the C library is not glibc, for example musl
        return False
    options = {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: 2**31 - 1, M_ARENA_MAX: 1}
    return all([mallopt(option, value) for option, value in options.items()])
