"""Exponential moving average of weights."""

from typing import Any

import torch
from torch import nn


class EMA:
    """theta_ema <- d theta_ema + (1 - d) theta after every update, d = min(decay, (1 + t) / (10 + t)), so early averages are not stale.

    Buffers (BatchNorm statistics, power-iteration vectors) are copied, not averaged.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.decay, self.updates = module, decay, 0
        self.shadow = {name: value.detach().clone() for name, value in module.state_dict().items()}
        self._parameters = {name for name, _ in module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """Fold in the module's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in self.module.state_dict().items():
            if name in self._parameters:
                self.shadow[name].lerp_(value, 1 - decay)
            else:
                self.shadow[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "shadow": self.shadow}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates = state["updates"]
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)
