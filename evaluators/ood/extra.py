"""Scores beyond the paper, of every system: the paper's own number stands beside them and is never replaced."""

import dataclasses
from collections.abc import Mapping, Sequence

from evaluators.ood.scores.readings import ExtraScore, NoScoreError, Readings
from evaluators.ood.scoring import SCORE, Scored
from evaluators.protocols import GradientScorer, RegretScorer, Scorer
from evaluators.subjects import SystemUnderTest
from vaebm.errors import UserError

PREFIX = "score:"  # of the variants of their rows, so that none is taken for a term of a score


def check_scores(scores: Sequence[ExtraScore], systems: Mapping[str, SystemUnderTest]) -> None:
    """Refuse a score that no system has.

    Raises:
        UserError: there is one, or it names a system that is not there.
    """
    for score in scores:
        try:
            reasons = [score.lacks(system, systems) for system in systems.values()]
        except UserError as error:
            raise UserError(f"--score {score.spec}: {error}") from None
        if all(reasons):
            told = "; ".join(f"{name}: {reason}" for name, reason in zip(systems, reasons, strict=True))
            raise UserError(f"--score {score.spec}: no chosen system has it ({told or 'there is none'}); see --systems")


def asked_for_images(scores: Sequence[ExtraScore], system: SystemUnderTest) -> bool:
    """Whether a system will be shown the images of a run."""
    asked = bool(scores) and isinstance(system.system, GradientScorer | RegretScorer)
    return asked or isinstance(system.system, Scorer)


def extra_scored(scores: Sequence[ExtraScore], system: Scored, readings: Readings) -> list[Scored]:
    """Return what each score makes of a system: diagnostics of one variant each."""
    return [_scored(score, system, readings) for score in scores]


def _scored(score: ExtraScore, system: Scored, readings: Readings) -> Scored:
    bare = dataclasses.replace(system, terms={}, role="diagnostic", variant=PREFIX + score.spec, reason="")
    try:
        if system.own_images:
            raise NoScoreError("scores were given without their images")
        if reason := score.lacks(readings.systems[system.name], readings.systems):
            raise NoScoreError(reason)
        found = score.read(system.name, readings)
    except NoScoreError as reason:
        return dataclasses.replace(bare, reason=str(reason))
    s = system.protocol.get("score", "the system's own score")
    with_estimator = f"s = {s} ({system.protocol['estimator']})" if "estimator" in system.protocol else f"s = {s}"
    about = {"score": found.score, "estimator": "; ".join(filter(None, [with_estimator, found.estimator]))}
    return dataclasses.replace(
        bare,
        terms={dataset: {SCORE: values} for dataset, values in found.values.items()},
        protocol={**system.protocol, **about},
        provenance={**system.provenance, score.spec: found.provenance} if found.provenance else system.provenance,
        missing=found.missing,
        images_per_value=found.images_per_value,
    )
