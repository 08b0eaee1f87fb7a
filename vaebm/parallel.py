"""Several processes as one: who am I among how many, and sums over all of them.

Every function is harmless in a single process, so callers need no second code path.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes that work on this run together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, from 0."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        # Every process's loss depends on every process's summand.
        total = grad.clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over all processes; differentiable, with respect to the sum of the processes' losses."""
    if world_size() == 1:
        return x
    return _SumOverProcesses.apply(x)  # type: ignore[no-any-return]
