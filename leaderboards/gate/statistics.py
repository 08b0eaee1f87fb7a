"""When is a difference more than noise? From the 95 % intervals of two numbers alone, for many pairs at once."""

import math
from collections.abc import Sequence
from statistics import NormalDist

ALPHA = 0.05  # family-wise: the chance of any false alarm among all cells of a run
_NORMAL = NormalDist()
_HALF_WIDTH = _NORMAL.inv_cdf(0.975)  # of a 95 % interval, in standard errors


def standard_error(greater: Sequence[float], less: Sequence[float], correlation: float = 0.0) -> float:
    """Standard error of the difference of two estimates, by the method of variance estimates recovery (MOVER).

    s = sqrt(a^2 + b^2 - 2 rho a b) / 1.96, with a = value - low of the greater estimate and b = high - value of the lesser one. The
    sides that face each other are those that would have to reach each other if the truths were equal, so that the skew of an interval
    counts. An end on the wrong side of its value counts as the value. An interval of no width beside one that has some (an average
    precision of 1) knows no better: it counts as wide as the other.

    Args:
        greater, less: (value, low, high) of either, 95 % intervals; the value of ``greater`` is not the smaller one.
        correlation: rho in [-1, 1] of the two estimates; 0 for independent ones.

    References: Zou and Donner, Construction of confidence limits about effect measures, Statistics in Medicine 27 (2008); correlated
    estimates: Zou, Toward using confidence intervals to compare correlations, Psychological Methods 12 (2007).
    """
    a, b = max(0.0, greater[0] - greater[1]), max(0.0, less[2] - less[0])
    if greater[1] == greater[2]:
        a = b
    if less[1] == less[2]:
        b = a
    return math.sqrt(max(0.0, a * a + b * b - 2 * correlation * a * b)) / _HALF_WIDTH


def p_value(gap: float, error: float) -> float:
    """One-sided p-value of a gap >= 0 between two estimates: Phi(-gap / error); 0 where there is a gap and no error."""
    if gap == 0:
        return 1.0
    return _NORMAL.cdf(-gap / error) if error > 0 else 0.0


def holm(p_values: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which of m hypotheses to reject so that any false rejection has a chance <= alpha, whatever their dependence.

    From the smallest p-value on, the k-th (k = 0, 1, ...) is rejected while p <= alpha / (m - k).

    Reference: Holm, A simple sequentially rejective multiple test procedure, Scandinavian Journal of Statistics 6 (1979).
    """
    rejected = [False] * len(p_values)
    for k, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        if p_values[i] > alpha / (len(p_values) - k):
            break
        rejected[i] = True
    return rejected


def tolerance(error: float, cells: int, alpha: float = ALPHA) -> float:
    """The smallest gap that Holm's first step over ``cells`` hypotheses calls real: Phi^-1(1 - alpha / cells) standard errors."""
    return -_NORMAL.inv_cdf(alpha / cells) * error
