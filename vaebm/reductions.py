"""Sums, means and rows over all processes of a training, each of which works on its share of every batch (:mod:`vaebm.parallel`).

Every function is harmless in a single process, so callers need no second code path.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vaebm.errors import UserError
from vaebm.parallel import rank, world_size


def share(n: int) -> slice:
    """Return this process's rows of a global batch of ``n``: equal runs, in the order of the ranks."""
    each = n // world_size()
    return slice(rank() * each, (rank() + 1) * each)


def check_batch(n: int, accumulate: int, flag: str) -> None:
    """Make sure that a global batch falls into equal parts.

    Args:
        n: images per update, over all processes.
        accumulate: micro-batches per update and process.
        flag: what to change.

    Raises:
        UserError: it does not.
    """
    if accumulate < 1 or n % (world_size() * accumulate):
        raise UserError(
            f"{flag} = {n}: needed a multiple of {world_size()} processes x {accumulate} micro-batches (accumulate)"
        )


class _SumOverProcesses(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        # Every process's loss depends on every process's summand.
        total = grad.clone()
        dist.all_reduce(total)
        return total


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of ``x`` over all processes; differentiable, with respect to the sum of the processes' losses."""
    if world_size() == 1:
        return x
    return _SumOverProcesses.apply(x)


def mean_over_processes(x: Tensor) -> Tensor:
    """Return the mean of ``x`` over all processes; differentiable as :func:`sum_over_processes`."""
    return sum_over_processes(x) / world_size()


def gather(x: Tensor) -> Tensor:
    """Return the rows of all processes, (W N, ...), in the order of the ranks, in every process. Not differentiable."""
    if world_size() == 1:
        return x
    parts = [torch.empty_like(x) for _ in range(world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    return torch.cat(parts)


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes, by one reduction of all of them."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= world_size()
    for gradient, averaged in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(averaged.view_as(gradient))
