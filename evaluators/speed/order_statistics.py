"""The median of a few rounds and an interval for it that assumes nothing about how times are distributed."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Median:
    """A median over rounds.

    Attributes:
        value: the median.
        low, high: ends of the interval, two of the rounds; None for a single round.
        coverage: probability with which they hold the true median.
        quartiles: first and third, by linear interpolation.
    """

    value: float
    low: float | None
    high: float | None
    coverage: float
    quartiles: tuple[float, float]


def median_of(values: Sequence[float]) -> Median:
    """Return the median of independent values with its interval from order statistics.

    Each value lies below the true median with probability 1/2, so that of n values [x_(k), x_(n + 1 - k)] holds it with probability
    1 - 2 P(Binomial(n, 1/2) < k). k is the largest for which that is at least 0.95; where none is, as for fewer than 6 values, 1.

    Args:
        values: finite, at least one.

    Reference: David and Nagaraja, "Order Statistics", 2003, section 7.1.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    covers = {k: 1 - 2 * sum(comb(n, i) for i in range(k)) / 2**n for k in range(1, n // 2 + 1)}
    k = max((k for k, coverage in covers.items() if coverage >= CONFIDENCE), default=1)
    first, third = np.quantile(ordered, (0.25, 0.75)).tolist()
    low, high = (None, None) if n == 1 else (float(ordered[k - 1]), float(ordered[n - k]))
    return Median(float(np.median(ordered)), low, high, covers.get(k, 0.0), (first, third))
