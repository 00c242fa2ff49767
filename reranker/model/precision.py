"""Linear layers in bf16 over fp32 weights, when that pays, and an allocator that keeps what it was given back."""

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

TRIAL_S = 2.0  # of the self-benchmark; the first calls, which build kernels, are not counted
PEAK_S = 0.2  # of the measurement of a product's speed, the first call not counted
PEAK_ROWS, PEAK_ROWS_CUDA = 2048, 65536  # about the tokens of a forward
TRIAL_SHAPE = (2048, 384, 1536)  # rows of a batch, and the two sides of MiniLM's feed-forward
M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


class Linears:
    """Linear layers as one matrix product, in fp32 from the layers' own parameters or in bf16 from working copies.

    A working copy is made again after any optimiser's step, and when its layer's parameters have changed in place
    otherwise, as `load_state_dict` changes them. Gradients reach the fp32 parameters in fp32.
    """

    def __init__(self) -> None:
        self._copies: dict[tuple[int, ...], tuple[object, torch.Tensor, torch.Tensor]] = {}

    def __call__(self, x: torch.Tensor, layers: Sequence[Linear], *, bf16: bool) -> torch.Tensor:
        """The layers' outputs side by side.

        Args:
            x: (n, n_in); its dtype is changed where need be.
            layers: At least one, all of n_in inputs.

        Returns:
            (n, sum of the layers' outputs), bf16 or fp32.
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
            with (
                torch.inference_mode(False),
                torch.no_grad(),
            ):  # a tensor of inference mode could not train later
                weight = torch.cat([layer.weight for layer in layers]).bfloat16()
                bias = torch.cat([layer.bias for layer in layers]).bfloat16()
            self._copies[key] = stamp, weight, bias
        return self._copies[key][1:]


class _Steps:
    """How many steps optimisers have taken: a fused step changes weights without a trace in their versions."""

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
    """Whether matrix products in bf16 beat fp32 here: on a CPU by a trial of two seconds, once per process.

    Without AVX512_BF16 or AMX a CPU computes bf16 several times slower than fp32, and so does a GPU that emulates it.
    """
    if device.startswith("cuda"):
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return _products_per_s(torch.bfloat16) > 1.2 * _products_per_s(
        torch.float32
    )  # below that the casts eat the gain


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
    """FLOPs per second of the product of a batch's rows with a feed-forward's (4 hidden, hidden) weights.

    The fastest of those that fit into a fifth of a second counts, for a busy machine slows the others; measured once
    per process.
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
    """Whether malloc now keeps large blocks that are freed, as glibc does when told to; once per process.

    Activations of a step are of some 10 MB each, which glibc maps anew and returns each time: the page faults took
    more time than GELU, softmax or a residual sum themselves (a factor 2 to 4 on these, measured). The process then
    holds its largest step's memory until it ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent from musl
    if mallopt is None:
        return False
    return all(
        [mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, 2**31 - 1), mallopt(M_ARENA_MAX, 1)]
    )
