"""Replay buffer of chain starts: the eps_z at which earlier chains ended."""

from collections.abc import Sequence

import torch
from torch import Tensor


class ReplayBuffer:
    """First-in-first-out store of eps_z; ``size`` 0 is a buffer that does nothing.

    Only eps_z persists: eps_x is drawn afresh for every chain, as in the released code (facts in docs/algorithm.md).
    """

    def __init__(self, size: int, shapes: Sequence[tuple[int, ...]]) -> None:
        self.size, self.filled, self.next = size, 0, 0
        self.stored = [torch.zeros(size, *shape) for shape in shapes]

    def mix(self, fresh: Sequence[Tensor], share: float) -> list[Tensor]:
        """Replace each chain's start by a stored one with probability ``share`` (by torch's global generator)."""
        n = len(fresh[0])
        chosen = torch.rand(n) < share
        if self.filled == 0 or not chosen.any():
            return list(fresh)
        index = torch.randint(self.filled, (n,))
        return [
            torch.where(chosen.to(part.device).view(-1, *[1] * (part.dim() - 1)), store[index].to(part.device), part)
            for part, store in zip(fresh, self.stored, strict=True)
        ]

    def push(self, state: Sequence[Tensor]) -> None:
        """Store the ends of chains, over the oldest."""
        if not self.size:
            return
        n = len(state[0])
        slots = (torch.arange(n) + self.next) % self.size
        for store, part in zip(self.stored, state, strict=True):
            store[slots] = part.detach().cpu()
        self.next = (self.next + n) % self.size
        self.filled = min(self.size, self.filled + n)

    def state_dict(self) -> dict[str, object]:
        return {"filled": self.filled, "next": self.next, "stored": self.stored}

    def load_state_dict(self, state: dict) -> None:
        self.filled, self.next = state["filled"], state["next"]
        for store, saved in zip(self.stored, state["stored"], strict=True):
            store.copy_(saved)
