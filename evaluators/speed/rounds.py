"""Timing in rounds: every system draws one block per round, so that what a machine does meanwhile hits all of them alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluators.protocols import LongSampler, StepSampler
from evaluators.subjects import SystemUnderTest

BLOCK = 16  # images of a block where a system does not say how many it draws together

Seconds = tuple[float, float]  # on the wall, of the processors
Clock = Callable[[], Seconds]


def clock() -> Seconds:
    """Return now, by the wall's clock and by that of this process's work."""
    return time.perf_counter(), time.process_time()


@dataclass(frozen=True)
class Timed:
    """A system and how much of it is timed.

    Attributes:
        subject: what is timed.
        block: images that are drawn together.
        total: steps of its chain; None where it has none, or does not say.
        steps: of these that are timed, from the first on.
    """

    subject: SystemUnderTest
    block: int
    total: int | None = None
    steps: int | None = None

    @property
    def extrapolated(self) -> bool:
        """Whether only the beginning of the chain is timed."""
        return self.steps != self.total

    def draw(self, round_: int, steps: int | None) -> None:
        """Draw the block of a round: all of it, or the first ``steps`` of the chain."""
        system: Any = self.subject.system
        seeds = range(round_ * self.block, (round_ + 1) * self.block)
        if steps is None or not self.extrapolated:
            system.sample(seeds)
        elif isinstance(system, LongSampler):
            system.sample_part(seeds, steps)
        else:
            system.sample_steps(seeds, [steps])

    def whole(self, none: Any, some: Any) -> Any:
        """Extrapolate to all steps what no steps and the timed ones cost: c_0 + (c_N - c_0) T / N.

        What does not depend on the number of steps (noise to start from, a last decoding) is in c_0 and not multiplied. Times are noisy,
        so c_0 counts as at most c_N.
        """
        if not self.extrapolated:
            return some
        assert self.total is not None
        assert self.steps is not None
        none = np.minimum(none, some)
        return none + (some - none) * (self.total / self.steps)


def plan(subject: SystemUnderTest, most: int) -> Timed:
    """Decide what of a sampler is timed: chains of more than ``most`` steps (0: of any length are whole) for so many steps."""
    system: Any = subject.system
    block = int(getattr(system, "sample_batch", BLOCK))
    total: int | None = None
    if isinstance(system, LongSampler):
        total = int(system.total_steps)
    elif isinstance(system, StepSampler):
        steps = getattr(system, "total_steps", subject.sampling.get("steps"))
        total = steps if isinstance(steps, int) else None
    long = total is not None and 0 < most < total
    return Timed(subject, block, total, most if long else total)


def one_round(timed: Sequence[Timed], number: int, now: Clock, wait: Callable[[], None]) -> NDArray[np.float64]:
    """Draw a block of every system and return how long each took, (S, 2, 2): on the wall and of the processors, for no steps and for the
    timed ones (or all). What is not timed is 0. Odd rounds go backwards through the systems.

    Args:
        number: of the round.
        now: the clock.
        wait: lets the device finish what it was given.
    """
    seconds = np.zeros((len(timed), 2, 2))
    order = range(len(timed))
    for i in order if number % 2 == 0 else reversed(order):
        for j, steps in enumerate((0, timed[i].steps)):
            if j == 0 and not timed[i].extrapolated:
                continue
            wait()
            began = now()
            timed[i].draw(number, steps)
            wait()
            seconds[i, :, j] = np.subtract(now(), began)
    return seconds
