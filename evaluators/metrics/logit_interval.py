"""Interval of a number in (0, 1) from its standard error, on the logit scale."""

import math

from scipy.stats import norm

from evaluators.metrics.intervals import Estimate


def logit_interval(value: float, standard_error: float, confidence: float) -> Estimate:
    """expit(logit(v) +- z s / (v (1 - v))): never leaves [0, 1], and is skewed as estimates near 0 and 1 are.

    Args:
        value: in (0, 1).
        standard_error: of ``value`` itself, >= 0; the division is the delta method.
        confidence: in (0, 1).
    """
    half = norm.ppf((1 + confidence) / 2) * standard_error / (value * (1 - value))
    centre = math.log(value / (1 - value))
    return Estimate(value, _expit(centre - half), _expit(centre + half))


def _expit(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
