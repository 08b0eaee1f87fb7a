"""The samples of every setting, drawn once and kept, with what one of them costs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluators import drawing
from evaluators.drawing import Drawn
from evaluators.protocols import Images, LongSampler, TunableSampler
from evaluators.sample_store import SampleStore
from evaluators.subjects import SystemUnderTest
from evaluators.tradeoff.sweep import Series, Setting, own_steps
from vaebm.errors import UserError

TIMED = 64  # images of the start of a chain, drawn to tell its cost from that of the steps


@dataclass(frozen=True)
class Point:
    """A setting and its images, or why there are none.

    Attributes:
        drawn: with the whole recipe as ``sampling``, and ``seconds`` per image.
        own: whether this is the recipe that the system came with.
    """

    setting: Setting
    drawn: Drawn
    own: bool = False


class _RefusedError(UserError):
    """A sampler did not take a setting; the others can still be drawn."""


@dataclass(frozen=True)
class _Drawn:
    """A series that was drawn: the system under its recipe, images (n, rungs, H, W, C), seconds per seed."""

    series: Series
    system: SystemUnderTest
    images: Images
    seconds: float


def measure_points(
    system: SystemUnderTest, planned: Sequence[Series], n: int, store: SampleStore, progress: bool
) -> list[Point]:
    """Draw ``n`` images at every setting; one that the system refuses has the reason in place of images."""
    found: list[_Drawn | Point] = []
    for series in planned:
        try:
            found.append(_draw(tuned(system, series), series, n, store, progress))
        except _RefusedError as reason:
            rungs: Sequence[int | None] = series.rungs or [None]
            found += [_empty(system, replace(series.setting, steps=steps), str(reason)) for steps in rungs]
    drawn = [each for each in found if isinstance(each, _Drawn)]
    costs = _Costs(system, [(each.series.rungs, each.seconds) for each in drawn], n, store)
    return [point for each in found for point in ([each] if isinstance(each, Point) else _points(each, costs))]


def tuned(system: SystemUnderTest, series: Series) -> SystemUnderTest:
    """Return the system under the changed recipe.

    Raises:
        UserError: there is a reason why not, or the system refuses the change.
    """
    if series.reason:
        raise _RefusedError(series.reason)
    if not series.changes:
        return system
    sampler = system.system
    assert isinstance(sampler, TunableSampler)
    try:
        changed = sampler.with_recipe(**series.changes)
    except UserError as error:
        raise _RefusedError(str(error)) from None
    return replace(system, system=changed, sampling={**system.sampling, **series.changes})


def series_of(system: SystemUnderTest, series: Series) -> drawing.Series:
    """Return label, key of the store, how to draw, and images per seed, of a system that is :func:`tuned` already."""
    label, key, draw, rows = drawing.of_curve(system, series.rungs) if series.rungs else drawing.of_system(system)
    if series.setting != Setting():
        label += f", {series.setting.variant}"
    return label, key, _refusing(draw), rows


def _draw(system: SystemUnderTest, series: Series, n: int, store: SampleStore, progress: bool) -> _Drawn:
    label, key, draw, _ = series_of(system, series)
    unit = drawing.drawn_at_a_time(system)
    stored = store.images(key, n, draw, unit=unit, label=f"samples of {label}", progress=progress)
    images = stored.images.reshape(n, -1, *system.image_shape)
    return _Drawn(series, system, images, stored.seconds / n)


def _points(found: _Drawn, costs: "_Costs") -> list[Point]:
    system, setting = found.system, found.series.setting
    about: dict[str, Any] = {"size": system.size, "fingerprint": system.fingerprint}
    if not found.series.rungs:
        drawn = Drawn(system.name, found.images[:, 0], sampling=system.sampling, seconds=costs.of(0), **about)
        return [Point(setting, drawn, own=setting == Setting())]
    points = []
    for i, steps in enumerate(found.series.rungs):
        sampling, seconds = {**system.sampling, "steps": steps}, costs.of(steps)
        drawn = Drawn(system.name, found.images[:, i], sampling=sampling, steps=steps, seconds=seconds, **about)
        own = setting == Setting() and steps == own_steps(system)
        points.append(Point(replace(setting, steps=steps), drawn, own))
    return points


class _Costs:
    """Seconds of a chain of k steps: begun + k step.

    A pass over R rungs shows R images and makes K steps, K the last rung; it took R begun + K step, with ``begun`` the seconds of a
    chain of no steps, which is drawn to know them. Where every length is a chain of its own, all rungs count into K and none into R; where
    there are no steps, all is ``begun``. Both are over all passes of a system: neither step size nor temperature makes an image
    dearer, while a busy machine does.
    """

    def __init__(
        self, system: SystemUnderTest, passes: Sequence[tuple[Sequence[int], float]], n: int, store: SampleStore
    ) -> None:
        seconds, long = sum(each for _, each in passes), isinstance(system.system, LongSampler)
        made = sum(sum(rungs) if long else max(rungs, default=0) for rungs, _ in passes)
        self.begun, self.step = seconds / max(1, len(passes)), 0.0
        if made:
            self.begun = 0.0 if long else self._start(system, min(n, TIMED), store)
            shown = sum(len(rungs) for rungs, _ in passes)
            self.step = max(0.0, seconds - shown * self.begun) / made

    def of(self, steps: int) -> float:
        """Return the seconds of one image."""
        return self.begun + steps * self.step

    @staticmethod
    def _start(system: SystemUnderTest, timed: int, store: SampleStore) -> float:
        label, key, draw, _ = drawing.of_curve(system, (0,))
        try:
            unit = drawing.drawn_at_a_time(system)
            return store.images(key, timed, _refusing(draw), unit=unit, label=f"start of {label}").seconds / timed
        except _RefusedError:  # its chains have at least one step
            return 0.0


def _empty(system: SystemUnderTest, setting: Setting, reason: str) -> Point:
    sampling = dict(system.sampling)
    drawn = Drawn(system.name, size=system.size, sampling=sampling, fingerprint=system.fingerprint, reason=reason)
    return Point(setting, drawn)


def _refusing(draw: Callable[[Sequence[int]], Images]) -> Callable[[Sequence[int]], Images]:
    """Tell what a sampler refuses from what stops the run, as a full disk."""

    def drawn(seeds: Sequence[int]) -> Images:
        try:
            return draw(seeds)
        except UserError as error:
            raise _RefusedError(str(error)) from None

    return drawn
