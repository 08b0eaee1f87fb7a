"""Interval of a statistic from its values with one group of images left out."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import t

from evaluators.metrics.intervals import CONFIDENCE, Estimate
from vaebm.errors import UserError


def jackknife(value: float, left_out: ArrayLike, counts: ArrayLike) -> Estimate:
    """Delete-group jackknife: value +- t s, t with G - 1 degrees of freedom, 95 %.

    With n images, m_g of them in group g, h_g = n / m_g and pseudo-values v_g = h_g v - (h_g - 1) v_(g),
    s^2 = 1/G sum_g (v_g - mean)^2 / (h_g - 1), mean = G v - sum_g (1 - m_g / n) v_(g). For groups of one size this is
    s^2 = (G - 1) / G sum_g (v_(g) - mean of v_(g))^2. The interval is for the expectation of the statistic at this n: a
    bias that the statistic has at n images is not taken off.

    Args:
        value: of all images.
        left_out: v_(g), the value without the images of group g, (G,).
        counts: m_g, images of each group (G,); groups without images are ignored.

    Raises:
        UserError: fewer than two groups with images, which means fewer than two images.

    References: Tukey (1958); unequal groups: Busing, Meijer and van der Leeden, Delete-m jackknife for unequal m,
    Statistics and Computing 9 (1999).
    """
    m = np.asarray(counts, dtype=np.float64)
    v, m = np.asarray(left_out, dtype=np.float64)[m > 0], m[m > 0]
    groups, n = len(m), m.sum()
    if groups < 2:
        raise UserError(f"jackknife: found {groups} groups of images, needed at least 2")
    h = n / m
    mean = groups * value - np.sum((1 - m / n) * v)
    variance = np.mean((h * value - (h - 1) * v - mean) ** 2 / (h - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, groups - 1)) * math.sqrt(variance)
    return Estimate(value, value - half, value + half)
