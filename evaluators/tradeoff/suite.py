"""The suite: its options, and a run from systems to rows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from evaluators import drawing, spaces
from evaluators.drawing import BLOCK, Drawn
from evaluators.features.extractor import Extractor
from evaluators.forecast import Part, seconds_per_item
from evaluators.forecast import forecast as make_forecast
from evaluators.measurement import Measurement
from evaluators.metrics.auroc import auroc_interval
from evaluators.metrics.intervals import Estimate
from evaluators.ood.scoring import SCORE, system_scores
from evaluators.protocols import Images, Scorer, Scores
from evaluators.sample_store import SampleStore
from evaluators.score_store import ScoreStore
from evaluators.spaces import Space
from evaluators.subjects import SystemUnderTest
from evaluators.suite import Bench, Option
from evaluators.tradeoff.gap import energies, standardised_gap
from evaluators.tradeoff.points import Point, measure_points, series_of, tuned
from evaluators.tradeoff.sweep import Asked, Setting, check, numbers, plan
from vaebm.data import DataUnavailable, ImageSet
from vaebm.errors import UserError

NUM_IMAGES = 500  # per setting, unless told otherwise
CHAINS = 8  # shown in a strip
QUALITY = ("fd", "kd")
GAPS = ("score_gap", "energy_gap")
AUROCS = ("auroc_test_over_samples", "auroc_samples_over_outer")
CONTROL = "test images"
_DELONG = "DeLong, logit scale, 95 %"


@dataclass(frozen=True)
class TradeoffResult:
    """What a run found.

    Attributes:
        rows: see :meth:`TradeoffSuite.measure`.
        strips: system -> (its first chains at its own step size and temperature, uint8 (chains, rungs, H, W, C), the rungs).
    """

    rows: list[Measurement]
    strips: dict[str, tuple[Images, tuple[int, ...]]] = field(default_factory=dict)


class TradeoffSuite:
    """Measures quality against cost over settings of the sampler. It has no settings beside its options."""

    name: ClassVar[str] = "tradeoff"
    needs: ClassVar[tuple[str, ...]] = ("sampler", "scorer", "features")
    options: ClassVar[Mapping[str, Option]] = {
        "--steps": drawing.OPTIONS["--steps"],
        "--step-sizes": {
            "type": str,
            "default": "",
            "help": "with commas: step sizes to try beside each system's own, as multiples of that, e.g. 0.5,2",
        },
        "--temperatures": {
            "type": str,
            "default": "",
            "help": "with commas: temperatures to try beside each system's own, e.g. 0.7,1",
        },
        "--outer": {
            "type": str,
            "default": "",
            "metavar": "SET",
            "help": "set that samples are held against by the system's own score (default: svhn)",
        },
        **spaces.OPTIONS,
        "--dry-run": drawing.OPTIONS["--dry-run"],
    }

    def measure(self, bench: Bench) -> TradeoffResult:
        """Draw, extract, score, measure.

        Returns:
            Rows with suite ``"tradeoff"``, role ``"diagnostic"`` and the setting as variant (``"steps=8, step_size=x0.5"``; ``"own
            recipe"`` where nothing is changed and no steps are counted). Their protocol says the whole recipe (``sampling``), whether it is
            the system's own (``own_recipe``) and ``seconds_per_image``, which a rerun does not repeat.

            =============================  ==============================================================  ====================
            metric                         what                                                            n
            =============================  ==============================================================  ====================
            fid, kid, fd_*, kd_*           distance to the training images, as in the generation suite     samples
            score_gap                      mean score, from that of held-out images, in deviations of it   samples + held-out
            energy_gap                     the same of E, the negated term ``neg_energy`` of a score       samples + held-out
            auroc_test_over_samples        P(score of a held-out image > score of a sample)                held-out + samples
            auroc_samples_over_outer       P(score of a sample > score of an image of ``--outer``)       samples + outer
            =============================  ==============================================================  ====================

            Controls: distances of held-out images, system ``"test images"``; and for each system that scores
            ``auroc_samples_over_outer`` with held-out images in place of samples, variant ``"test images"``.

        Raises:
            UserError: an unknown option value, or an option that no chosen system listens to.
        """
        run = _Run(bench)
        result = TradeoffResult([])
        extractors = run.extractors.items()
        chosen = [Space(self.name, bench, run.dataset, name, extractor, QUALITY) for name, extractor in extractors]
        points: list[Point] = []
        for system in run.systems.values():  # and no features ahead of their time: seconds are measured here
            found = run.points(system)
            points += found
            own = [p for p in found if p.drawn.steps is not None and replace(p.setting, steps=None) == Setting()]
            if own:
                strip = np.stack([np.asarray(point.drawn.images[:CHAINS]) for point in own], axis=1)
                result.strips[system.name] = (strip, tuple(point.drawn.steps or 0 for point in own))
        for space in chosen:
            space.prepare(run.held_out)
            for point in points:
                result.rows.extend(run.placed(row, point) for row in space.rows(point.drawn))
            result.rows.extend(space.rows(run.held_out, role="control"))
        scorings = [_Scoring(run, system) for system in run.systems.values()]
        by_term = any(energies(scoring.held) is not None for scoring in scorings)
        for scoring in scorings:
            result.rows.extend(scoring.rows([p for p in points if p.drawn.name == scoring.system.name], by_term))
        return result

    def forecast(self, bench: Bench) -> str:
        """Return what drawing, extracting and scoring would cost."""
        run = _Run(bench)
        parts, images, sets = list[Part](), None, 1
        for system in run.systems.values():
            if drawing.unfit(system, run.dataset):
                continue
            at_once = 0
            for series in plan(system, run.asked):
                try:
                    label, key, draw, rows = series_of(tuned(system, series), series)
                    unit = drawing.drawn_at_a_time(system)
                    block = max(BLOCK, unit)
                    first = run.samples(system).images(key, block, draw, unit=unit, label=label)
                except UserError:  # its rows will say so
                    continue
                images = first.images if rows == 1 else first.images.reshape(-1, *system.image_shape)
                there = run.samples(system).available(key, run.n) if system.fingerprint else 0
                cost = float(np.prod(system.image_shape)) * rows
                parts.append(Part(f"draw {label}", there, run.n - there, first.seconds / block, cost))
                at_once += rows
            sets += at_once
            if isinstance(system.system, Scorer) and images is not None:
                seconds = seconds_per_item(lambda start, stop: _score(system, images, start, stop), BLOCK)  # noqa: B023
                parts.append(Part(f"score by {system.name}", 0, (at_once + 2) * run.n, seconds, 8.0))
        for name, extractor in spaces.available(run.extractors).items():
            each = None if images is None else seconds_per_item(_Looking(extractor, images), BLOCK)
            parts.append(Part(f"extract {name}", 0, sets * run.n, each, 4.0 * (extractor.dim or 0)))
        return make_forecast(parts).text


def _score(system: SystemUnderTest, images: Images, start: int, stop: int) -> Scores:
    assert isinstance(system.system, Scorer)
    return system.system.score(images[start:stop])


@dataclass(frozen=True)
class _Looking:
    extractor: Extractor
    images: Images

    def __call__(self, start: int, stop: int) -> object:
        return self.extractor.extract(self.images[start:stop])


class _Run:
    """What all systems of a run share. Bad options are found here, before anything is drawn."""

    def __init__(self, bench: Bench) -> None:
        options = bench.options
        self.bench, self.progress = bench, bench.progress
        self.dataset, self.n = options.dataset or "cifar10", options.num_images or NUM_IMAGES
        self.asked = Asked(
            drawing.ladder(options.steps),
            numbers("--step-sizes", options.step_sizes, zero=False),
            numbers("--temperatures", options.temperatures, zero=True),
        )
        self.outer_name = options.outer or ("svhn" if self.dataset != "svhn" else "cifar10")
        if self.outer_name == self.dataset:
            raise UserError(f"--outer {self.outer_name}: needed another set than the one that the systems model")
        self.extractors = spaces.load_extractors(bench)
        self.systems = bench.load_systems(self.dataset)
        if not self.systems:
            raise UserError("found nothing to measure: needed --systems or --checkpoint")
        check(self.systems.values(), self.asked)
        self.held_out = spaces.held_out_images(bench, self.dataset, self.n)
        self.scores = ScoreStore(bench.folder("scores"))
        self._samples = SampleStore(bench.folder("samples"))

    def samples(self, system: SystemUnderTest) -> SampleStore:
        """Two systems that say nothing of themselves must not share samples."""
        return self._samples if system.fingerprint else SampleStore(None)

    def points(self, system: SystemUnderTest) -> list[Point]:
        """Draw a system's samples at every setting."""
        reason = drawing.unfit(system, self.dataset)
        if reason:
            drawn = Drawn(system.name, size=system.size, fingerprint=system.fingerprint, reason=reason)
            return [Point(Setting(), drawn)]
        return measure_points(system, plan(system, self.asked), self.n, self.samples(system), self.progress)

    def outer(self, shape: tuple[int, int, int]) -> ImageSet | str:
        """Return the images that samples are held against, in the shape of samples, or why there are none."""
        *size, channels = shape
        try:
            return self.bench.load_images(
                self.outer_name,
                split="test",
                n=self.n,
                size=tuple(size),
                channels=channels,
                seed=self.bench.options.seed,
            )
        except DataUnavailable as reason:
            return str(reason)

    def placed(self, row: Measurement, point: Point) -> Measurement:
        """Return the row of a setting."""
        told: dict[str, Any] = {"own_recipe": point.own}
        told |= {"steps": point.setting.steps} if point.setting.steps is not None else {}
        told |= {} if point.drawn.reason else {"seconds_per_image": point.drawn.seconds}
        protocol = {key: value for key, value in row.protocol.items() if key != "seconds_per_image"} | told
        variant = point.setting.variant
        return replace(row, suite=TradeoffSuite.name, role="diagnostic", variant=variant, protocol=protocol)


class _Scoring:
    """What a system's own score says of its samples."""

    def __init__(self, run: _Run, system: SystemUnderTest) -> None:
        self.run, self.system = run, system
        self.reason = "" if isinstance(system.system, Scorer) else system.reason or "has no scorer"
        self.held: dict[str, Scores] = {}
        self.outer: dict[str, Scores] = {}
        self.no_held, self.no_outer = self.reason, self.reason
        if self.reason:
            return
        if not run.held_out.reason:
            self.held, self.no_held = self._of(run.held_out.images, f"{run.dataset} test")
        else:
            self.no_held = run.held_out.reason
        outer = run.outer(system.image_shape)
        if isinstance(outer, ImageSet):
            self.outer, self.no_outer = self._of(outer.images, run.outer_name)
        else:
            self.no_outer = outer

    def _of(self, images: Any, name: str) -> tuple[dict[str, Scores], str]:
        """Return the scores, whole and by term, or why there are none."""
        found = ImageSet(name, np.asarray(images), "", "")
        if found.images.shape[1:] != self.system.image_shape:
            sizes = ["x".join(map(str, shape)) for shape in (found.images.shape[1:], self.system.image_shape)]
            return {}, f"found {name} images of {sizes[0]}, the score takes {sizes[1]}"
        if len(found) < 2:
            return {}, f"found {len(found)} {name} images, needed at least 2 (--num-images)"
        return system_scores(self.system, found, found.sha256, self.run.scores, self.run.progress), ""

    def rows(self, points: Sequence[Point], by_term: bool) -> list[Measurement]:
        """Return the rows of all settings, and the control; ``by_term``: some system of the run has an energy of its own."""
        rows = [row for point in points for row in self._at(point, by_term)]
        if not self.reason:
            held = Drawn(self.system.name, size=self.system.size, fingerprint=self.system.fingerprint)
            rows.append(self._control(held))
        return rows

    def _at(self, point: Point, by_term: bool) -> list[Measurement]:
        found: dict[str, Scores] = {}
        reason = self.reason or point.drawn.reason
        if not reason:
            steps = "" if point.drawn.steps is None else f", {point.drawn.steps} steps"
            found, reason = self._of(point.drawn.images, f"samples{steps}")
        made = [self._gap(point, "score_gap", found.get(SCORE), self.held.get(SCORE), reason)]
        if by_term:
            lacking = "" if energies(self.held) is not None else "its score has no term neg_energy"
            made.append(
                self._gap(point, "energy_gap", energies(found), energies(self.held), reason or self.no_held or lacking)
            )
        inside, outside = AUROCS
        score = found.get(SCORE)
        held_out = {"held_out": f"{self.run.dataset} test"}
        made.append(self._auroc(point.drawn, inside, self.held.get(SCORE), score, reason or self.no_held, held_out))
        outer = {"outer": self.run.outer_name}
        made.append(self._auroc(point.drawn, outside, score, self.outer.get(SCORE), reason or self.no_outer, outer))
        return [self.run.placed(row, point) for row in made]

    def _control(self, held: Drawn) -> Measurement:
        """How the score tells the outer set from held-out images: what samples like these would get."""
        name, reason = AUROCS[1], self.no_held or self.no_outer
        about = {"outer": self.run.outer_name}
        row = self._auroc(held, name, self.held.get(SCORE), self.outer.get(SCORE), reason, about)
        protocol = {key: value for key, value in row.protocol.items() if key != "sampling"}
        return replace(row, role="control", variant=CONTROL, protocol=protocol)

    def _gap(self, point: Point, metric: str, found: Scores | None, held: Scores | None, reason: str) -> Measurement:
        estimate, reason = None, reason or self.no_held
        if found is not None and held is not None:
            try:
                estimate = standardised_gap(found, held)
            except UserError as error:
                reason = str(error)
        about = {"held_out": f"{self.run.dataset} test", "interval": "delta method, 95 %"}
        return self._row(point.drawn, metric, estimate, reason, about, found, held)

    def _auroc(
        self, drawn: Drawn, metric: str, higher: Scores | None, lower: Scores | None, reason: str, about: dict[str, Any]
    ) -> Measurement:
        estimate = None if higher is None or lower is None else auroc_interval(higher, lower)
        return self._row(drawn, metric, estimate, reason, {**about, "interval": _DELONG}, higher, lower)

    def _row(
        self,
        drawn: Drawn,
        metric: str,
        estimate: Estimate | None,
        reason: str,
        about: dict[str, Any],
        *sides: Scores | None,
    ) -> Measurement:
        protocol = {**self.system.protocol, **about, "sampling": drawn.sampling}
        return drawing.row(
            TradeoffSuite.name,
            drawn,
            self.run.dataset,
            metric,
            estimate,
            n=sum(len(side) for side in sides if side is not None),
            seed=self.run.bench.options.seed,
            role="diagnostic",
            protocol=protocol,
            note="" if estimate is not None else reason,
        )
