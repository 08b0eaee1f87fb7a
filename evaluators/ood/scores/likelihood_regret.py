"""Likelihood regret: how much better a VAE explains an image once its posterior is fitted to that image alone.

The encoder was trained on the training distribution; for images of it there is little left to gain.

Reference: Xiao, Yan and Amit, Likelihood Regret: An Out-of-Distribution Detection Score for Variational Auto-encoder (NeurIPS 2020),
arXiv 2003.02977, equation 4.
"""

from collections.abc import Mapping
from typing import ClassVar

from numpy.typing import ArrayLike

from evaluators.metrics.arrays import finite_scores
from evaluators.ood.scores import whole
from evaluators.ood.scores.readings import Found, NoScoreError, Readings
from evaluators.protocols import RegretScorer, Scores
from evaluators.subjects import SystemUnderTest

STEPS = 10  # few, since every step costs a pass through the decoder and back


def negative_regret(regrets: ArrayLike) -> Scores:
    """-(max over q of ELBO(x; q) - ELBO(x; q_encoder)).

    Args:
        regrets: the bracket, (N,), finite, in nats, at least 0: the encoder's posterior is among the q.

    Returns:
        float64 (N,) in nats, at most 0; higher = more in-distribution.

    Raises:
        ValueError: a negative regret. UserError: NaN or infinite numbers.
    """
    values = finite_scores(regrets, "regrets")
    if (values < 0).any():
        raise ValueError(f"likelihood regret: found {values.min()}, needed at least 0")
    return -values


class LikelihoodRegret:
    """``likelihood_regret`` or ``likelihood_regret:STEPS``, steps of the optimiser."""

    needs_training_images: ClassVar[bool] = False

    def __init__(self, parameter: str = "") -> None:
        self.steps = whole(parameter, "the number of steps of the optimiser", STEPS)
        self.spec = f"likelihood_regret:{self.steps}"

    def lacks(self, system: SystemUnderTest, systems: Mapping[str, SystemUnderTest]) -> str:
        """It needs a system that fits its posterior: ``likelihood_regret(images, steps)``."""
        return "" if isinstance(system.system, RegretScorer) else system.reason or "has no likelihood_regret (no VAE)"

    def read(self, system: str, readings: Readings) -> Found:
        """See :func:`negative_regret`."""
        scorer = readings.systems[system].system
        if not isinstance(scorer, RegretScorer):
            raise NoScoreError("has no likelihood_regret")
        ask = lambda images: scorer.likelihood_regret(images, self.steps)
        regrets = readings.ask(system, "likelihood_regret", {"steps": self.steps}, ask)
        return Found(
            {dataset: negative_regret(values) for dataset, values in regrets.items()},
            score="-(best ELBO - ELBO), nats",
            estimator=f"{self.steps} steps of Adam on shifts of every group's posterior, fixed noise",
        )
