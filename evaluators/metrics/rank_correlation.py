"""Spearman's rank correlation with an interval."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm, spearmanr

from evaluators.metrics.arrays import finite_scores
from evaluators.metrics.intervals import CONFIDENCE, Estimate, check_confidence
from vaebm.errors import UserError


def rank_correlation(x: ArrayLike, y: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Spearman's rho: Pearson's correlation of the mid-ranks of paired values, in [-1, 1].

    Interval: tanh(atanh(rho) +- z sqrt((1 + rho^2 / 2) / (N - 3))). An exact rho of +-1 (one is a monotone function of
    the other on this sample) has itself as both ends.

    Args:
        x, y: finite float values (N,) of the same N >= 4 images.

    Raises:
        UserError: other shapes, N < 4, NaN, infinity, or a constant ``x`` or ``y``, which has no rank correlation.

    References: Spearman (1904); the variance: Bonett and Wright, Sample size requirements for estimating Pearson,
        Kendall and Spearman correlations, Psychometrika 65 (2000).
    """
    check_confidence(confidence)
    a, b = finite_scores(x, "first values", at_least=4), finite_scores(y, "second values", at_least=4)
    if len(a) != len(b):
        raise UserError(f"rank correlation: found {len(a)} and {len(b)} values, needed one of each per image")
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        raise UserError("rank correlation: all values of one side are equal, so there is no ranking to compare")
    rho = float(np.clip(spearmanr(a, b).statistic, -1, 1))
    if 1 - abs(rho) < 1e-12:  # +-1 up to rounding
        exact = math.copysign(1.0, rho)
        return Estimate(exact, exact, exact)
    half = norm.ppf((1 + confidence) / 2) * math.sqrt((1 + rho**2 / 2) / (len(a) - 3))
    return Estimate(rho, math.tanh(math.atanh(rho) - half), math.tanh(math.atanh(rho) + half))
