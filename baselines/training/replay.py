"""Chains that training continues from one update to the next."""

import torch
from torch import Tensor


class ReplayBuffer:
    """Where the chains of earlier updates stopped, so that later ones continue them: images in [0, 1], kept in half
    precision.

    Args:
        size: number of chains.
        shape: (C, H, W).
        fresh_share: probability that a drawn chain restarts from uniform noise.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], fresh_share: float) -> None:
        self.fresh_share = fresh_share
        self.images = torch.rand(size, *shape).half()

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return the positions (n,) of n different chains and where they stand, (n, C, H, W)."""
        chosen = torch.randperm(len(self.images))[:n]
        x = self.images[chosen].float()
        fresh = torch.rand(n) < self.fresh_share
        return chosen, torch.where(fresh[:, None, None, None], torch.rand(x.shape), x)

    def put(self, chosen: Tensor, x: Tensor) -> None:
        """Store where the chains ``chosen`` stopped."""
        self.images[chosen] = x.half().cpu()

    def state_dict(self) -> dict[str, Tensor]:
        return {"images": self.images}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.images.copy_(state["images"])
