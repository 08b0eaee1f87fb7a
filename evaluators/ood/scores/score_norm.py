"""Score norm: how steep log p is at the image. Typical images lie where the density is flat, in a region that holds mass.

Reference: Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi and Swersky, Your Classifier is Secretly an Energy Based Model and You Should
Treat It Like One (ICLR 2020), arXiv 1912.03263, section 5.3 ("approximate mass").
"""

from collections.abc import Mapping
from typing import ClassVar

from numpy.typing import ArrayLike

from evaluators.metrics.arrays import finite_scores
from evaluators.ood.scores import nothing
from evaluators.ood.scores.readings import Found, NoScoreError, Readings
from evaluators.protocols import GradientScorer, Scores
from evaluators.subjects import SystemUnderTest


def negative_norm(norms: ArrayLike) -> Scores:
    """-||d log p(x) / d x||, Euclidean.

    Args:
        norms: (N,), at least 0, in nats per unit of a pixel in [0, 1]. A constant in log p does not enter it.

    Returns:
        float64 (N,), at most 0; higher = more in-distribution.

    Raises:
        ValueError: a negative norm. UserError: NaN or infinite norms.
    """
    values = finite_scores(norms, "norms")
    if (values < 0).any():
        raise ValueError(f"score norm: found a norm of {values.min()}, needed at least 0")
    return -values


class ScoreNorm:
    """``score_norm``."""

    needs_training_images: ClassVar[bool] = False
    spec = "score_norm"

    def __init__(self, parameter: str = "") -> None:
        nothing(parameter)

    def lacks(self, system: SystemUnderTest, systems: Mapping[str, SystemUnderTest]) -> str:
        """It needs a gradient, not a score: networks that model the gradient alone have it, too."""
        return "" if isinstance(system.system, GradientScorer) else system.reason or "has no score_gradient_norm"

    def read(self, system: str, readings: Readings) -> Found:
        """See :func:`negative_norm`."""
        scorer = readings.systems[system].system
        if not isinstance(scorer, GradientScorer):
            raise NoScoreError("has no score_gradient_norm")
        norms = readings.ask(system, "score_gradient_norm", {}, scorer.score_gradient_norm)
        return Found(
            {dataset: negative_norm(values) for dataset, values in norms.items()},
            score="-||ds / dx||, x in [0, 1]",
            estimator=getattr(scorer, "gradient_note", ""),
        )
