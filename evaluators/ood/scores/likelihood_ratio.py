"""Likelihood ratio: what a model knows beyond a background model that has seen the same low-level statistics.

Reference: Ren, Liu, Fertig, Snoek, Poplin, DePristo, Dillon and Lakshminarayanan, Likelihood Ratios for Out-of-Distribution
Detection (NeurIPS 2019), arXiv 1906.02845, equation 3. There the background is the same network trained on perturbed images; here
it is any other system under test, by name.
"""

from collections.abc import Mapping
from typing import ClassVar

from numpy.typing import ArrayLike

from evaluators.metrics.arrays import finite_scores
from evaluators.ood.scores.readings import Found, Readings, lacks_score
from evaluators.protocols import Scores
from evaluators.subjects import SystemUnderTest
from vaebm.errors import UserError, did_you_mean


def likelihood_ratio(scores: ArrayLike, background: ArrayLike) -> Scores:
    """log p(x) - log p_background(x).

    Constants in either (log Z, another unit of pixels) shift every value alike and change no ranking.

    Args:
        scores, background: both (N,), finite, of the same images in the same order, in nats.

    Returns:
        float64 (N,) in nats, any sign; higher = more in-distribution. Exchanging the two changes the sign.

    Raises:
        ValueError: unlike numbers of images. UserError: NaN or infinite scores.
    """
    p, q = finite_scores(scores, "scores"), finite_scores(background, "background scores")
    if p.shape != q.shape:
        raise ValueError(f"likelihood ratio: found {len(p)} scores and {len(q)} of the background")
    return p - q


class LikelihoodRatio:
    """``likelihood_ratio:BACKGROUND``, the name of another system under test."""

    needs_training_images: ClassVar[bool] = False

    def __init__(self, parameter: str = "") -> None:
        if not parameter:
            raise UserError("needed likelihood_ratio:BACKGROUND, the name of another system under test")
        self.background = parameter
        self.spec = f"likelihood_ratio:{parameter}"

    def lacks(self, system: SystemUnderTest, systems: Mapping[str, SystemUnderTest]) -> str:
        """It needs a score of its own and one of the background."""
        if self.background not in systems:
            near = did_you_mean(self.background, systems)
            raise UserError(f"no system under test is called {self.background!r}; add it to --systems.{near}")
        if system.name == self.background:
            return "is the background itself"
        if without := lacks_score(systems[self.background]):
            return f"the background {self.background}: {without}"
        return lacks_score(system)

    def read(self, system: str, readings: Readings) -> Found:
        """See :func:`likelihood_ratio`."""
        own, background = readings.whole(system), readings.whole(self.background)
        subject = readings.systems[self.background]
        about = ", ".join(str(subject.protocol[key]) for key in ("score", "estimator") if key in subject.protocol)
        return Found(
            {dataset: likelihood_ratio(own[dataset], background[dataset]) for dataset in own},
            score=f"s - s of {self.background}",
            estimator=f"background {self.background}{f' ({about})' if about else ''}",
            provenance={"background": subject.fingerprint},
        )
