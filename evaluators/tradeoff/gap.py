"""How far samples lie from held-out images under a system's score, in a unit that compares systems."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.intervals import CONFIDENCE, Estimate
from vaebm.errors import UserError


def standardised_gap(samples: ArrayLike, held_out: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """(mean of the samples' scores - mean of the held-out images') / standard deviation of the held-out images': Glass's Delta.

    Scores of different systems have units of their own (nats, or whatever training gave an energy); this has none. The interval is
    that of the delta method: with Delta the value, s the deviation and y the m held-out scores, the variance is
    var(x) / (n s^2) + var(psi) / m, psi(y) = -(y - mean) / s - Delta ((y - mean)^2 - s^2) / (2 s^2), for independent images.

    Args:
        samples, held_out: finite scores (n,), (m,), n, m >= 2.

    Returns:
        Any number; 0 where the means agree, +1 where the samples' lies one standard deviation of the data above it.

    Raises:
        UserError: fewer than two scores on a side, NaN or infinite ones, or held-out scores that are all equal.

    Reference: Glass, Primary, secondary, and meta-analysis of research, Educational Researcher 5 (1976).
    """
    x = finite_scores(samples, "scores of samples", at_least=2)
    y = finite_scores(held_out, "scores of held-out images", at_least=2)
    spread = float(y.std(ddof=1))
    if spread == 0:
        raise UserError("the scores of all held-out images are equal: there is no spread to hold a gap against")
    apart = (y - y.mean()) / spread
    value = float((x.mean() - y.mean()) / spread)
    influence = -apart - value * (apart**2 - 1) / 2
    variance = float(x.var(ddof=1)) / spread**2 / len(x) + float(influence.var(ddof=1)) / len(y)
    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)


def energies(terms: dict[str, np.ndarray]) -> np.ndarray | None:
    """Return E (N,) of a score that has the term ``"neg_energy"``, else None."""
    return -terms["neg_energy"] if "neg_energy" in terms else None
