"""Interval of a share of images from its standard error."""

import math

from scipy.stats import norm

from evaluators.metrics.intervals import CONFIDENCE, Estimate, check_confidence


def proportion_interval(value: float, standard_error: float, n: int, *, confidence: float = CONFIDENCE) -> Estimate:
    """Wilson's score interval for as many independent images as would have this standard error.

    With n' = v (1 - v) / s^2 (n itself where v is 0 or 1) and z the normal quantile:
    (v + z^2 / 2n' +- z sqrt(v (1 - v) / n' + z^2 / 4n'^2)) / (1 + z^2 / n'). It stays inside [0, 1] and has a width at 0 and 1 too.

    Args:
        value: in [0, 1].
        standard_error: of ``value``, > 0 unless ``value`` is 0 or 1.
        n: images the share is of.

    Raises:
        UserError: a confidence outside (0, 1).

    References: Wilson, Probable inference, the law of succession, and statistical inference, Journal of the American Statistical
    Association 22 (1927); effective size: Korn and Graubard, Confidence intervals for proportions with small expected number of
    positive counts estimated from survey data, Survey Methodology 24 (1998).
    """
    check_confidence(confidence)
    z2 = float(norm.ppf((1 + confidence) / 2)) ** 2
    size = value * (1 - value) / standard_error**2 if 0 < value < 1 else n
    centre = (value + z2 / (2 * size)) / (1 + z2 / size)
    half = math.sqrt(z2 * (value * (1 - value) / size + z2 / (4 * size**2))) / (1 + z2 / size)
    # At 0 and 1 rounding would leave the end 1e-17 beside the value.
    return Estimate(value, min(value, max(0.0, centre - half)), max(value, min(1.0, centre + half)))
