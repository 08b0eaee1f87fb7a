"""The speed suite: seconds per image and what makes them up, of every system that samples.

In a round every system draws one block of images, so that ratios are taken within rounds and a machine that others use, too, slows all
alike. A first round warms up and is not timed; in it network evaluations are counted by hooks and peak memory is measured. Rounds are
kept: a run that was killed goes on, and ``--cache none`` measures afresh.

Reference for the paper's protocol: Xiao, Kreis, Kautz and Vahdat, VAEBM (ICLR 2021), section 5.5: seconds for 50 CIFAR-10 images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from evaluators.measurement import Measurement
from evaluators.protocols import Sampler
from evaluators.speed.rounds import Clock, clock, plan
from evaluators.speed.rows import DATASET, SUITE, empty_rows, rows_of
from evaluators.speed.run import Run
from evaluators.subjects import SystemUnderTest
from evaluators.suite import Bench, Option
from vaebm import parallel
from vaebm.errors import UserError, did_you_mean

AGAINST = "ncsn"  # the system that the paper compares with


@dataclass(frozen=True)
class SpeedResult:
    """What a run found; see :meth:`SpeedSuite.measure`."""

    rows: list[Measurement]


class SpeedSuite:
    """Times sampling.

    Args:
        now: the clock; see :func:`evaluators.speed.rounds.clock`.
    """

    name: ClassVar[str] = SUITE
    needs: ClassVar[tuple[str, ...]] = ("sampler",)
    options: ClassVar[Mapping[str, Option]] = {
        "--random-weights": {
            "action": "store_true",
            "default": False,
            "help": "time paper-size architectures with random weights, which need no checkpoint",
        },
        "--repeats": {
            "type": int,
            "default": 6,
            "help": "rounds, each one block of every system, after one that warms up",
        },
        "--max-steps": {
            "type": int,
            "default": 0,
            "help": "time longer chains for so many steps and extrapolate (default: 0, all steps)",
        },
        "--against": {"type": str, "default": AGAINST, "help": "systems with commas that all others are compared with"},
    }

    def __init__(self, now: Clock = clock) -> None:
        self.now = now

    def measure(self, bench: Bench) -> SpeedResult:
        """Time every system that samples.

        Returns:
            Rows with suite ``"speed"``; ``n`` is the number of images timed. Intervals are those of a median over rounds.

            ==========================  =====================================================================================
            metric                      what
            ==========================  =====================================================================================
            seconds_per_50_images       seconds of a block over its images, times 50; median over rounds
            seconds_per_image           the same of one image
            network_evaluations         behind an image, all networks together (``provenance.evaluations``: each)
            gradient_evaluations        backward passes behind an image
            peak_memory_gib             GiB that a block needs, weights included
            speedup_over_<system>       its seconds over this system's; median of the ratios within rounds
            ==========================  =====================================================================================

        Raises:
            UserError: an option out of range, a system to compare with, other than NCSN, that is not timed, or nothing to time.
        """
        options = bench.options
        for name, least in (("repeats", 1), ("max_steps", 0)):
            if getattr(options, name) < least:
                raise UserError(f"--{name.replace('_', '-')} {getattr(options, name)}: needed at least {least}")
        systems = bench.load_systems(options.dataset or DATASET)
        if not systems:
            raise UserError("found nothing to time: needed --systems, --checkpoint or --random-weights")
        reasons = {name: _unfit(subject) for name, subject in systems.items()}
        timed = {name: plan(subject, options.max_steps) for name, subject in systems.items() if not reasons[name]}
        against = _against(options.against, list(timed))
        made: dict[str, list[Measurement]] = {}
        if timed:  # several processes would be in each other's way
            taken = parallel.on_main(lambda: Run(bench, list(timed.values()), self.now).take())
            made = rows_of(bench, timed, taken, against)
        empty = lambda name: empty_rows(bench, systems[name], reasons[name])
        return SpeedResult([row for name in systems for row in (made.get(name) or empty(name))])


def _unfit(subject: SystemUnderTest) -> str:
    if subject.reason or not isinstance(subject.system, Sampler):
        return subject.reason or "has no sampler"
    return ""


def _against(text: str, timed: Sequence[str]) -> list[str]:
    chosen = list(dict.fromkeys(word for word in text.split(",") if word))
    for name in chosen:
        if name not in timed and text != AGAINST:
            raise UserError(
                f"--against {name}: it is not timed in this run; add it to --systems.{did_you_mean(name, timed)}"
            )
    return chosen
