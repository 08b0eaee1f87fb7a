"""Replay buffer of chain starts: the eps_z at which earlier chains ended."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from vaebm import parallel, reductions


class ReplayBuffer:
    """First-in-first-out store of eps_z; ``size`` 0 is a buffer that does nothing.

    Only eps_z persists: eps_x is drawn afresh for every chain, as in the released code (facts in docs/algorithm.md).

    Rows are updates, lanes are the chains of the global batch. A chain restarts from one of its own lane's entries (uniform over the rows
    that are filled), so every process stores the lanes of its share alone and the processes never exchange states. (The released code draws
    over all entries.)

    Args:
        size: entries over all lanes, rounded up to whole rows.
        lanes: chains per update, over all processes.
        shapes: of eps_z, per group.
    """

    def __init__(self, size: int, lanes: int, shapes: Sequence[tuple[int, ...]]) -> None:
        self.rows, self.lanes, self.filled, self.next = -(-size // lanes), lanes, 0, 0
        own = lanes // parallel.world_size()
        self.stored = [torch.zeros(self.rows, own, *shape) for shape in shapes]

    def mix(self, fresh: Sequence[Tensor], share: float) -> list[Tensor]:
        """Replace each of this process's starts by a stored one with probability ``share``.

        torch's global generator is asked for the whole batch in every process, so that the choice does not depend on their number.
        """
        if not self.rows:
            return list(fresh)
        own = reductions.share(self.lanes)
        chosen = (torch.rand(self.lanes) < share)[own]
        row = torch.randint(max(self.filled, 1), (self.lanes,))[own]
        if self.filled == 0 or not chosen.any():
            return list(fresh)
        lane = torch.arange(len(row))
        return [
            torch.where(
                chosen.to(part.device).view(-1, *[1] * (part.dim() - 1)), store[row, lane].to(part.device), part
            )
            for part, store in zip(fresh, self.stored, strict=True)
        ]

    def push(self, state: Sequence[Tensor]) -> None:
        """Store the ends of this process's chains, over the oldest row."""
        if not self.rows:
            return
        for store, part in zip(self.stored, state, strict=True):
            store[self.next] = part.detach().cpu()
        self.next = (self.next + 1) % self.rows
        self.filled = min(self.rows, self.filled + 1)

    def state_dict(self) -> dict[str, Any]:
        """All lanes, whichever processes hold them: every process must call, the first one gets them (the others only their own)."""
        return {"filled": self.filled, "next": self.next, "stored": [_all_lanes(store) for store in self.stored]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take this process's lanes; the number of processes may have changed."""
        self.filled, self.next = state["filled"], state["next"]
        for store, saved in zip(self.stored, state["stored"], strict=True):
            store.copy_(saved[:, reductions.share(self.lanes)])


def _all_lanes(store: Tensor) -> Tensor:
    """Join (rows, lanes of one process, ...) over the processes, in the first one; row by row, so that a GPU need not hold all of it."""
    if parallel.world_size() == 1:
        return store
    device = torch.device("cuda") if dist.get_backend() == "nccl" else store.device
    first = parallel.rank() == 0
    joined = []
    for row in store:
        part = row.to(device)
        parts = [torch.empty_like(part) for _ in range(parallel.world_size())] if first else None
        dist.gather(part, parts)
        if parts is not None:
            joined.append(torch.cat(parts).cpu())
    return torch.stack(joined) if joined else store
