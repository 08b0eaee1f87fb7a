"""Chains that training continues from one update to the next."""

from typing import Any

import torch
from torch import Tensor


class ReplayBuffer:
    """Where the chains of earlier updates stopped, so that later ones continue them: images in [0, 1], kept in half
    precision.

    Args:
        size: number of chains.
        shape: (C, H, W).
        fresh_share: probability that a drawn chain restarts.
        fifo: the buffer is a queue that starts empty: images are drawn from it with replacement, and ends of chains push
            out the oldest, so that a chain may go on as several or not at all. Without it, ``size`` chains start from
            uniform noise, different ones are drawn, and each is put back in its own place.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], fresh_share: float, *, fifo: bool = False) -> None:
        self.fresh_share, self.fifo = fresh_share, fifo
        self.images = torch.rand(size, *shape).half()
        self.seen = 0  # images put in so far: what a queue needs to know

    def draw(self, n: int, start: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return the positions (n,) of n chains and where they stand, (n, C, H, W).

        Args:
            start: where chains that restart do, (n, C, H, W); uniform noise without it.
        """
        size = len(self.images)
        chosen = torch.randint(max(1, min(self.seen, size)), (n,)) if self.fifo else torch.randperm(size)[:n]
        x = self.images[chosen].float()
        fresh = torch.rand(n) < (1 if self.fifo and not self.seen else self.fresh_share)
        start = torch.rand(x.shape) if start is None else start.cpu()
        return chosen, torch.where(fresh[:, None, None, None], start, x)

    def put(self, chosen: Tensor, x: Tensor) -> None:
        """Store where the chains ``chosen`` stopped."""
        if self.fifo:
            chosen = (self.seen + torch.arange(len(x))) % len(self.images)
        self.images[chosen] = x.half().cpu()
        self.seen += len(x)

    def state_dict(self) -> dict[str, Any]:
        return {"images": self.images, "seen": self.seen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images.copy_(state["images"])
        self.seen = state.get("seen", 0)
