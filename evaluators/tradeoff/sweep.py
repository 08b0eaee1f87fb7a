"""Which settings of a sampler are measured: its own, and others around it.

Number of steps and step size make a grid, since one chain passes all numbers of steps on its way. Temperatures are tried at the system's
own step size: a full grid of all three would cost a chain per pair and say little more.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from evaluators.protocols import LongSampler, StepSampler, TunableSampler
from evaluators.subjects import SystemUnderTest
from vaebm.errors import UserError

LADDER = (0, 0.25, 0.5, 1, 2)  # times a system's own number of steps
# Where every length is a chain of its own, as that of a diffusion, all of them are paid for, and there is none beyond the full one.
LONG_LADDER = (0.25, 0.5, 1)
STEP_SIZES = ("step_size", "prior_step_size", "step_lr")  # how recipes call the step size of the chain that draws
OWN = "own recipe"  # variant of a setting that changes nothing and counts no steps


@dataclass(frozen=True)
class Setting:
    """A point of a sweep.

    Attributes:
        steps: of the chain; None where samples have no chain that shows its steps.
        step_size: as a multiple of the recipe's own; None: that one.
        temperature: None: the recipe's own.
    """

    steps: int | None = None
    step_size: float | None = None
    temperature: float | None = None

    @property
    def variant(self) -> str:
        """``"steps=8"``, ``"steps=8, step_size=x0.5"``, ``"temperature=0.7"``, ``"own recipe"``."""
        parts = [] if self.steps is None else [f"steps={self.steps}"]
        parts += [] if self.step_size is None else [f"step_size=x{self.step_size:.12g}"]
        parts += [] if self.temperature is None else [f"temperature={self.temperature:.12g}"]
        return ", ".join(parts) or OWN


@dataclass(frozen=True)
class Asked:
    """What the options ask for; ``steps`` empty: a ladder around each system's own number."""

    steps: tuple[int, ...] = ()
    step_sizes: tuple[float, ...] = ()
    temperatures: tuple[float, ...] = ()


@dataclass(frozen=True)
class Series:
    """Samples that are drawn together.

    Attributes:
        setting: without steps.
        changes: to the system's recipe; empty for its own.
        rungs: numbers of steps, ascending; empty where the system shows no steps.
        reason: why nothing can be drawn.
    """

    setting: Setting = Setting()
    changes: dict[str, Any] = field(default_factory=dict)
    rungs: tuple[int, ...] = ()
    reason: str = ""


def numbers(flag: str, text: str, *, zero: bool) -> tuple[float, ...]:
    """Read ascending numbers with commas; none for an empty text.

    Args:
        zero: whether 0 may be among them.

    Raises:
        UserError: one is no finite number, negative, or 0 where that may not be.
    """
    found = set()
    for word in filter(None, (word.strip() for word in text.split(","))):
        try:
            value = float(word)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
            kind = "numbers that are not negative" if zero else "positive numbers"
            raise UserError(f"{flag} {text}: found {word!r}, needed {kind} with commas, e.g. 0.5,1,2")
        found.add(value)
    return tuple(sorted(found))


def own_steps(system: SystemUnderTest) -> int | None:
    """Return how many steps the system's own recipe makes, where it says so."""
    sampler = system.system
    found = getattr(sampler, "total_steps", system.sampling.get("steps"))
    return int(found) if isinstance(found, int) else None


def plan(system: SystemUnderTest, asked: Asked) -> list[Series]:
    """Return what is to be drawn of a system, its own recipe first.

    The start of a chain does not depend on the step size, so that 0 steps stand with the system's own step size alone.
    """
    rungs = _rungs(system, asked.steps) if isinstance(system.system, StepSampler) else ()
    own = Series(rungs=rungs)
    if isinstance(system.system, StepSampler) and not rungs:
        own = replace(own, reason="does not say how many steps its chains make; choose some with --steps")
    series = [own]
    entry = next((name for name in STEP_SIZES if name in system.sampling), "")
    for factor in asked.step_sizes:
        setting = Setting(step_size=factor)
        reason = "has no step size" if not entry else _fixed(system) or own.reason
        if reason:
            series.append(Series(setting, reason=reason))
        elif factor != 1:
            longer = tuple(steps for steps in rungs if steps)
            if longer or not rungs:
                series.append(Series(setting, {entry: factor * system.sampling[entry]}, longer))
    for temperature in asked.temperatures:
        setting = Setting(temperature=temperature)
        reason = "has no temperature" if "temperature" not in system.sampling else _fixed(system) or own.reason
        if reason:
            series.append(Series(setting, reason=reason))
        elif temperature != system.sampling["temperature"]:
            series.append(Series(setting, {"temperature": temperature}, rungs))
    if isinstance(
        system.system, LongSampler
    ):  # each rung is a chain of its own, and one that is refused leaves the others
        return [part for each in series for part in _apart(each)]
    return series


def _apart(series: Series) -> list[Series]:
    return [replace(series, rungs=(steps,)) for steps in series.rungs] or [series]


def check(systems: Iterable[SystemUnderTest], asked: Asked) -> None:
    """Refuse what no chosen system listens to.

    Raises:
        UserError: the line names the option and a system that has what it changes.
    """
    systems = list(systems)
    if asked.steps and not any(isinstance(system.system, StepSampler) for system in systems):
        raise UserError("--steps: no chosen system has chain steps; leave it out or add vaebm to --systems")
    if asked.step_sizes and not any(name in system.sampling for system in systems for name in STEP_SIZES):
        raise UserError("--step-sizes: no chosen system has a step size; leave it out or add vaebm to --systems")
    if asked.temperatures and not any("temperature" in system.sampling for system in systems):
        raise UserError("--temperatures: no chosen system has a temperature; leave it out or add vaebm to --systems")


def _rungs(system: SystemUnderTest, steps: Sequence[int]) -> tuple[int, ...]:
    own = own_steps(system)
    if steps or own is None:
        return tuple(steps)
    shares = LONG_LADDER if isinstance(system.system, LongSampler) else LADDER
    nearest = getattr(system.system, "nearest_steps", lambda steps: max(1, round(steps)))
    return tuple(sorted({nearest(share * own) if share and own else 0 for share in shares}))


def _fixed(system: SystemUnderTest) -> str:
    return "" if isinstance(system.system, TunableSampler) else "its recipe cannot be changed"
