"""Watches an energy network's training and stops it before it explodes.

In balance the chains reach energies as low as the data's. When the network outruns its chains, the relative gap

    g = (mean E(x-) - mean E(x+)) / sd E(x+)

opens and never closes again: energies grow without bound and samples decay. g is free of E's scale, which training changes a thousandfold.
"""

from collections import deque
from typing import Any

from vaebm.training.loop import Diverged


class EnergyGuard:
    """Stops training when the mean of g over a window exceeds a limit.

    A young network separates easily, because its chains do not move yet: the guard is armed once the window mean has come below the limit
    after a full window.

    Args:
        window: number of updates averaged.
        limit: largest healthy mean gap.
    """

    def __init__(self, window: int, limit: float) -> None:
        self.window, self.limit, self.armed = window, limit, False
        self.gaps: deque[float] = deque(maxlen=window)

    def check(self, values: dict[str, float]) -> float:
        """Take one update's ``gap``, return the window mean.

        Raises:
            Diverged: the guard is armed and the mean exceeds the limit.
        """
        self.gaps.append(values["gap"])
        mean = sum(self.gaps) / len(self.gaps)
        if len(self.gaps) == self.window:
            if mean <= self.limit:
                self.armed = True
            elif self.armed:
                raise Diverged(
                    f"the relative energy gap (E(x-) - E(x+)) / sd E(x+) averaged {mean:.3f} over {self.window} updates, limit {self.limit}"
                )
        return mean

    def state_dict(self) -> dict[str, Any]:
        return {"armed": self.armed, "gaps": list(self.gaps)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.armed = state["armed"]
        self.gaps = deque(state["gaps"], maxlen=self.window)
