"""Several processes that train one model: each computes a share of every step, and all take the same step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

PATIENCE = timedelta(
    days=1
)  # the first may score lists for hours meanwhile; torchrun ends the others when one dies


@dataclass(frozen=True)
class ProcessGroup:
    """This process's place among those that train; rank 0 alone evaluates, logs and saves."""

    rank: int = 0
    n: int = 1

    def agree(self, parameters: Sequence[Parameter]) -> None:
        """Give every process the weights of rank 0."""
        if self.n > 1:
            import torch.distributed as dist

            for parameter in parameters:
                dist.broadcast(parameter.data, src=0)

    def all_reduce(self, parameters: Sequence[Parameter], numbers: Tensor) -> None:
        """Replace gradients and numbers by their sums over the processes; a gradient that none has stays None."""
        if self.n == 1:
            return
        import torch
        import torch.distributed as dist

        has = torch.tensor(
            [p.grad is not None for p in parameters], dtype=numbers.dtype, device=numbers.device
        )
        together = torch.cat([numbers, has])
        dist.all_reduce(together)
        numbers.copy_(together[: len(numbers)])
        learnt = [
            p for p, n in zip(parameters, together[len(numbers) :].tolist(), strict=True) if n
        ]
        flat = torch.cat(
            [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in learnt]
        )
        dist.all_reduce(flat)
        for parameter, summed in zip(learnt, flat.split([p.numel() for p in learnt]), strict=True):
            parameter.grad = summed.view_as(parameter)

    def share(self, value: Any) -> Any:
        """Rank 0's value, in every process."""
        if self.n == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


def world_size() -> int:
    """How many processes torchrun started (WORLD_SIZE in the environment); 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_worker() -> bool:
    """Whether torchrun started this process (RANK in the environment), and not as the first."""
    return world_size() > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def joined() -> Iterator[ProcessGroup]:
    """This process among those that torchrun started, or alone.

    Tensors on GPUs travel by NCCL, all else by gloo. A group that the caller has opened is used, and left open.
    """
    import torch.cuda
    import torch.distributed as dist

    opens = world_size() > 1 and not dist.is_initialized()
    if opens:
        backend = (
            "cpu:gloo,cuda:nccl"
            if torch.cuda.is_available() and dist.is_nccl_available()
            else "gloo"
        )
        dist.init_process_group(backend, timeout=PATIENCE)
    try:
        together = dist.is_available() and dist.is_initialized()
        yield ProcessGroup(dist.get_rank(), dist.get_world_size()) if together else ProcessGroup()
    finally:
        if opens:
            dist.destroy_process_group()
