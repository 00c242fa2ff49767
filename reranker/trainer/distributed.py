"""Process groups of torchrun: broadcasts, sums over processes, and the task of the workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reranker.config import ModelConfig, TrainerConfig

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

# Workers wait while rank 0 scores lists, which can take hours. When a process fails, torchrun
# ends the others at once.
TIMEOUT = timedelta(days=1)


@dataclass(frozen=True)
class Task:
    """The settings with which a worker loads the model and calls `fit`."""

    model: ModelConfig
    trainer: TrainerConfig
    pairs: Path


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one model, and the rank of this one; only rank 0 evaluates."""

    rank: int = 0
    world_size: int = 1

    def broadcast_parameters(self, parameters: Sequence[Parameter]) -> None:
        """Copy the parameters of rank 0 to every process."""
        if self.world_size > 1:
            import torch.distributed as dist

            for parameter in parameters:
                dist.broadcast(parameter.data, src=0)

    def all_reduce(self, parameters: Sequence[Parameter], numbers: Tensor) -> None:
        """Replace gradients and numbers by their sums over the processes.

        A gradient that is None in every process stays None.
        """
        if self.world_size == 1:
            return
        import torch
        import torch.distributed as dist

        has_gradient = torch.tensor(
            [p.grad is not None for p in parameters], dtype=numbers.dtype, device=numbers.device
        )
        joined = torch.cat([numbers, has_gradient])
        dist.all_reduce(joined)
        numbers.copy_(joined[: len(numbers)])
        counts = joined[len(numbers) :].tolist()
        trained = [p for p, n in zip(parameters, counts, strict=True) if n]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        sums = flat.split([p.numel() for p in trained])
        for parameter, total in zip(trained, sums, strict=True):
            parameter.grad = total.view_as(parameter)

    def broadcast_object(self, value: Any) -> Any:
        """Return rank 0's value in every process."""
        if self.world_size == 1:
            return value
        import torch.distributed as dist

        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


def broadcast_task(processes: ProcessGroup, task: Task | None = None) -> Task:
    """Return rank 0's task in every process; workers call it without a task."""
    received: Task = processes.broadcast_object(task)
    return received


def world_size() -> int:
    """Return the number of processes that torchrun started (WORLD_SIZE); 1 without torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_worker() -> bool:
    """Return whether torchrun started this process with a rank (RANK) other than 0."""
    return world_size() > 1 and int(os.environ.get("RANK", "0")) > 0


@contextmanager
def process_group() -> Iterator[ProcessGroup]:
    """Yield the process group that torchrun started, or a group of this process only.

    CUDA tensors use NCCL, everything else gloo. If the caller has initialised a group, that group
    is used and stays open.
    """
    import torch.cuda
    import torch.distributed as dist

    opens = world_size() > 1 and not dist.is_initialized()
    if opens:
        has_nccl = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=TIMEOUT)
    try:
        is_open = dist.is_available() and dist.is_initialized()
        yield ProcessGroup(dist.get_rank(), dist.get_world_size()) if is_open else ProcessGroup()
    finally:
        if opens:
            dist.destroy_process_group()
