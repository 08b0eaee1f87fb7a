"""Mixed precision of an update: which number format the networks run in, and the scaling of the loss that float16 needs."""

from typing import Any

import torch
from torch import Tensor

from vaebm.errors import UserError

PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Precision:
    """``"no"``: float32; ``"bf16"``, ``"fp16"``: autocast, with a scaled loss for float16 (its state is saved and resumed).

    Weights, optimiser and whatever leaves the networks stay float32.

    Args:
        name: one of ``PRECISIONS``.
        flag: what to change, for messages.

    Raises:
        UserError: float16 was asked for on a CPU.

    Reference: Micikevicius et al., "Mixed Precision Training", ICLR 2018.
    """

    def __init__(self, name: str, device: torch.device, flag: str) -> None:
        if name == "fp16" and device.type == "cpu":
            raise UserError(f'{flag} = "fp16" trains on a GPU only, found --device cpu: needed "bf16" or "no"')
        self.name, self.device = name, device
        self._scaler = torch.amp.GradScaler(device.type, enabled=name == "fp16")

    def autocast(self) -> torch.autocast:
        """Return the context that the networks run in."""
        return torch.autocast(self.device.type, PRECISIONS[self.name], enabled=self.name != "no")

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of the (scaled) loss."""
        self._scaler.scale(loss).backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Bring the gradients back to the scale of the loss."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer, norm: Tensor) -> float:
        """Update, unless the gradient is not finite; return its norm, for the log.

        A float16 gradient that overflows is part of the method: it lowers the scale, the update is left out and its norm is told as 0.
        """
        finite = bool(torch.isfinite(norm))
        if finite or self.name == "fp16":
            self._scaler.step(optimizer)
            self._scaler.update()
        return norm.item() if finite or self.name != "fp16" else 0.0

    def state_dict(self) -> dict[str, Any]:
        return self._scaler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            self._scaler.load_state_dict(state)


def check_precision(name: str) -> None:
    """Make sure that ``name`` is a precision.

    Raises:
        ValueError: it is not.
    """
    if name not in PRECISIONS:
        raise ValueError(f"unknown precision {name!r}: needed one of {', '.join(PRECISIONS)}")
