"""What a suite is: options of its own, and one call on what the front door hands it.

A suite is a class with ``name``, ``needs`` (of "scorer", "sampler", "features"), ``options`` (flag -> arguments of
``ArgumentParser.add_argument``) and ``measure(bench) -> Result``. Another package's suite comes in through the entry-point group
``vaebm.suites`` and needs nothing else to be run, written and printed as rows.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

from evaluators.measurement import Measurement
from evaluators.subjects import SystemUnderTest
from vaebm.data import ImageSet
from vaebm.errors import UserError

Option = dict[str, Any]
LEAST = {"num_images": 0, "batch_size": 1, "sample_batch": 1, "threads": 0, "seed": 0}  # options of every suite
NAMED: Option = {"type": str, "action": "append", "default": [], "metavar": "NAME=PATH"}  # repeatable


@dataclass(frozen=True)
class Bench:
    """What the front door hands a suite.

    Attributes:
        options: every option by name, as parsed; those of other suites have their defaults.
        load_systems: data set -> the systems asked for, with their weights for it (see :class:`SystemUnderTest`).
        load_images: ``vaebm.data.load_images`` with this run's places; keywords as there.
        out: folder for results; it exists.
        cache: folder of what is kept between runs, or None.
        progress: whether bars are shown on stderr.
    """

    options: Any
    load_systems: Callable[[str], dict[str, SystemUnderTest]]
    load_images: Callable[..., ImageSet]
    out: Path
    cache: Path | None
    progress: bool

    def folder(self, name: str) -> Path | None:
        """Return the part of the cache that holds ``name``."""
        return None if self.cache is None else self.cache / name


class Result(Protocol):
    """What a suite returns: rows, and whatever its plots need."""

    rows: list[Measurement]


class Suite(Protocol):
    """See the module."""

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    options: ClassVar[Mapping[str, Option]]

    def measure(self, bench: Bench) -> Result:
        """Measure what the options ask for.

        Raises:
            UserError: an input or a combination of options is wrong.
        """
        ...


def destination(flag: str) -> str:
    """Return the name under which ``flag`` is parsed: ``"--num-images"`` becomes ``"num_images"``."""
    return flag.removeprefix("--").replace("-", "_")


def refuse(options: Any, suites: Mapping[str, type[Suite]], chosen: Sequence[str]) -> None:
    """Refuse numbers that are too small, and options of suites that do not run.

    Raises:
        UserError: one was given; of an option that nobody hears the line says which suites listen to it.
    """
    for name, least in LEAST.items():
        value = getattr(options, name)
        if value != "auto" and value < least:
            raise UserError(f"--{name.replace('_', '-')} {value}: needed at least {least}")
    if getattr(options, "random_weights", False) and list(chosen) != ["speed"]:
        raise UserError(
            f"--random-weights: found --suite {','.join(chosen)}, needed speed alone: of such networks only the time means anything"
        )
    heard = {flag for name in chosen for flag in suites[name].options}
    for suite in suites.values():
        for flag, option in suite.options.items():
            if flag not in heard and getattr(options, destination(flag)) != option.get("default"):
                listeners = ", ".join(name for name, other in suites.items() if flag in other.options)
                raise UserError(f"{flag}: --suite {','.join(chosen)} does not listen to it, only {listeners}")
