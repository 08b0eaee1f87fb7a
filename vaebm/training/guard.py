"""Watches training and stops it before it explodes: what is seen here, what follows from it is in :mod:`vaebm.training.health`.

In balance the chains of an energy network reach energies as low as the data's. When the network outruns its chains, the relative gap

    g = (mean E(x-) - mean E(x+)) / sd E(x+)

opens and never closes again: energies grow without bound and samples decay. g is free of E's scale, which training changes a thousandfold.
The norm of the gradient is compared with its own past for the same reason. Samples are compared with the data by

    drift = max(|m- - m+| / s+, |log(s- / s+)|, |share of black and white pixels in x- minus that in x+|),    m mean, s sd of all pixels.
"""

import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

REFERENCE = 10  # windows of gradient norms that the newest window is compared with


class Diverged(Exception):  # noqa: N818  an outcome, not an error: the loop catches it
    """Raised when training has left the healthy region.

    Args:
        reason: how it was seen, for people.
        evidence: the same as numbers: which quantity, its values, its limit.
    """

    def __init__(self, reason: str, evidence: Mapping[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.evidence = dict(evidence or {})


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """What is watched, and what happens when it leaves its limit. A limit of 0 turns its watch off; a window of 0 the whole guard.

    Attributes:
        guard_window: updates over which quantities are averaged, and without an alarm after a state before the state counts as healthy.
        guard_limit: largest mean of the relative energy gap (E(x-) - E(x+)) / sd E(x+).
        guard_gradient: largest median of the gradient norm, as a multiple of its median over the ten windows before.
        guard_statistics: largest mean drift of the negatives' mean, spread and saturation from the data's.
        guard_retries: so often training continues from the newest healthy state, with other noise, before it stops for good.
        guard_rate_factor: what each retry multiplies the learning rate by.
    """

    guard_window: int = 50
    guard_limit: float = 0.1
    guard_gradient: float = 100.0
    guard_statistics: float = 0.5
    guard_retries: int = 0
    guard_rate_factor: float = 0.5

    def __post_init__(self) -> None:
        for name in ("guard_window", "guard_limit", "guard_gradient", "guard_statistics", "guard_retries"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} = {getattr(self, name)}, needed 0 or more")
        if not 0 < self.guard_rate_factor <= 1:
            raise ValueError(f"guard_rate_factor = {self.guard_rate_factor}, needed above 0 and at most 1")


class Level:
    """The mean of a quantity over a window must not exceed a limit.

    A young network is far from balance (its chains do not move yet, and energies separate easily): the watch is armed once a full window
    has been within the limit.
    """

    def __init__(self, name: str, meaning: str, measure: Callable[[Mapping[str, float]], float | None]) -> None:
        self.name, self.meaning, self.measure, self.armed = name, meaning, measure, False
        self.values: deque[float] = deque()

    def check(self, values: Mapping[str, float], window: int, limit: float) -> dict[str, float]:
        """Take one update's quantities and return the window mean; nothing when they lack this one. Raises :class:`Diverged`."""
        value = self.measure(values)
        if value is None:
            return {}
        _push(self.values, value, window)
        mean = fmean(self.values)
        if len(self.values) == window:
            if mean <= limit:
                self.armed = True
            elif self.armed:
                raise Diverged(
                    f"{self.meaning} averaged {mean:.3f} over {window} updates, limit {limit:g}",
                    {"quantity": self.name, "mean": mean, "limit": limit, "window": list(self.values)},
                )
        return {f"{self.name}_mean": mean}

    def state_dict(self) -> dict[str, Any]:
        return {"armed": self.armed, "values": list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.armed, self.values = state["armed"], deque(state["values"])


class Jump:
    """The median of a quantity over a window must not exceed a multiple of its median over the ``REFERENCE`` windows before."""

    def __init__(self, name: str, meaning: str) -> None:
        self.name, self.meaning = name, meaning
        self.values: deque[float] = deque()

    def check(self, values: Mapping[str, float], window: int, limit: float) -> dict[str, float]:
        """Take one update's quantities. Raises :class:`Diverged`."""
        if self.name not in values:
            return {}
        _push(self.values, values[self.name], window * (REFERENCE + 1))
        if len(self.values) == window * (REFERENCE + 1):
            past, newest = list(self.values)[:-window], list(self.values)[-window:]
            reference, now = median(past), median(newest)
            if now > limit * reference:
                raise Diverged(
                    f"{self.meaning} had a median of {now:.4g} over {window} updates, {now / max(reference, 1e-300):.4g} times the median "
                    f"of the {len(past)} before, limit {limit:g}",
                    {"quantity": self.name, "median": now, "reference": reference, "limit": limit, "window": newest},
                )
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {"values": list(self.values)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.values = deque(state["values"])


def drift(values: Mapping[str, float]) -> float | None:
    """Return how far the negatives' statistics are from the data's (formula above); None when they are not among ``values``.

    Reads ``negative_mean``, ``negative_std``, ``data_mean``, ``data_std`` and, if given, ``negative_saturation`` and ``data_saturation``.
    """
    if "negative_mean" not in values:
        return None
    spread = max(values["data_std"], 1e-12)
    return max(
        abs(values["negative_mean"] - values["data_mean"]) / spread,
        abs(math.log(max(values["negative_std"], 1e-12) / spread)),
        abs(values.get("negative_saturation", 0.0) - values.get("data_saturation", 0.0)),
    )


class Guard:
    """Checks every update's quantities; those that a task does not report are not watched. Non-finite values are never healthy."""

    def __init__(self, settings: GuardSettings) -> None:
        self.window = settings.guard_window
        gap = Level("gap", "the relative energy gap (E(x-) - E(x+)) / sd E(x+)", lambda values: values.get("gap"))
        self._watches: list[tuple[Level | Jump, float]] = [
            (gap, settings.guard_limit),
            (Jump("gradient_norm", "the gradient norm"), settings.guard_gradient),
            (
                Level("drift", "the drift of the negatives' statistics from the data's", drift),
                settings.guard_statistics,
            ),
        ]

    def check(self, values: Mapping[str, float]) -> dict[str, float]:
        """Take one update's quantities and return the window means that are watched, to be logged.

        Raises:
            Diverged: a value is not finite, or a limit is exceeded.
        """
        if not self.window:
            return {}
        bad = {name: str(value) for name, value in values.items() if not math.isfinite(value)}
        if bad:
            raise Diverged(f"{', '.join(bad)} became non-finite", {"quantity": "non-finite values", "values": bad})
        means: dict[str, float] = {}
        for watch, limit in self._watches:
            if limit:
                means |= watch.check(values, self.window, limit)
        return means

    def state_dict(self) -> dict[str, Any]:
        return {watch.name: watch.state_dict() for watch, _ in self._watches}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for watch, _ in self._watches:
            watch.load_state_dict(state[watch.name])


def _push(values: deque[float], value: float, size: int) -> None:
    values.append(value)
    while len(values) > size:
        values.popleft()
