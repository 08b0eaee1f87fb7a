"""From systems and files to images under test: drawn once, stored, and described for protocols."""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from evaluators.features.extractor import Extractor
from evaluators.forecast import Part, seconds_per_item
from evaluators.forecast import forecast as make_forecast
from evaluators.inputs import FeatureInput, ImageInput, StatisticsInput, read_input
from evaluators.measurement import Measurement
from evaluators.metrics.intervals import Estimate
from evaluators.protocols import Images, LongSampler, Sampler, StepSampler
from evaluators.sample_store import SampleStore
from evaluators.subjects import SystemUnderTest
from evaluators.suite import NAMED, Bench, Option
from vaebm import parallel
from vaebm.cli import named
from vaebm.errors import UserError

BLOCK = 16  # images drawn to measure the cost of a run

# Options that every suite of sampled images listens to.
OPTIONS: Mapping[str, Option] = {
    "--samples": NAMED | {"help": "NAME=PATH of your samples: folder, zip, .npy, .npz of images; statistics; features"},
    "--steps": {
        "type": str,
        "default": "",
        "help": "numbers of chain steps with commas: their curve for every system that has steps, e.g. 0,2,4,8,16 "
        "(tradeoff without it: 0, 1/4, 1/2, 1 and 2 times each system's own)",
    },
    "--dry-run": {"action": "store_true", "default": False, "help": "print what the run would cost, and stop"},
}


@dataclass(frozen=True)
class Drawn:
    """Images under test, or why there are none.

    Attributes:
        name: of the system, or the user's own.
        images: uint8 (N, H, W, C), sliceable; None with a reason, or for statistics and features.
        given: what the user gave in place of a system.
        size, sampling, fingerprint: of the system.
        steps: of the chain, where this is a rung of a curve.
        seconds: it took to draw one image; 0 where that is not known.
        notes: what looks odd about the user's images.
        reason: why there is nothing.
    """

    name: str
    images: Any = None
    given: ImageInput | StatisticsInput | FeatureInput | None = None
    size: str = ""
    sampling: dict[str, Any] = field(default_factory=dict)
    fingerprint: dict[str, Any] = field(default_factory=dict)
    steps: int | None = None
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    reason: str = ""


def ladder(text: str) -> tuple[int, ...]:
    """Read ``--steps``: ascending numbers of steps; none for an empty text.

    Raises:
        UserError: one is no number, or negative.
    """
    words = [word for word in text.split(",") if word]
    if not all(word.isdecimal() for word in words):
        raise UserError(f"--steps {text}: needed numbers with commas, e.g. 0,2,4,8,16")
    return tuple(sorted({int(word) for word in words}))


def draw(
    bench: Bench,
    dataset: str,
    n: int,
    extractors: Mapping[str, Extractor],
    ready: Callable[[Drawn], object] = lambda drawn: None,
) -> list[Drawn]:
    """Draw ``n`` images from every system asked for, those of its curve, and read what the user gave (all of it by default).

    What it will cost, features of ``extractors`` included, is said on stderr before anything is drawn, where progress is shown.

    Args:
        ready: called with each set of images as soon as it is there, before the next one is drawn.

    Raises:
        UserError: a name is given twice, an option that nothing listens to, or images that cannot be read.
    """
    rungs, found = ladder(bench.options.steps), []
    systems, given = bench.load_systems(dataset), named("--samples", bench.options.samples)
    for name in given:
        if name in systems:
            raise UserError(f"--samples {name}=...: a system of this name is drawn from already; choose another name")
    # All that the user gave, unless a number is asked for; read first, so that bad input is found before anything is drawn.
    own = [_read(name, path, bench.options.num_images or None) for name, path in given.items()]
    if not systems and not own:
        raise UserError("found nothing to measure: needed --systems, --checkpoint or --samples")
    if rungs and not any(isinstance(system.system, StepSampler) for system in systems.values()):
        raise UserError("--steps: no chosen system has chain steps; leave it out or add vaebm to --systems")
    for each in own:
        ready(each)
    if bench.progress and parallel.world_size() == 1:  # timing a block takes all processes, and bars are shown by one
        print(forecast(bench, dataset, n, extractors), end="", file=sys.stderr)
    store = SampleStore(bench.folder("samples"))
    for system in systems.values():
        reason = unfit(system, dataset)
        if reason:
            found.append(Drawn(system.name, size=system.size, fingerprint=system.fingerprint, reason=reason))
            continue
        # Two systems that say nothing of themselves must not share samples.
        kept_in = store if system.fingerprint else SampleStore(None)
        made = [_drawn(system, n, kept_in, bench.progress)]
        ready(made[0])
        if isinstance(system.system, StepSampler):
            made += _curve(system, n, rungs, kept_in, bench.progress)
        for each in made[1:]:
            ready(each)
        found += made
    return found + own


def unfit(system: SystemUnderTest, dataset: str) -> str:
    """Return why no samples of a data set can be drawn from a system; empty where they can."""
    if system.reason or not isinstance(system.system, Sampler):
        return system.reason or "has no sampler"
    if system.dataset and system.dataset != dataset:  # a good sample of another distribution would look like a bad one
        return f"was trained on {system.dataset}, not on {dataset}"
    return ""


def _read(name: str, path: str, n: int | None) -> Drawn:
    given = read_input(name, path, n)
    for note in given.notes:
        print(f"warning: {name}: {note}", file=sys.stderr)
    images = given.images if isinstance(given, ImageInput) else None
    kind = Path(path).suffix.lstrip(".") or "folder"
    about: dict[str, Any] = {"sampling": {"source": f"{kind} given by the user"}, "fingerprint": {"data": given.sha256}}
    return Drawn(name, images, given, notes=given.notes, **about)


def _look(extractor: Extractor, images: Images, start: int, stop: int) -> None:
    extractor.extract(images[start:stop])


# What is drawn of a system: label, key of the store, how to draw, images per seed.
Series = tuple[str, dict[str, Any], Callable[[Sequence[int]], Images], int]


def of_system(system: SystemUnderTest) -> Series:
    """Return how the samples of a system are drawn."""
    assert isinstance(system.system, Sampler)
    return system.name, {"system": system.fingerprint, "sampling": system.sampling}, system.system.sample, 1


def of_curve(system: SystemUnderTest, rungs: Sequence[int]) -> Series:
    """One pass of the chain for all rungs, whose images are stacked on top of each other."""
    sampler = system.system
    assert isinstance(sampler, StepSampler)
    height, width, channels = system.image_shape

    def climb(seeds: Sequence[int]) -> Images:
        found = sampler.sample_steps(seeds, rungs)
        return np.stack([found[steps] for steps in rungs], axis=1).reshape(-1, len(rungs) * height, width, channels)

    sampling = {key: value for key, value in system.sampling.items() if key != "steps"}
    key = {"system": system.fingerprint, "sampling": sampling, "ladder": list(rungs)}
    return f"{system.name}, {rungs[-1]} steps", key, climb, len(rungs)


def drawn_at_a_time(system: SystemUnderTest) -> int:
    """How many images a system draws at a time; 1 where it does not say."""
    return int(getattr(system.system, "sample_batch", 1))


def _drawn(system: SystemUnderTest, n: int, store: SampleStore, progress: bool) -> Drawn:
    label, key, draw_some, _ = of_system(system)
    stored = store.images(
        key, n, draw_some, unit=drawn_at_a_time(system), label=f"samples of {label}", progress=progress
    )
    return _described(system, stored.images, stored.seconds / n)


def _curve(system: SystemUnderTest, n: int, rungs: Sequence[int], store: SampleStore, progress: bool) -> list[Drawn]:
    """The seconds of a rung are its share of all steps that were made: of one chain through all rungs, or of one for each."""
    if not rungs:
        return []
    label, key, draw_some, _ = of_curve(system, rungs)
    stored = store.images(
        key, n, draw_some, unit=drawn_at_a_time(system), label=f"samples of {label}", progress=progress
    )
    strips = stored.images.reshape(n, len(rungs), *system.image_shape)
    made = sum(rungs) if isinstance(system.system, LongSampler) else rungs[-1]
    per_step = stored.seconds / n / max(1, made)
    return [_described(system, strips[:, i], per_step * steps, steps) for i, steps in enumerate(rungs)]


def _described(system: SystemUnderTest, images: Any, seconds: float, steps: int | None = None) -> Drawn:
    sampling = system.sampling if steps is None else {**system.sampling, "steps": steps}
    about: dict[str, Any] = {"size": system.size, "sampling": sampling, "fingerprint": system.fingerprint}
    return Drawn(system.name, images, steps=steps, seconds=seconds, **about)


def row(
    suite: str,
    drawn: Drawn,
    dataset: str,
    metric: str,
    estimate: Estimate | None,
    *,
    n: int | None,
    seed: int,
    role: str,
    protocol: Mapping[str, Any],
    note: str = "",
    **provenance: Any,
) -> Measurement:
    """Return one number about images under test; a rung of a curve is a diagnostic with its steps as variant.

    Args:
        estimate: None with a note that says why; its ends are NaN where there is no interval.
        provenance: what is known beside the system's fingerprint.
    """
    on_curve = drawn.steps is not None
    value, low, high = (None,) * 3 if estimate is None else (estimate.value, estimate.low, estimate.high)
    return Measurement(
        suite=suite,
        system=drawn.name,
        dataset=dataset,
        metric=metric,
        value=None if value is None else float(value),
        low=None if low is None or math.isnan(low) else float(low),
        high=None if high is None or math.isnan(high) else float(high),
        n=n,
        seed=seed,
        role="diagnostic" if on_curve else role,
        variant=f"steps={drawn.steps}" if on_curve else "",
        size=drawn.size,
        protocol=dict(protocol),
        provenance={"fingerprint": drawn.fingerprint, **provenance},
        note=note,
    )


def forecast(bench: Bench, dataset: str, n: int, extractors: Mapping[str, Extractor]) -> str:
    """Return a table of what a run would cost: every system's images, from timing one block, and the features of all of them.

    The block is kept; images that the cache holds are not to be drawn again.
    """
    store = SampleStore(bench.folder("samples"))
    parts, rungs, images = [], ladder(bench.options.steps), None
    sets = len(bench.options.samples) * n
    for system in bench.load_systems(dataset).values():
        if unfit(system, dataset):
            continue
        series = [of_system(system)]
        if rungs and isinstance(system.system, StepSampler):
            series.append(of_curve(system, rungs))
        for label, key, draw_some, rows in series:
            unit = drawn_at_a_time(system)
            block = max(BLOCK, unit)  # a part of what is drawn together would cost as much as all of it
            kept_in = store if system.fingerprint else SampleStore(None)
            first = kept_in.images(key, block, draw_some, unit=unit, label=label)
            images = first.images if rows == 1 else images
            there = store.available(key, n) if system.fingerprint else 0
            cost = float(np.prod(system.image_shape)) * rows
            parts.append(Part(f"draw {label}", there, n - there, first.seconds / block, cost))
            sets += n * rows
    for name, extractor in extractors.items():
        seconds = None
        if images is not None:
            look = partial(_look, extractor, images)
            seconds = seconds_per_item(look, BLOCK)
        parts.append(Part(f"extract {name}", 0, sets, seconds, 4.0 * (extractor.dim or 0)))
    return make_forecast(parts).text
